"""The relay: at least once, each stream in order, no row by two of them, and what becomes of failures."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import sys
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed, several

from esource import EventStore, InvalidOptionError, OutboxRelay, OutboxRepository
from esource.testing.server import dsn

WORKER = Path(__file__).parents[1] / "support" / "relay_worker.py"


class Sink:
    """A publisher that remembers, and fails where it is told to."""

    def __init__(self):
        self.entries = []
        self.failing = {}
        """Event ids, and how often each still fails."""

    async def publish(self, entry):
        await asyncio.sleep(0)
        if self.failing.get(entry.event_id, 0) > 0:
            self.failing[entry.event_id] -= 1
            raise ConnectionError("the broker is away")
        self.entries.append(entry)

    @property
    def ids(self):
        return [entry.event_id for entry in self.entries]

    def by_stream(self):
        found = defaultdict(list)
        for entry in self.entries:
            found[entry.aggregate_id].append(entry.event_id)
        return found


@pytest.fixture
async def store(database_url, open_stores):
    return await open_stores(database_url, outbox_enabled=True)


@pytest.fixture
def sink():
    return Sink()


def relay_of(store, sink, **options):
    return OutboxRelay(store, sink, **{"retry_seconds": 0.001, "enable_metrics": False, **options})


async def append(store, *events):
    await store.append_events(events[0].aggregate_id, "Order", events)


async def stats_of(store):
    stats = await OutboxRepository(store).get_stats()
    return stats.pending_count, stats.published_count, stats.failed_count


# -- order and completeness ------------------------------------------------------------------------


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


# -- several relays --------------------------------------------------------------------------------


async def test_several_relays_publish_no_row_twice_and_keep_each_streams_order(
    shared_database_url, open_stores
):
    stores = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(4)]
    streams = [several(8) for _ in range(12)]
    for step in range(8):
        for stream in streams:
            await append(stores[0], stream[step])
    sink = Sink()
    relays = [relay_of(store, sink, batch_size=5) for store in stores]

    async def work(relay):
        while (await stats_of(stores[0]))[0]:
            if not await relay.run_once():
                await asyncio.sleep(0.001)

    await asyncio.gather(*(work(relay) for relay in relays))

    assert len(sink.ids) == len(set(sink.ids)) == 96
    assert sink.by_stream() == {s[0].aggregate_id: [e.event_id for e in s] for s in streams}


async def test_a_stream_that_one_relay_has_claimed_is_left_alone_by_the_others(
    shared_database_url, open_stores
):
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    events = several(4)
    await append(store, *events)
    slow = Gate()
    holder = relay_of(store, slow, batch_size=2)
    at_work = asyncio.create_task(holder.run_once())
    await slow.reached.wait()

    later, sink = placed(), Sink()
    await append(other, later)
    assert await relay_of(other, sink).drain() == 1
    assert sink.ids == [later.event_id]

    slow.opened.set()
    assert await at_work == 2
    await relay_of(other, sink).drain()
    assert [*slow.ids, *sink.ids] == [
        *(e.event_id for e in events[:2]),
        later.event_id,
        *(e.event_id for e in events[2:]),
    ]


class Gate(Sink):
    """A publisher that waits at its first message."""

    def __init__(self):
        super().__init__()
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def publish(self, entry):
        self.reached.set()
        await self.opened.wait()
        await super().publish(entry)


async def test_slow_publishing_keeps_its_claim(shared_database_url, open_stores):
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    await append(store, placed())
    slow, sink = Gate(), Sink()
    at_work = asyncio.create_task(relay_of(store, slow, lease_seconds=0.3).run_once())
    await slow.reached.wait()

    for _ in range(12):  # four times its lease
        await asyncio.sleep(0.1)
        assert await relay_of(other, sink).run_once() == 0

    slow.opened.set()
    await at_work
    assert (len(slow.ids), sink.ids) == (1, [])


async def test_a_cancelled_relay_lets_go_at_once_of_what_it_has_not_published(store, sink):
    events = several(3)
    await append(store, *events)
    slow = Gate()
    at_work = asyncio.create_task(relay_of(store, slow, lease_seconds=3600).run())
    await slow.reached.wait()
    at_work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await at_work

    assert await relay_of(store, sink).drain() == 3
    assert sink.ids == [event.event_id for event in events]


@pytest.mark.slow
async def test_what_a_killed_relay_had_claimed_is_published_by_the_next(shared_database_url, open_stores):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    streams = [several(10) for _ in range(10)]
    for stream in streams:
        await append(store, *stream)
    printed = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), shared_database_url, "0.5", stdout=asyncio.subprocess.PIPE
        )
        assert (await process.stdout.readline()) == b"ready\n"
        for _ in range(random.randint(1, 25)):
            printed.append(await process.stdout.readline())
        process.kill()
        printed += (await process.stdout.read()).splitlines()
        await process.wait()

    sink = Sink()
    relay = relay_of(store, sink)
    while (await stats_of(store))[0]:  # until the dead one's claims have run out
        if not await relay.run_once():
            await asyncio.sleep(0.02)

    published = [
        tuple(map(UUID, line.split())) for line in map(bytes.decode, printed) if len(line.split()) == 2
    ]
    published += [(entry.aggregate_id, entry.event_id) for entry in sink.entries]
    assert {event_id for _, event_id in published} == {event.event_id for s in streams for event in s}
    # Twice at most for each of the two that were killed: what was in flight.
    assert len(published) <= 100 + 2 * 20
    for stream in streams:
        firsts = dict.fromkeys(event_id for key, event_id in published if key == stream[0].aggregate_id)
        assert list(firsts) == [event.event_id for event in stream]


# -- failures --------------------------------------------------------------------------------------


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


# -- around it -------------------------------------------------------------------------------------


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


async def test_what_was_sent_before_a_failure_is_nobody_elses_to_send(shared_database_url, open_stores):
    """The rest of the batch is still being sent when the failed row's pause is over."""
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    poison, slow = several(3), placed()
    await append(store, *poison)
    await append(store, slow)
    reached, opened = asyncio.Event(), asyncio.Event()

    class Half(Sink):
        async def publish(self, entry):
            if entry.event_id == slow.event_id:
                reached.set()
                await opened.wait()
            await super().publish(entry)

    half, sink = Half(), Sink()
    half.failing[poison[1].event_id] = 1
    at_work = asyncio.create_task(relay_of(store, half).run_once())
    await reached.wait()
    while (await OutboxRepository(store).get_pending_events())[0].retry_count == 0:
        await asyncio.sleep(0.001)
    second = relay_of(other, sink)
    while len(sink.ids) < 2:
        await second.run_once()
        await asyncio.sleep(0.001)
    opened.set()
    await at_work
    assert sink.ids == [event.event_id for event in poison[1:]]
    assert set(half.ids) == {poison[0].event_id, slow.event_id}


async def test_a_requeued_row_does_not_let_later_ones_pass_those_that_are_claimed(
    shared_database_url, open_stores
):
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    given_up, claimed, later = events = several(3)
    await append(store, *events)
    gate = Gate()
    gate.failing[given_up.event_id] = 1
    gate.opened.set()
    await relay_of(store, gate, max_attempts=1, batch_size=1).run_once()
    gate.opened.clear()
    gate.reached.clear()
    at_work = asyncio.create_task(relay_of(store, gate, batch_size=1).run_once())
    await gate.reached.wait()
    await OutboxRepository(other).retry_failed()

    sink = Sink()
    await relay_of(other, sink).drain()
    assert sink.ids == [given_up.event_id]
    gate.opened.set()
    await at_work
    await relay_of(other, sink).drain()
    assert gate.ids == [claimed.event_id]
    assert sink.ids == [given_up.event_id, later.event_id]


async def test_one_relay_may_be_asked_for_several_batches_at_once(store, sink):
    streams = [several(2) for _ in range(10)]
    for stream in streams:
        await append(store, *stream)
    relay = relay_of(store, sink, batch_size=4)
    await asyncio.gather(*(relay.run_once() for _ in range(8)))
    await relay.drain()
    assert len(sink.ids) == len(set(sink.ids)) == 20
    assert sink.by_stream() == {s[0].aggregate_id: [e.event_id for e in s] for s in streams}


async def test_a_relay_that_was_paused_beyond_its_lease_sends_no_more(shared_database_url, open_stores):
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    events = several(3)
    await append(store, *events)

    class Sleepy(Sink):
        async def publish(self, entry):
            time.sleep(0.4)  # the whole process stands still
            await super().publish(entry)

    sleepy, sink = Sleepy(), Sink()
    await relay_of(store, sleepy, lease_seconds=0.2).run_once()
    assert sleepy.ids == [events[0].event_id]
    await relay_of(other, sink).drain()
    assert sink.ids == [event.event_id for event in events[1:]]


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
