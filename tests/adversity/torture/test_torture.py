"""The promises of the log under load: nothing lost, skipped, duplicated, reordered or half written.

Real processes, real servers, real kills; each test is bounded to well under a minute.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from support.effort import examples, seed
from support.tally import Tally, chance
from support.without_async import program

from adversity.torture.log import check_log, whole_log
from adversity.torture.writer import Written, batch
from esource import EventStore, ReadOptions, StoredEvent

StoreFactory = Callable[..., Awaitable[EventStore]]
WRITER = Path(__file__).with_name("writer.py")


def start_writer(url: str, *options: str, tasks: int, enough: int, seed: int) -> subprocess.Popen[str]:
    command = [*program(WRITER), url, str(tasks), str(enough), str(seed), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def acknowledged(process: subprocess.Popen[str]) -> dict[UUID, int]:
    """What a writer said was stored, read to the end of its life: batch ids with their sizes."""
    assert process.stdout is not None
    text = await asyncio.to_thread(process.stdout.read)
    await asyncio.to_thread(process.wait)
    process.stdout.close()
    lines = text.splitlines(keepends=True)
    return {UUID(line.split()[0]): int(line.split()[1]) for line in lines if line.endswith("\n")}


async def follow(store: EventStore, done: asyncio.Event) -> list[StoredEvent]:
    """A checkpointing reader: never looks back behind the greatest position it has seen."""
    seen: list[StoredEvent] = []
    while True:
        was_done = done.is_set()
        position = seen[-1].global_position if seen else 0
        fresh = [event async for event in store.read_all(ReadOptions(from_position=position))]
        seen += fresh
        if was_done and not fresh:
            return seen
        await asyncio.sleep(0)


def tally_of(store: EventStore, fault: str) -> Tally:
    return Tally(fault, store._opened.database.backend.name)


@pytest.mark.slow
async def test_a_tailing_reader_sees_every_event_of_sixteen_writers_once_and_in_order(
    shared_store: EventStore, shared_database_url: str
):
    writers = [
        start_writer(shared_database_url, tasks=8, enough=examples(4_000), seed=2 * seed() + number)
        for number in range(2)
    ]
    done = asyncio.Event()
    reader = asyncio.create_task(follow(shared_store, done))
    said = await asyncio.gather(*(acknowledged(writer) for writer in writers))
    done.set()
    seen = await reader
    assert [writer.returncode for writer in writers] == [0, 0]

    log = await whole_log(shared_store)
    assert len(log) >= examples(8_000)
    tally = tally_of(shared_store, "sixteen writers at once, 5 % rolled back")
    tally.injected = 16
    assert [event.global_position for event in seen] == [event.global_position for event in log]
    batches = check_log(log)
    claimed = {batch_id: size for writer in said for batch_id, size in writer.items()}
    assert claimed == dict(batches)
    tally.judge(claimed, list(batches))
    tally.judge_follower([event.event_id for event in log], [event.event_id for event in seen])
    tally.written = len(log)
    tally.conclude()


@pytest.mark.slow
async def test_a_writer_that_is_killed_every_second_loses_nothing_and_leaves_no_half_batch(
    shared_store: EventStore, shared_database_url: str
):
    done = asyncio.Event()
    reader = asyncio.create_task(follow(shared_store, done))
    survivor = start_writer(shared_database_url, tasks=4, enough=4_000, seed=1000 * seed())
    tally = tally_of(shared_store, "SIGKILL of a writer process")
    claimed: dict[UUID, int] = {}
    for number in range(1, examples(3) + 1):
        victim = start_writer(shared_database_url, tasks=8, enough=10**9, seed=1000 * seed() + number)
        said = asyncio.create_task(acknowledged(victim))
        assert victim.stdout is not None
        await asyncio.sleep(1.5)  # start-up included: the rhythm of the kills, not a wait for something
        victim.kill()
        tally.injected += 1
        claimed |= await said
    claimed |= await acknowledged(survivor)
    done.set()
    seen = await reader
    assert survivor.returncode == 0
    log = await whole_log(shared_store)
    # A server may still have finished the last victim's statement when the reader had left: behind all it saw.
    assert [event.global_position for event in seen] == [event.global_position for event in log][: len(seen)]
    assert claimed.keys() <= {event.event.batch_id for event in seen}
    batches = check_log(log)
    assert len(claimed) > 100
    missing = {batch_id: size for batch_id, size in claimed.items() if batches[batch_id] != size}
    assert not missing, "acknowledged appends are gone"
    tally.judge_follower([event.event_id for event in log][: len(seen)], [event.event_id for event in seen])
    tally.written = sum(claimed.values())
    tally.conclude()


@pytest.mark.slow
async def test_positions_of_a_row_have_no_hole_whatever_is_rolled_back_or_killed(
    postgres_url: str, open_stores: StoreFactory
):
    store = await open_stores(postgres_url, append_lock="row")
    start = partial(start_writer, postgres_url, "append_lock=row")
    done = asyncio.Event()
    reader = asyncio.create_task(follow(store, done))
    survivors = [start(tasks=8, enough=examples(2_000), seed=3000 * seed() + number) for number in range(2)]
    tally = tally_of(store, "SIGKILL of a writer that draws positions from a row")
    claimed: dict[UUID, int] = {}
    for number in range(examples(3)):
        victim = start(tasks=8, enough=10**9, seed=3000 * seed() + 10 + number)
        assert victim.stdout is not None
        line = await asyncio.to_thread(victim.stdout.readline)  # it is at work
        victim.kill()
        tally.injected += 1
        claimed |= {UUID(line.split()[0]): int(line.split()[1])} | await acknowledged(victim)
    for survivor in survivors:
        claimed |= await acknowledged(survivor)
    async with (
        store.transaction() as transaction
    ):  # behind whatever the server still does for the last victim
        await transaction.append_events(UUID(int=77), "Torture", batch_of(UUID(int=77)))
    done.set()
    seen = await reader
    assert [survivor.returncode for survivor in survivors] == [0, 0]
    log = await whole_log(store)
    assert [event.global_position for event in log] == list(range(1, len(log) + 1))
    assert [event.event_id for event in seen] == [event.event_id for event in log]
    batches = check_log(log)
    assert {batch_id: batches[batch_id] for batch_id in claimed} == claimed
    tally.judge(claimed, list(batches))
    tally.judge_follower([event.event_id for event in log], [event.event_id for event in seen])
    tally.written = len(log)
    tally.conclude()


@pytest.mark.slow
@pytest.mark.awaited
async def test_two_hundred_cancellations_leave_no_half_batch_and_no_acknowledged_loss(
    shared_store: EventStore,
):
    draw = chance("cancellations")
    acked: set[UUID] = set()
    gave_up: set[UUID] = set()

    async def append(events: list[Written]) -> None:
        try:
            await shared_store.append_events(events[0].aggregate_id, "Torture", events)
        except asyncio.CancelledError:
            gave_up.add(events[0].batch_id)
            raise
        acked.add(events[0].batch_id)

    cancelled = rounds = 0
    while cancelled < examples(200) or rounds < 100:
        rounds += 1
        assert rounds < examples(1000), "hardly anything can be cancelled"
        tasks = [asyncio.create_task(append(batch(draw))) for _ in range(20)]
        for task in draw.sample(tasks, 4):
            for _ in range(draw.randint(0, 6)):
                await asyncio.sleep(0)
            cancelled += task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    log = await whole_log(shared_store)
    batches = check_log(log)
    assert acked <= set(batches)
    assert set(batches) <= acked | gave_up
    assert gave_up
    result = await shared_store.append_events(UUID(int=77), "Torture", batch_of(UUID(int=77)))
    assert result.new_version == 1
    tally = tally_of(shared_store, "append cancelled at random")
    tally.injected = cancelled
    tally.judge(acked, list(batches))
    tally.written = sum(batches[batch_id] for batch_id in acked)
    tally.conclude()


def batch_of(stream: UUID) -> list[Written]:
    return [Written(aggregate_id=stream, batch_id=UUID(int=1), batch_size=1)]
