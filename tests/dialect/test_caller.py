"""SQLite in the thread of its caller: nothing waits but for the disk, for another writer's lock in the loop, and for a turn of the others."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from sqlalchemy import select
from support.orders import placed
from support.schemas import sqlite_path

from esource import EventStore, InMemoryEventStore, SQLiteEventStore
from esource.errors import DatabaseBusyError, InvalidOptionError
from esource.tables.model import events


@pytest.fixture(params=["file", "memory"])
async def caller(request, sqlite_url, open_stores) -> EventStore:
    return await open_stores(sqlite_url if request.param == "file" else "sqlite://", execution="caller")


def step(coroutine):
    """What a coroutine returns that is never suspended."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


async def test_a_read_never_waits(caller: EventStore):
    order_id = uuid4()
    threads = threading.active_count()
    async with caller.transaction() as tx:
        await tx.append_events(order_id, "Order", [placed(order_id)])
        await asyncio.sleep(0)  # the loop has just had its turn
        assert step(caller.get_stream_version(order_id, "Order")) == 1
    assert await caller.get_stream_version(order_id, "Order") == 1
    await asyncio.sleep(0)
    assert step(caller.get_events(order_id, "Order")).version == 1
    assert threading.active_count() == threads


async def test_tasks_share_transactions(caller: EventStore):
    commits = []
    writers = caller._opened.database.connections.writers
    run = writers.run

    async def counted(work):
        commits.append(work)
        return await run(work)

    writers.run = counted
    ids = [uuid4() for _ in range(32)]
    await asyncio.gather(*(caller.append_events(id_, "Order", [placed(id_)]) for id_ in ids))
    assert len(commits) <= 3
    assert await caller.get_global_position() == 32


async def appends(store: EventStore) -> None:
    while True:
        id_ = uuid4()
        await store.append_events(id_, "Order", [placed(id_)])


async def appends_in_a_transaction(store: EventStore) -> None:
    async with store.transaction() as tx:
        while True:
            id_ = uuid4()
            await tx.append_events(id_, "Order", [placed(id_)])


async def reads(store: EventStore) -> None:
    while True:
        await store.get_events(uuid4(), "Order")


async def queries(store: EventStore) -> None:
    async with store.reading() as connection:
        while True:
            await connection.execute(select(events.c.event_id))


@pytest.mark.parametrize("work", [appends, appends_in_a_transaction, reads, queries])
async def test_a_task_that_works_on_and_on_leaves_turns_to_the_others(caller: EventStore, work):
    working = asyncio.create_task(work(caller))
    for _ in range(3):
        await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    id_ = uuid4()
    assert (await caller.append_events(id_, "Order", [placed(id_)])).new_version == 1
    assert await caller.get_global_position() == len([event async for event in caller.read_all()])


async def test_the_loop_goes_on_while_another_writer_has_the_file(sqlite_url: str, open_stores):
    caller = await open_stores(sqlite_url, execution="caller")
    other = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    id_ = uuid4()
    appending = asyncio.create_task(caller.append_events(id_, "Order", [placed(id_)]))
    await asyncio.sleep(0.01)
    assert not appending.done()
    other.execute("COMMIT")
    other.close()
    assert (await appending).new_version == 1


async def test_a_lock_is_waited_for_as_long_as_the_busy_timeout(sqlite_url: str, open_stores):
    store = await open_stores(sqlite_url, execution="caller", busy_timeout=20)
    other = sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    id_ = uuid4()
    with pytest.raises(DatabaseBusyError):
        await store.append_events(id_, "Order", [placed(id_)])
    other.close()
    assert (await store.append_events(id_, "Order", [placed(id_)])).new_version == 1


async def test_in_memory_there_is_never_a_thread():
    threads = threading.active_count()
    async with InMemoryEventStore(execution="thread") as store, SQLiteEventStore(":memory:") as other:
        await other.initialize()
        for opened in (store, other):
            id_ = uuid4()
            await opened.append_events(id_, "Order", [placed(id_)])
            assert await opened.get_stream_version(id_, "Order") == 1
        assert threading.active_count() == threads


async def test_stores_in_memory_begin_empty_and_know_nothing_of_each_other():
    for _ in range(2):
        async with InMemoryEventStore() as store, InMemoryEventStore() as other:
            id_ = uuid4()
            assert (await store.append_events(id_, "Order", [placed(id_)])).global_position == 1
            assert await other.get_global_position() == 0


def test_threads_that_make_stores_in_memory_at_once_do_not_meet():
    def use(number: int) -> int:
        async def count() -> int:
            async with InMemoryEventStore() as store:
                for _ in range(number):
                    id_ = uuid4()
                    await store.append_events(id_, "Order", [placed(id_)])
                return await store.get_global_position()

        return asyncio.run(count())

    numbers = [*range(1, 9)] * 4
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, numbers)) == numbers


def test_another_execution_is_refused():
    with pytest.raises(InvalidOptionError, match="'thread' or 'caller'"):
        SQLiteEventStore("events.db", execution="process")
