"""The relay: every row once, each stream in order; its health, its options, and what it deletes."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.orders import placed, several
from support.relays import append, relay_of, stats_of

from esource import EventStore, InvalidOptionError, OutboxRepository


async def test_everything_that_waits_is_published_once_with_the_whole_event(store, sink):
    events = several(5)
    await append(store, *events)
    relay = relay_of(store, sink, batch_size=2)

    assert await relay.drain() == 5
    assert await relay.drain() == 0

    assert sink.ids == [event.event_id for event in events]
    entry = sink.entries[0]
    assert (entry.event_type, entry.aggregate_type, entry.global_position) == ("OrderPlaced", "Order", 1)
    assert entry.event_data["customer_id"] == "c-1"
    assert entry.event_data["aggregate_version"] == 1
    assert await stats_of(store) == (0, 5, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
async def test_streams_stay_in_order_side_by_side(store, sink, batch_size):
    streams = [several(6) for _ in range(7)]
    for step in range(6):
        for stream in random.sample(streams, len(streams)):
            await append(store, stream[step])

    await relay_of(store, sink, batch_size=batch_size).drain()

    assert sink.by_stream() == {s[0].aggregate_id: [e.event_id for e in s] for s in streams}


async def test_rows_added_by_hand_are_published_too(store, sink):
    outbox = OutboxRepository(store)
    by_hand = several(3)
    for event in by_hand:
        await outbox.add_event(event)
    logged = placed()
    await append(store, logged)

    await relay_of(store, sink, batch_size=2).drain()

    assert set(sink.ids) == {event.event_id for event in [*by_hand, logged]}
    assert sink.by_stream()[by_hand[0].aggregate_id] == [event.event_id for event in by_hand]
    assert {entry.event_data["customer_id"] for entry in sink.entries} == {"c-1"}


async def test_a_running_relay_publishes_what_comes(store, sink):
    relay = relay_of(store, sink, poll_seconds=30)
    running = asyncio.create_task(relay.run())
    try:
        for _ in range(3):
            event = placed()
            await append(store, event)
            while event.event_id not in sink.ids and not running.done():
                await asyncio.sleep(0.001)
    finally:
        relay.stop()
        await running


async def test_health_tells_what_waits_and_what_was_done(store, sink):
    await append(store, *several(3))
    relay = relay_of(store, sink, batch_size=2)
    before = await relay.health()
    assert (before.kind, before.name, before.lag_events, before.events_processed) == ("relay", "outbox", 3, 0)
    assert before.lag_seconds >= 0
    await relay.drain()
    after = await relay.health()
    assert (after.lag_events, after.events_processed, after.position, after.lag_seconds) == (0, 3, 3, 0.0)


async def test_what_was_published_long_ago_is_deleted_on_the_way(store, sink):
    await append(store, *several(3))
    relay = relay_of(store, sink, keep_published_days=0)
    await relay.drain()
    running = asyncio.create_task(relay.run())
    while (await stats_of(store)) != (0, 0, 0):
        await asyncio.sleep(0.001)
    relay.stop()
    await running


async def test_a_relay_on_a_url_closes_what_it_opened(shared_database_url, open_stores, sink):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    await append(store, placed())
    async with relay_of(shared_database_url, sink) as relay:
        assert await relay.drain() == 1


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"concurrency": 0}, {"max_attempts": 0}, {"retry_seconds": 0}, {"lease_seconds": -1},
     {"poll_seconds": 0}],
)  # fmt: skip
async def test_options_that_make_no_sense_are_refused(store, sink, options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        relay_of(store, sink, **options)


async def test_a_row_by_hand_for_an_event_in_the_log_keeps_its_place(store, sink):
    events = several(3)
    plain = open_store_like(store)
    await plain.append_events(events[0].aggregate_id, "Order", events)
    for event in reversed(events):
        await OutboxRepository(store).add_event(event)
    await relay_of(store, sink).drain()
    assert sink.ids == [event.event_id for event in events]


def open_store_like(store):
    """A store on the same database that writes no outbox rows."""
    return EventStore(store._opened.database, enable_tracing=False)
