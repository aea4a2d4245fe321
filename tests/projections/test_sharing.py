"""Several workers of one projection: one works, or each has its part; none applies an event twice."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.effort import examples
from support.orders import OrderPlaced, placed
from support.projection_worker import Totals, contents, stream
from support.read_models import Journal, Letters, append, catch_up, rows, running, until
from support.tally import Tally
from support.without_async import program

from esource import (
    CheckpointRepository,
    EventStore,
    InvalidOptionError,
    Lease,
    ProjectionContext,
    ProjectionRunner,
    handles,
    partition_of,
)
from esource.projections.checkpoints import states

WORKER = Path(__file__).parents[1] / "support" / "projection_worker.py"
KILLS = examples(5)
"""How often the worker is killed; the more, the longer."""


async def owners(store: EventStore) -> dict[str, str | None]:
    return {name: state.owner for name, state in (await states(store._opened.database)).items()}


# -- leases -----------------------------------------------------------------------------------------


async def test_a_lease_is_held_by_one_at_a_time(store: EventStore):
    one, other = Lease(store, "reader"), Lease(store, "reader")
    assert await one.acquire()
    assert not await other.acquire()
    assert await one.acquire()
    assert await one.renew()
    await other.release()  # not its own
    assert not await other.acquire()
    await one.release()
    assert await other.acquire()
    assert not await one.renew()
    assert not one.is_held


async def test_a_lease_that_ran_out_is_taken_over(store: EventStore):
    dead = Lease(store, "reader", seconds=0.01)
    await dead.acquire()
    async with Lease(store, "reader") as lease:
        assert lease.is_held
        assert not await dead.renew()
    assert await dead.acquire()


async def test_a_lease_is_renewed_while_its_block_runs(store: EventStore):
    other = Lease(store, "reader")
    async with Lease(store, "reader", seconds=0.2) as lease:
        await asyncio.sleep(0.6)  # thrice its length: there is nothing to wait for
        assert lease.is_held
        assert not await other.acquire()
    assert await other.acquire()


async def test_a_checkpoint_keeps_its_place_under_a_lease(store: EventStore):
    [position] = await append(store, "a")
    checkpoints = CheckpointRepository(store)
    async with Lease(store, "reader"):
        assert await checkpoints.get_position("reader") is None
        await checkpoints.save_position("reader", position, uuid4(), "OrderPlaced")
    assert await checkpoints.get_position("reader") == position


# -- one works, the others stand by -----------------------------------------------------------------


async def test_two_workers_at_once_apply_no_event_twice(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    workers = [ProjectionRunner(each, Journal(), lease_seconds=0.3) for each in stores]
    written = []
    async with running(*workers):
        for _ in range(50):
            written += await append(stores[0], *"ab")
            if random.random() < 0.1:
                await asyncio.sleep(0.05)

        async def is_done():
            return await CheckpointRepository(stores[0]).get_position("journal") == written[-1]

        await until(is_done)
    assert await rows(stores[0], Journal().table, "position") == written


async def test_a_standby_takes_over_when_the_worker_stops(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    first, second = Journal(), Journal()
    standby = ProjectionRunner(stores[1], second)
    worker = ProjectionRunner(stores[0], first)
    async with running(worker):
        await append(stores[0], "a")
        await until(lambda: first.calls == ["a"])
        task = asyncio.create_task(standby.run())
        await append(stores[0], "b")
        await until(lambda: first.calls == ["a", "b"])
    await append(stores[0], "c")
    await until(lambda: second.calls == ["c"])
    standby.stop()
    await task


async def test_a_paused_worker_outside_a_transaction_that_lost_its_lease_saves_nothing(
    shared_database_url, open_stores
):
    await pause_in_a_batch(shared_database_url, open_stores, Letters)


async def test_a_paused_transaction_that_lost_its_lease_changes_nothing_on_postgresql(
    postgres_url, open_stores
):
    """On SQLite the paused transaction has the only write lock: nobody can take over from it."""
    await pause_in_a_batch(postgres_url, open_stores, Journal)


async def pause_in_a_batch(url, open_stores, kind):
    """The lease runs out in the middle of a batch, another worker goes on, then the first wakes up."""
    stores = [await open_stores(url) for _ in range(2)]
    paused, go_on = asyncio.Event(), asyncio.Event()

    class Sleepy(kind):
        name = "sleepy"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            await super().placed(event, context)
            if event.customer_id == "b" and not paused.is_set():
                paused.set()
                await go_on.wait()

    positions = await append(stores[0], *"abc")
    first, second = Sleepy(), Sleepy()
    sleeper = ProjectionRunner(stores[0], first, lease_seconds=0.2)
    # As if its process stood still: nothing renews the lease.
    sleeper._shares.renewal_seconds = 600.0
    task = asyncio.create_task(sleeper.run())
    await paused.wait()
    await asyncio.wait_for(catch_up(stores[1], second, lease_seconds=600), 30)
    go_on.set()
    sleeper.stop()
    await task
    if kind is Journal:
        assert await rows(stores[0], second.table, "position") == positions
    else:
        assert second.sent == positions[1:]  # the first had saved one, and was at work on the next
    assert await CheckpointRepository(stores[0]).get_position("sleepy") == positions[-1]


async def test_a_run_to_the_end_waits_for_the_worker_that_is_at_it(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    await append(stores[0], *"abc")
    first, second = Letters(), Letters()
    await asyncio.gather(catch_up(stores[0], first), catch_up(stores[1], second))
    assert sorted(first.sent + second.sent) == [1, 2, 3]


# -- partitions -------------------------------------------------------------------------------------


async def test_one_worker_holds_all_partitions(store: EventStore):
    positions = await append(store, *"abcdefghijkl")
    journal = Journal()
    await catch_up(store, journal, partitions=4)
    assert sorted(await rows(store, journal.table, "position")) == positions
    names = {name for name in await owners(store) if name != "journal"}
    assert names == {f"journal[{number}/4]" for number in range(4)}
    for name in names:
        assert await CheckpointRepository(store).get_position(name) == positions[-1]


@pytest.mark.slow
async def test_workers_share_the_partitions_evenly_and_exclusively(shared_database_url, open_stores):
    store = await open_stores(shared_database_url)
    stores = [store, *[await open_stores(shared_database_url) for _ in range(2)]]
    workers = [ProjectionRunner(each, Journal(), partitions=8, lease_seconds=1.5) for each in stores]

    async def shares() -> list[int]:
        held = [owner for name, owner in (await owners(store)).items() if "[" in name]
        return sorted(held.count(worker.owner) for worker in workers)

    written: list[int] = []
    async with running(workers[0]):

        async def first_has_all():
            return await shares() == [0, 0, 8]

        await until(first_has_all)
        async with running(*workers[1:]):

            async def all_have_some():
                written.extend(await append(store, "a"))
                return await shares() == [2, 3, 3]

            await until(all_have_some)

        async def first_has_all_again():
            written.extend(await append(store, "b"))
            return await shares() == [0, 0, 8]

        await until(first_has_all_again)
    await catch_up(store, Journal(), partitions=8)
    assert sorted(await rows(store, Journal().table, "position")) == written


async def test_the_order_of_each_stream_is_kept(store: EventStore):
    streams = [uuid4() for _ in range(6)]
    expected = {each: [] for each in streams}
    for _ in range(10):
        for each in streams:
            expected[each] += await append(store, str(each), stream=each)
    journal = Journal()
    await catch_up(store, journal, partitions=3)
    found = await rows(store, journal.table, "customer", "position")
    assert {each: [p for customer, p in found if customer == str(each)] for each in streams} == expected
    assert {partition_of(each, 3) for each in streams} <= {0, 1, 2}


async def test_the_number_of_partitions_changes_only_by_a_rebuild(store: EventStore):
    positions = await append(store, *"abc")
    await catch_up(store, Journal(), partitions=2)
    for other in (1, 3):
        with pytest.raises(InvalidOptionError, match="rebuild"):
            await catch_up(store, Journal(), partitions=other)
    journal = Journal()
    await ProjectionRunner(store, journal, partitions=3).rebuild()
    assert sorted(await rows(store, journal.table, "position")) == positions
    await ProjectionRunner(store, journal).rebuild()
    assert await rows(store, journal.table, "position") == positions
    assert set(await owners(store)) == {"journal"}


# -- workers that are killed ------------------------------------------------------------------------


Start = Callable[[str, int, float], subprocess.Popen[str]]


@pytest.fixture
def start_worker() -> Iterator[Start]:
    """Starts worker processes: on a URL, with so many partitions, and leases so long. None outlives the
    test."""
    workers = []

    def start(url: str, partitions: int, lease_seconds: float) -> subprocess.Popen[str]:
        command = [*program(WORKER), url, str(partitions), str(lease_seconds)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return workers[-1]

    yield start
    for worker in workers:
        end(worker)


def end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    worker.stdout.close()


async def check_against_a_rebuild(store: EventStore) -> None:
    """The read model is what a rebuild from nothing gives, byte for byte."""

    class Fresh(Totals):
        name = "fresh"

    fresh = Fresh("fresh")
    await catch_up(store, fresh)
    async with store.transaction() as transaction:
        found = await contents(transaction.connection, Totals().table)
        expected = await contents(transaction.connection, fresh.table)
    assert found == expected


async def write_until(store: EventStore, done: asyncio.Event) -> int:
    count = 0
    while not done.is_set():
        events = [placed(stream(random.randrange(12)), total=random.random()) for _ in range(3)]
        for event in events:
            await store.append_events(event.aggregate_id, "Order", [event])
        count += len(events)
        await asyncio.sleep(0.01)
    return count


@pytest.mark.slow
async def test_a_worker_killed_at_any_moment_leaves_what_a_rebuild_gives(
    shared_store: EventStore, shared_database_url: str, start_worker: Start
):
    done = asyncio.Event()
    writing = asyncio.create_task(write_until(shared_store, done))
    checkpoints = CheckpointRepository(shared_store)
    tally = Tally("SIGKILL of a projection's worker", shared_store._opened.database.backend.name)
    position = 0

    async def has_moved():
        return (await checkpoints.get_position("totals") or 0) > position

    for _ in range(KILLS):
        worker = start_worker(shared_database_url, 1, 0.4)
        await until(has_moved)
        await asyncio.sleep(random.random() * 0.3)  # any moment
        end(worker)
        tally.injected += 1
        position = await checkpoints.get_position("totals") or 0
    done.set()
    tally.written = await writing
    assert tally.written > KILLS
    await catch_up(shared_store, Totals(), lease_seconds=0.4)
    await check_against_a_rebuild(shared_store)
    tally.conclude()


@pytest.mark.slow
async def test_partitions_of_a_killed_worker_are_taken_over(
    shared_store: EventStore, shared_database_url: str, start_worker: Start
):
    workers = [start_worker(shared_database_url, 4, 2.0) for _ in range(2)]
    names = [(await asyncio.to_thread(worker.stdout.readline)).strip() for worker in workers]

    async def holders():
        held = await owners(shared_store)
        return sorted(str(held.get(f"totals[{number}/4]")) for number in range(4))

    async def both_work():
        return await holders() == sorted(names * 2)

    async def second_has_all():
        return await holders() == [names[1]] * 4

    done = asyncio.Event()
    writing = asyncio.create_task(write_until(shared_store, done))
    await until(both_work)
    end(workers[0])
    await until(second_has_all)
    done.set()
    await writing
    end(workers[1])
    await catch_up(shared_store, Totals(), partitions=4)
    await check_against_a_rebuild(shared_store)
