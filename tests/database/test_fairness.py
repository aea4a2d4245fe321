"""Whoever waits for a connection gets it in turn: no loop of others starves anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from statistics import median
from typing import Any

import pytest
from support.orders import placed

from esource import CheckpointRepository, EventStore, Lease
from esource.database.lanes import Lane, LanePool
from esource.errors import DatabaseBusyError

ROUNDS = 5


@asynccontextmanager
async def in_a_loop(works: list[Callable[[], Awaitable[Any]]]):
    """Tasks that do their work again and again until the block ends; how often each has done it."""
    done = [0] * len(works)
    ended = False

    async def again(number: int) -> None:
        while not ended:
            await works[number]()
            done[number] += 1

    tasks = [asyncio.create_task(again(number)) for number in range(len(works))]
    try:
        yield done
    finally:
        ended = True
        await asyncio.gather(*tasks)


async def append(store: EventStore) -> None:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)


async def transact(store: EventStore) -> None:
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql("SELECT 1")


async def save(store: EventStore, name: str) -> None:
    event = placed()
    await CheckpointRepository(store).update_checkpoint(name, event.event_id, "OrderPlaced")


async def renew(store: EventStore) -> None:
    async with Lease(store, "lease"):
        pass


OTHERS = {
    "read": lambda store: store.get_global_position(),
    "append": append,
    "transaction": transact,
    "checkpoint": lambda store: save(store, "other"),
    "lease": renew,
}


@pytest.mark.parametrize("greedy", ["readers", "checkpoints", "transactions", "appends"])
async def test_nobody_is_starved_by_tasks_that_go_round_in_a_loop(
    store: EventStore, greedy: str, monkeypatch: pytest.MonkeyPatch
):
    """Counted in what the others have done while a task waits, which a busy machine does not change."""
    for _ in range(3):
        await append(store)
    loops = {
        "readers": [store.get_global_position] * 20,
        "checkpoints": [lambda number=number: save(store, f"p-{number}") for number in range(20)],
        "transactions": [lambda: transact(store)] * 20,
        "appends": [lambda: append(store)] * 20,
    }[greedy]
    me, waits, wait = asyncio.current_task(), [0], LanePool._wait
    async with in_a_loop(loops) as done:

        async def counted(pool: LanePool) -> Lane | None:
            before = sum(done)
            try:
                return await wait(pool)
            finally:
                if asyncio.current_task() is me:
                    waits.append(sum(done) - before)

        monkeypatch.setattr(LanePool, "_wait", counted)
        for name, work in OTHERS.items():
            for _ in range(ROUNDS):
                before = sum(done)
                await work(store)
                if name == greedy[:-1] == "append":
                    # The group that is under way, and those of its own group who are told before it.
                    assert sum(done) - before <= 2 * len(loops)
                # Each of the others has at most one turn before: its next one comes behind.
                assert max(waits) <= len(loops), f"{name} waited for {max(waits)} turns of others"


async def test_the_slowest_of_fifty_tasks_waits_about_as_long_as_the_others(store: EventStore):
    """Counted in turns of the others until the task has its own, which a busy machine does not change.

    What one task does without a wait is one turn: in memory a task reads on until it gives way.
    """
    await append(store)
    await asyncio.gather(*(store.get_global_position() for _ in range(50)))  # opens what there is to open
    database = store._opened.database
    turns, last = 0, -1
    waits: list[list[int]] = [[] for _ in range(50)]

    async def read(number: int) -> None:
        for _ in range(20):
            before = turns

            async def look(driver: Any, before: int = before) -> None:
                nonlocal turns, last
                if last != number:
                    waits[number].append(turns - before)
                    turns += 1
                    last = number
                await database.backend.fetch(driver, "SELECT 1", ())

            await database.connections.readers.run(look)

    await asyncio.gather(*(read(number) for number in range(50)))
    longest = [max(mine) for mine in waits]
    # A task that gave way in memory comes behind each of the others; where all wait, all wait about as long.
    assert max(longest) <= max(3 * median(longest), len(waits)), sorted(longest)


@pytest.mark.slow
async def test_a_transaction_does_not_wait_for_a_long_queue_of_appends(store: EventStore):
    done = 0

    async def count() -> None:
        nonlocal done
        await append(store)
        done += 1

    appends = [asyncio.create_task(count()) for _ in range(5000)]
    await asyncio.sleep(0)
    await transact(store)
    before = done
    await asyncio.gather(*appends)
    assert before <= 3000, f"the transaction waited for {before} of 5000 appends"


async def test_a_transaction_that_keeps_the_connection_makes_others_wait_no_longer_than_the_busy_timeout(
    sqlite_url: str, open_stores
):
    store = await open_stores(sqlite_url, busy_timeout=50)
    for work in (append, transact, lambda store: save(store, "p")):
        async with store.transaction():
            other = Context().run(asyncio.create_task, work(store))
            with pytest.raises(DatabaseBusyError, match="busy_timeout"):
                await other
    await append(store)


async def test_a_task_that_is_cancelled_at_its_turn_hands_it_on(store: EventStore):
    await append(store)
    for _ in range(50):
        tasks = [asyncio.create_task(store.get_global_position()) for _ in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result == 1 for result in results[1::2])
