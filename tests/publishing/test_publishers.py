"""CloudEvents, and what arrives at a broker: FastStream's in-memory one, and a real NATS server if there is one."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import sys
from uuid import uuid4

import pytest
from cloudevents.core.formats.json import JSONFormat
from faststream.nats import NatsBroker, NatsMessage, TestNatsBroker
from support.orders import placed, several

from esource import FastStreamPublisher, OutboxRelay, OutboxRepository, to_cloud_event
from esource.errors import InvalidOptionError
from esource.publishing.publishers import PLACES


async def entry_for(store, event):
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    [entry] = await OutboxRepository(store).get_pending_events()
    return entry


async def test_a_cloud_event_carries_the_event_and_its_place(store):
    event = placed(tenant_id=uuid4()).with_causation(placed())
    cloud_event = to_cloud_event(await entry_for(store, event), "/shop")

    assert cloud_event.get_id() == str(event.event_id)
    assert cloud_event.get_type() == "OrderPlaced"
    assert cloud_event.get_source() == "/shop"
    assert cloud_event.get_subject() == f"Order/{event.aggregate_id}"
    assert cloud_event.get_time() == event.occurred_at
    assert cloud_event.get_extension("globalposition") == "1"
    assert cloud_event.get_extension("aggregateversion") == "1"
    assert cloud_event.get_extension("tenantid") == str(event.tenant_id)
    assert cloud_event.get_extension("correlationid") == str(event.correlation_id)
    assert cloud_event.get_extension("causationid") == str(event.causation_id)
    assert type(event).from_dict(cloud_event.get_data()) == event


async def test_what_is_not_known_is_no_attribute(store):
    attributes = to_cloud_event(await entry_for(store, placed()), "/shop").get_attributes()
    assert "tenantid" not in attributes
    assert "causationid" not in attributes


def destination_by_function(entry):
    return f"by-function.{entry.event_type}"


@pytest.mark.parametrize(
    ("destination", "expected"),
    [("shop.{aggregate_type}.{event_type}", "shop.Order.OrderPlaced"),
     (destination_by_function, "by-function.OrderPlaced")],
)  # fmt: skip
async def test_a_broker_gets_structured_cloud_events_where_they_belong(store, destination, expected):
    broker = NatsBroker()
    arrived = []

    @broker.subscriber(expected)
    async def take(body: bytes):
        arrived.append(body)

    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    async with TestNatsBroker(broker):
        relay = OutboxRelay(store, FastStreamPublisher(broker, destination, source="/shop"))
        assert await relay.drain() == 1

    cloud_event = JSONFormat().read(None, arrived[0])
    assert type(event).from_dict(cloud_event.get_data()) == event


async def test_every_field_of_an_entry_may_stand_in_a_destination(store):
    """As the docstring says of ``event_id``."""
    entry = await entry_for(store, placed(tenant_id=uuid4()))
    for name in PLACES:
        publisher = FastStreamPublisher(None, "shop.{" + name + "}.{{x}}", source="/shop")
        assert publisher.destination_of(entry) == f"shop.{getattr(entry, name)}.{{x}}"


@pytest.mark.parametrize(
    ("destination", "said"),
    [
        ("shop.{evnt_type}", "no plain name of a field: 'evnt_type'. An entry has id, event_id"),
        ("shop.{}", "no plain name of a field: ''"),
        ("shop.{0}", "no plain name of a field: '0'"),
        ("shop.{event_type.upper}", "no plain name of a field: 'event_type.upper'"),
        ("shop.{event_data[amount]}", "no plain name of a field: 'event_data"),
        ("shop.{event_type", "cannot be filled in"),
        ("shop.}", "cannot be filled in"),
        ("shop.{event_id:>40}", "no plain name of a field: 'event_id'"),
        ("shop.{event_id!r}", "no plain name of a field: 'event_id'"),
        (b"shop", "must be a text or a function"),
        (None, "must be a text or a function"),
    ],
)
def test_a_destination_that_cannot_be_made_is_refused_when_the_publisher_is(destination, said):
    with pytest.raises(InvalidOptionError, match=re.escape(said)):
        FastStreamPublisher(None, destination, source="/shop")


@pytest.mark.parametrize("source", ["", None, b"/shop"])
def test_a_source_that_no_cloud_event_can_have_is_refused_when_the_publisher_is_made(source):
    with pytest.raises(InvalidOptionError, match="source must be a URI reference"):
        FastStreamPublisher(None, "shop", source=source)
    with pytest.raises(InvalidOptionError, match="options must be a function"):
        FastStreamPublisher(None, "shop", source="/shop", options={"stream": "shop"})


async def test_headers_of_ones_own_are_sent_beside_the_content_type(store):
    broker = NatsBroker()
    seen = []

    @broker.subscriber("orders")
    async def take(message: NatsMessage):
        seen.append(message.headers)

    await store.append_events((event := placed()).aggregate_id, "Order", [event], 0)
    async with TestNatsBroker(broker):
        publisher = FastStreamPublisher(
            broker, "orders", source="/shop", options=lambda entry: {"headers": {"kind": entry.event_type}}
        )
        assert await OutboxRelay(store, publisher).drain() == 1
    [headers] = seen
    assert headers["kind"] == "OrderPlaced"
    assert headers["content-type"].startswith("application/cloudevents+json")


async def test_the_brokers_own_options_are_passed_on(store):
    broker = NatsBroker()
    seen = []

    @broker.subscriber("orders")
    async def take(message: NatsMessage):
        seen.append(message.correlation_id)

    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    async with TestNatsBroker(broker):
        publisher = FastStreamPublisher(
            broker, "orders", source="/shop", options=lambda entry: {"correlation_id": str(entry.event_id)}
        )
        await OutboxRelay(store, publisher).drain()
    assert seen == [str(event.event_id)]


async def test_a_broker_that_is_away_is_tried_again(store):
    broker = NatsBroker("nats://127.0.0.1:1")  # never connected
    await store.append_events((event := placed()).aggregate_id, "Order", [event], 0)
    relay = OutboxRelay(store, FastStreamPublisher(broker, "orders", source="/shop"))
    assert await relay.drain() == 0
    [entry] = await OutboxRepository(store).get_pending_events()
    assert entry.retry_count == 1
    assert entry.last_error


def test_without_the_extra_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['cloudevents'] = None; sys.modules['cloudevents.core.formats.json'] = None\n"
        "from esource import FastStreamPublisher\n"
        "from esource.errors import MissingDriverError\n"
        "try: FastStreamPublisher(None, 'x', source='/')\n"
        "except MissingDriverError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "cloudevents is not installed. Run: pip install 'esource[faststream]'\n"


# -- a real server ---------------------------------------------------------------------------------

if shutil.which("nats-server"):

    @pytest.fixture
    def nats_url(tmp_path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(
            ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-l", str(tmp_path / "nats.log")]
        )
        yield f"nats://127.0.0.1:{port}"
        server.terminate()
        server.wait()

    async def test_a_real_nats_server_delivers_every_stream_in_order(store, nats_url):
        streams = [several(5) for _ in range(4)]
        for step in range(5):
            for stream in streams:
                await store.append_events(stream[0].aggregate_id, "Order", [stream[step]], step)
        broker = NatsBroker(nats_url, connect_timeout=10, allow_reconnect=True, max_reconnect_attempts=-1)
        arrived = []
        done = asyncio.Event()

        @broker.subscriber("shop.>")
        async def take(body: bytes):
            arrived.append(JSONFormat().read(None, body))
            if len(arrived) == 20:
                done.set()

        await broker.start()
        try:
            relay = OutboxRelay(store, FastStreamPublisher(broker, "shop.{event_type}", source="/shop"))
            assert await relay.drain() == 20
            await asyncio.wait_for(done.wait(), 10)
        finally:
            await broker.stop()
        for stream in streams:
            subject = f"Order/{stream[0].aggregate_id}"
            assert [e.get_id() for e in arrived if e.get_subject() == subject] == [
                str(event.event_id) for event in stream
            ]
