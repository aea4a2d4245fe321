"""A publish that hangs is a failed attempt, and neither a stop nor other streams wait for it."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.orders import placed, several
from support.relays import Gate, Sink, append, relay_of, stats_of

from esource import InvalidEventError, InvalidOptionError, OutboxRepository
from esource.database import calls, cancellation
from esource.publishing import relay as relay_module
from esource.publishing.sending import Batch


class Hanging(Sink):
    """Hangs at these events, as often as it is told to."""

    def __init__(self, *hanging, times=1):
        super().__init__()
        self.hanging = dict.fromkeys((event.event_id for event in hanging), times)
        self.hangs = asyncio.Event()

    async def publish(self, entry):
        if self.hanging.get(entry.event_id, 0) > 0:
            self.hanging[entry.event_id] -= 1
            self.hangs.set()
            await asyncio.Event().wait()
        await super().publish(entry)


async def test_a_publish_that_hangs_is_tried_again(store, caplog):
    events = several(3)
    await append(store, *events)
    hanging = Hanging(events[1], times=2)
    relay = relay_of(store, hanging, publish_seconds=0.05)
    while len(hanging.ids) < 3:
        await relay.drain()
        await asyncio.sleep(0.001)
    assert hanging.ids == [event.event_id for event in events]
    health = await relay.health()
    assert health.failures == 2
    assert "publish() took longer than publish_seconds = 0.05 s" in health.last_error
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.split(" at row ")[0] for text in said] == [
        f"relay outbox: attempt {number} of 10" for number in (1, 2)
    ]


async def test_a_publish_that_always_hangs_is_given_up(store):
    event = placed()
    await append(store, event)
    relay = relay_of(store, Hanging(event, times=1000), publish_seconds=0.02, max_attempts=2)
    while (await stats_of(store))[0]:
        await relay.drain()
    [entry] = await OutboxRepository(store).get_failed_events()
    assert entry.last_error.startswith("TimeLimitError: publish() took longer")


async def test_many_messages_that_hang_together_are_sent_one_by_one(store):
    class Producer(Sink):
        async def publish_many(self, entries):
            await asyncio.Event().wait()

    events = several(3)
    await append(store, *events)
    producer = Producer()
    assert await relay_of(store, producer, publish_seconds=0.05).drain() == 3
    assert producer.ids == [event.event_id for event in events]


async def test_a_running_relay_goes_on_with_other_streams_beside_one_that_hangs(store, monkeypatch):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.01)
    slow = placed()
    await append(store, slow)
    hanging = Hanging(slow)
    relay = relay_of(store, hanging, publish_seconds=None, batch_size=4, poll_seconds=0.01)
    running = asyncio.create_task(relay.run())
    await hanging.hangs.wait()
    others = [several(2) for _ in range(6)]
    for stream in others:
        await append(store, *stream)
    while len(hanging.ids) < 12:
        assert not running.done()
        await asyncio.sleep(0.001)
    assert hanging.by_stream() == {s[0].aggregate_id: [e.event_id for e in s] for s in others}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await relay_of(store, hanging).drain() == 1  # it was let go of


@pytest.mark.slow
async def test_a_drain_goes_on_with_other_streams_beside_one_that_hangs_and_ends_with_stop(
    store, monkeypatch
):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.01)
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.05)
    slow = placed()
    others = [several(2) for _ in range(6)]
    for stream in [[slow], *others]:
        await append(store, *stream)
    hanging = Hanging(slow)
    relay = relay_of(store, hanging, publish_seconds=None, batch_size=4, poll_seconds=0.01)
    draining = asyncio.create_task(relay.drain())
    while len(hanging.ids) < 12:
        assert not draining.done()
        await asyncio.sleep(0.001)
    relay.stop()
    assert await draining == 12
    assert await relay.drain() == 1  # it was let go of


async def test_a_drain_publishes_what_waited_behind_a_publish_that_took_long(store, monkeypatch):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.001)
    events, other = several(5), placed()
    await append(store, *events)
    await append(store, other)
    opened = asyncio.Event()

    class Slow(Sink):
        async def publish(self, entry):
            if entry.event_id == events[0].event_id:
                await opened.wait()
            await super().publish(entry)

    slow = Slow()
    draining = asyncio.create_task(relay_of(store, slow, batch_size=2, poll_seconds=60.0).drain())
    while slow.ids != [other.event_id]:  # it has looked for more: the other rows wait behind the first
        assert not draining.done()
        await asyncio.sleep(0.001)
    opened.set()
    assert await draining == 6
    assert slow.ids == [other.event_id, *(event.event_id for event in events)]


async def test_a_publisher_of_many_messages_gets_one_batch_at_a_time(store, monkeypatch):
    """A producer with transactions could not have two."""
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.001)
    at_work = 0

    class Producer(Sink):
        async def publish_many(self, entries):
            nonlocal at_work
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0.02)
            self.entries += entries
            at_work -= 1

    streams = [several(2) for _ in range(5)]
    for stream in streams:
        await append(store, *stream)
    producer = Producer()
    relay = relay_of(store, producer, batch_size=2, poll_seconds=0.001)
    running = asyncio.create_task(relay.run())
    while len(producer.ids) < 10:
        assert not running.done()
        await asyncio.sleep(0.001)
    relay.stop()
    await running
    assert (await relay.health()).failures == 0


async def test_stop_ends_a_publish_that_hangs_and_begins_with_no_further_message(store, monkeypatch, caplog):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.01)
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.05)
    events = several(3)
    await append(store, *events)
    hanging = Hanging(events[0])
    relay = relay_of(store, hanging, publish_seconds=None)
    running = asyncio.create_task(relay.run())
    await hanging.hangs.wait()
    relay.stop()
    await running
    assert "its publisher has not ended" in caplog.text
    assert await relay_of(store, hanging).drain() == 3
    assert hanging.ids == [event.event_id for event in events]


async def test_stop_lets_the_message_at_hand_come_to_its_end(store, monkeypatch):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.01)
    events = several(3)
    await append(store, *events)
    gate = Gate()
    stop = Batch.stop

    def stop_and_open(batch):
        stop(batch)
        gate.opened.set()

    monkeypatch.setattr(Batch, "stop", stop_and_open)
    relay = relay_of(store, gate)
    running = asyncio.create_task(relay.run())
    await gate.reached.wait()
    relay.stop()
    await running
    assert gate.ids == [events[0].event_id]
    assert await stats_of(store) == (2, 1, 0)


async def test_a_publisher_that_swallows_its_cancellation_is_cancelled_again(store, monkeypatch):
    monkeypatch.setattr(relay_module, "GO_ON_SECONDS", 0.01)
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.01)
    monkeypatch.setattr(cancellation, "DROP_SECONDS", 0.01)
    reached = asyncio.Event()

    class Deaf(Sink):
        async def publish(self, entry):
            reached.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    await append(store, placed())
    relay = relay_of(store, Deaf(), publish_seconds=None)
    running = asyncio.create_task(relay.run())
    await reached.wait()
    relay.stop()
    await running


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
def test_a_limit_that_makes_no_sense_is_refused(seconds):
    with pytest.raises(InvalidOptionError, match="publish_seconds must be more than 0 seconds"):
        relay_of("sqlite://", Sink(), publish_seconds=seconds)


@pytest.mark.parametrize(
    "options",
    [
        {"keep_published_days": "5"},
        {"keep_published_days": -1},
        {"keep_published_days": 10**30},
        {"name": 5},
        {"name": ""},
        {"owner": "a\0b"},
        {"owner": ""},
        {"owner": "x" * 250},
    ],
)
def test_an_option_that_would_fail_later_is_refused(options):
    with pytest.raises((InvalidOptionError, InvalidEventError), match=next(iter(options))):
        relay_of("sqlite://", Sink(), **options)
