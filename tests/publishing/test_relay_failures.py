"""What fails is tried again after a pause and given up in the end, and holds up nobody else's stream."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed, several
from support.relays import Sink, append, relay_of, stats_of

from esource import OutboxRepository
from esource.testing.server import dsn


async def test_a_failed_row_holds_its_stream_up_and_no_other(store, sink):
    poison, other = several(3), several(3)
    await append(store, *poison)
    await append(store, *other)
    sink.failing[poison[1].event_id] = 1
    relay = relay_of(store, sink, retry_seconds=3600, max_retry_seconds=3600)

    assert await relay.drain() == 4
    assert sink.by_stream()[poison[0].aggregate_id] == [poison[0].event_id]
    assert sink.by_stream()[other[0].aggregate_id] == [event.event_id for event in other]
    [failed, waiting] = await OutboxRepository(store).get_pending_events()
    assert (failed.event_id, failed.retry_count) == (poison[1].event_id, 1)
    assert failed.last_error == "ConnectionError: the broker is away"
    assert (waiting.event_id, waiting.retry_count) == (poison[2].event_id, 0)

    late = placed(poison[0].aggregate_id)
    await append(store, late)  # nor does what comes later overtake it
    assert await relay.drain() == 0


async def test_a_row_is_tried_again_after_its_pause_and_its_stream_stays_in_order(store, sink):
    events = several(4)
    await append(store, *events)
    sink.failing[events[1].event_id] = 3
    relay = relay_of(store, sink, poll_seconds=0.01)
    running = asyncio.create_task(relay.run())
    while len(sink.ids) < 4:
        await asyncio.sleep(0.001)
    relay.stop()
    await running
    assert sink.ids == [event.event_id for event in events]
    health = await relay.health()
    assert (health.failures, health.last_error) == (3, "ConnectionError: the broker is away")


@pytest.mark.parametrize("blocking", [False, True])
async def test_after_so_many_attempts_a_row_is_given_up(store, sink, blocking):
    events = several(3)
    await append(store, *events)
    sink.failing[events[0].event_id] = 1000
    relay = relay_of(store, sink, max_attempts=3, block_failed_streams=blocking)

    for _ in range(3):
        await relay.drain()
        await asyncio.sleep(0.01)  # past the pause

    await relay.drain()
    assert sink.ids == ([] if blocking else [event.event_id for event in events[1:]])
    assert await stats_of(store) == ((2, 0, 1) if blocking else (0, 2, 1))

    sink.failing.clear()
    assert await OutboxRepository(store).retry_failed() == 1
    await relay.drain()
    assert set(sink.ids) == {event.event_id for event in events}
    if blocking:
        assert sink.ids == [event.event_id for event in events]


async def test_pauses_grow_up_to_the_longest(store, sink):
    event = placed()
    await append(store, event)
    sink.failing[event.event_id] = 4
    relay = relay_of(store, sink, retry_seconds=0.01, max_retry_seconds=0.04)
    pauses = [relay._retries.pause_after(attempt) for attempt in (1, 2, 3, 10, 5000)]
    for pause, longest in zip(pauses, (0.01, 0.02, 0.04, 0.04, 0.04), strict=True):
        assert longest / 2 <= pause <= longest


async def test_a_batch_that_fails_as_a_whole_is_sent_one_by_one(store):
    class Producer(Sink):
        batches = 0

        async def publish_many(self, entries):
            self.batches += 1
            if self.batches == 2:
                raise ConnectionError("half of it may be there")
            self.entries += entries

    events = several(6)
    await append(store, *events)
    producer = Producer()
    assert await relay_of(store, producer, batch_size=3).drain() == 6
    assert producer.batches == 2
    assert producer.ids == [event.event_id for event in events]


async def fails(relay, count):
    """Run a relay until it has failed so often; the task."""
    running = asyncio.create_task(relay.run())
    while relay._stats.failures < count and not running.done():
        await asyncio.sleep(0.001)
    return running


async def publishes_and_ends(relay, running, store, sink):
    await append(store, placed())
    while not sink.ids and not running.done():
        await asyncio.sleep(0.001)
    relay.stop()
    await running
    assert len(sink.ids) == 1


async def test_on_sqlite_a_database_that_is_locked_does_not_end_a_running_relay(
    sqlite_url, open_stores, sink
):
    store = await open_stores(sqlite_url, outbox_enabled=True, busy_timeout=10)
    relay = relay_of(store, sink, poll_seconds=0.01)
    with closing(sqlite3.connect(make_url(sqlite_url).database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        running = await fails(relay, 2)
        other.execute("ROLLBACK")
    await publishes_and_ends(relay, running, store, sink)


async def test_on_postgresql_a_server_that_cuts_connections_does_not_end_a_running_relay(
    postgres_url, open_stores, sink
):
    store = await open_stores(postgres_url, outbox_enabled=True)
    relay = relay_of(store, sink, poll_seconds=0.001)
    admin = await asyncpg.connect(**dsn(make_url(postgres_url)))

    async def cut():
        while relay._stats.failures < 2:
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.001)

    cutting = asyncio.create_task(cut())
    running = await fails(relay, 2)
    await cutting
    await admin.close()
    await publishes_and_ends(relay, running, store, sink)


async def test_a_row_whose_event_was_deleted_is_given_up_at_once(shared_database_url, open_stores, sink):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    events = several(2)
    await append(store, *events)
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql("DELETE FROM events WHERE version = 1")
    relay = relay_of(store, sink)
    await relay.drain()
    assert sink.ids == [events[1].event_id]
    assert await stats_of(store) == (0, 1, 1)
    assert (await relay.health()).last_error == "LookupError: the event was deleted from the log"
