"""Rows that other writers left: repeated columns, white space, other spellings of a moment."""

import json
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, text
from support.orders import OrderPlaced, placed

from esource import EventRegistry
from esource.domain.events import DomainEvent
from esource.errors import EventDecodeError
from esource.moments import from_iso
from esource.tables import events

NOON = datetime(2024, 3, 1, 12, tzinfo=timezone.utc)
EVENT = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
ORDER = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")


async def write_row(store, payload, **columns):
    """Put a row into the log as another program would."""
    row = {
        "event_id": EVENT,
        "aggregate_id": ORDER,
        "aggregate_type": "Order",
        "event_type": "OrderPlaced",
        "version": 1,
        "timestamp": NOON,
        "payload": payload,
        "created_at": NOON,
        **columns,
    }
    async with store.transaction() as tx:
        await tx.connection.execute(insert(events).values(row))


async def read(store):
    return (await store.get_events(ORDER, "Order")).events[0]


async def test_the_columns_win_over_what_the_payload_repeats(store):
    tenant = uuid4()
    repeated = placed(
        customer_id="c",
        total=2.5,
        tenant_id=uuid4(),
        actor_id="someone",
        aggregate_version=9,
        metadata={"a": 1},
    ).to_dict()
    await write_row(store, json.dumps(repeated), tenant_id=tenant, actor_id="me")
    found = await read(store)
    assert type(found) is OrderPlaced
    assert (found.event_id, found.aggregate_id, found.aggregate_version) == (EVENT, ORDER, 1)
    assert (found.tenant_id, found.actor_id, found.occurred_at) == (tenant, "me", NOON)
    assert (found.customer_id, found.total, found.metadata) == ("c", 2.5, {"a": 1})
    assert str(found.correlation_id) == repeated["correlation_id"]


async def test_an_empty_column_wins_too(store):
    repeated = placed(tenant_id=uuid4(), actor_id="someone").to_dict()
    await write_row(store, json.dumps(repeated))
    found = await read(store)
    assert found.tenant_id is None
    assert found.actor_id is None


@pytest.mark.parametrize("template", ["{}", " {} ", "\n{}\n\t"])
async def test_white_space_in_json_does_not_matter(store, template):
    body = json.dumps({"customer_id": "c", "total": 1}, indent=2)
    await write_row(store, template.replace("{}", body))
    assert (await read(store)).customer_id == "c"


@pytest.mark.parametrize("template", ["{}", "{}\n"])
async def test_the_columns_make_the_event_whichever_way_its_payload_is_read(store, template):
    store.codec.registry = EventRegistry()
    store.codec.registry.register(OrderPlaced, "Renamed")
    tenant = uuid4()
    await write_row(
        store,
        template.replace("{}", '{"customer_id":"c","total":1}'),
        event_type="Renamed",
        aggregate_type="Purchase",
        version=7,
        tenant_id=tenant,
        actor_id="me",
    )
    (event,) = [stored.event async for stored in store.read_all()]
    assert (type(event), event.event_type, event.aggregate_type) == (OrderPlaced, "Renamed", "Purchase")
    assert (event.event_id, event.aggregate_id, event.aggregate_version) == (EVENT, ORDER, 7)
    assert (event.tenant_id, event.actor_id, event.occurred_at) == (tenant, "me", NOON)


class Bare(DomainEvent):
    aggregate_type: str = "Order"


@pytest.mark.parametrize("payload", ["{}", "{ }", " {}\n"])
async def test_an_empty_payload_is_read(store, payload):
    store.codec.registry = EventRegistry()
    store.codec.registry.register(Bare)
    await write_row(store, payload, event_type="Bare")
    found = await read(store)
    assert (found.event_id, found.metadata, found.event_version) == (EVENT, {}, 1)


@pytest.mark.parametrize("payload", ["[]", "null", '"text"', "1", '{"customer_id": "c"}', '{"total": 1}'])
async def test_a_payload_that_does_not_fit_is_an_error_that_says_where(store, payload):
    await write_row(store, payload)
    with pytest.raises(EventDecodeError, match=f"OrderPlaced {EVENT} at global position 1") as refused:
        await read(store)
    assert (refused.value.event_type, refused.value.global_position) == ("OrderPlaced", 1)
    # the envelope can still be read
    (stored,) = [stored async for stored in store.read_all()]
    assert (stored.event_id, stored.stream_position) == (EVENT, 1)


MOMENTS = [
    "2024-03-01T12:00:00.000000+00:00",
    "2024-03-01T12:00:00+00:00",
    "2024-03-01T14:30:00+02:30",
    "2024-03-01T12:00:00Z",
    "2024-03-01T12:00:00.000Z",
    "2024-03-01 12:00:00",
    "2024-03-01T12:00:00",
    "2024-03-01 12:00:00.000000+00:00",
    "2024-03-01 07:00:00-05:00",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_spelling_of_a_moment_is_understood(moment):
    assert from_iso(moment) == NOON
    assert from_iso(moment).utcoffset() == timedelta(0)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_text_timestamp_on_sqlite_may_have_any_spelling(sqlite_store, moment):
    store = sqlite_store
    await write_row(store, '{"customer_id":"c","total":1}')
    async with store.transaction() as tx:
        await tx.connection.execute(text("UPDATE events SET timestamp = :m, created_at = :m"), {"m": moment})
    assert (await read(store)).occurred_at == NOON
    (stored,) = [stored async for stored in store.read_all()]
    assert (stored.occurred_at, stored.stored_at) == (NOON, NOON)


@pytest.mark.parametrize("payload", ["", "{", "not json", '{"a":1}}', "{'a': 1}"])
async def test_a_text_payload_on_sqlite_that_is_no_json_is_an_error(sqlite_store, payload):
    await write_row(sqlite_store, payload)
    with pytest.raises(EventDecodeError, match="OrderPlaced"):
        await read(sqlite_store)


@pytest.fixture
async def sqlite_store(tmp_path, open_stores):
    return await open_stores(f"sqlite:///{tmp_path / 'events.db'}")
