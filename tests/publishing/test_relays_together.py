"""Several relays at once: no row by two of them, each stream in order, whoever is slow, cancelled or killed."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from uuid import UUID

import pytest
from support.orders import placed, several
from support.relays import Gate, Sink, append, relay_of, stats_of
from support.without_async import program

from esource import OutboxRepository

WORKER = Path(__file__).parents[1] / "support" / "relay_worker.py"


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
            *program(WORKER), shared_database_url, "0.5", stdout=asyncio.subprocess.PIPE
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


@pytest.mark.parametrize("with_the_relay", [False, True])
async def test_what_is_cancelled_before_its_first_step_is_let_go(store, sink, with_the_relay):
    await append(store, *several(5))
    loop = asyncio.get_running_loop()
    relay = relay_of(store, sink)
    draining = asyncio.create_task(relay.drain())
    cancelled = []

    def cancelling(loop, work, **options):
        task = asyncio.Task(work, loop=loop, **options)
        if getattr(work, "__qualname__", "") == "Batch.publish" and not cancelled:
            cancelled.append(task.cancel())
            if with_the_relay:
                draining.cancel()
        return task

    loop.set_task_factory(cancelling)
    try:
        if with_the_relay:
            with pytest.raises(asyncio.CancelledError):
                await draining
        else:
            assert await draining == 5
    finally:
        loop.set_task_factory(None)

    assert cancelled == [True]
    assert await relay_of(store, sink).drain() == (5 if with_the_relay else 0)
    assert len(sink.ids) == 5
