"""SQLite in the thread of its caller: nothing waits but for the disk, and for another writer's lock in the loop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from uuid import uuid4

import pytest
from support.orders import placed
from support.schemas import sqlite_path

from esource import EventStore, InMemoryEventStore, SQLiteEventStore
from esource.errors import DatabaseBusyError, InvalidOptionError


@pytest.fixture
async def caller(sqlite_url, open_stores) -> EventStore:
    return await open_stores(sqlite_url, execution="caller")


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
        assert step(caller.get_stream_version(order_id, "Order")) == 1
    assert await caller.get_stream_version(order_id, "Order") == 1
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


async def test_other_tasks_have_a_turn_while_one_appends_on_and_on(caller: EventStore):
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    while turns < 3:
        id_ = uuid4()
        await caller.append_events(id_, "Order", [placed(id_)])
    counting.cancel()


async def test_the_loop_goes_on_while_another_writer_has_the_file(sqlite_url: str, caller: EventStore):
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


async def test_in_memory_too():
    async with InMemoryEventStore(execution="caller") as store:
        id_ = uuid4()
        await store.append_events(id_, "Order", [placed(id_)])
        assert await store.event_exists((await store.get_events(id_, "Order")).events[0].event_id)


def test_another_execution_is_refused():
    with pytest.raises(InvalidOptionError, match="'thread' or 'caller'"):
        SQLiteEventStore("events.db", execution="process")
