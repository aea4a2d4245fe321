"""Closing comes to an end, whatever is under way, and gives every connection back."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from contextvars import Context
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from support.orders import placed

from esource import EventStore, open_store
from esource.database.database import Database
from esource.errors import EventSourceError, StoreClosedError


async def append(store: EventStore) -> None:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)


def engine_on(url: str, **options: Any) -> AsyncEngine:
    """An application's own engine."""
    driver = "postgresql+asyncpg" if url.startswith("postgresql") else "sqlite+aiosqlite"
    return create_async_engine(f"{driver}:{url.partition(':')[2]}", **options)


async def keeps_appending(store: EventStore, done: list[int]) -> None:
    with suppress(StoreClosedError):
        while True:
            await append(store)
            done.append(1)


async def test_closing_ends_while_tasks_go_on_appending(store: EventStore):
    done: list[int] = []
    tasks = [asyncio.create_task(keeps_appending(store, done)) for _ in range(5)]
    while len(done) < 20:
        await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    if not str(store).endswith(":memory:>"):
        before = len(done)
        await store.open()
        assert await store.get_global_position() == before


async def test_everything_that_was_accepted_is_written(shared_store: EventStore):
    store = shared_store
    appends = [asyncio.create_task(append(store)) for _ in range(300)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*appends)
    with pytest.raises(StoreClosedError):
        await append(store)
    await store.open()
    assert await store.get_global_position() == 300


async def test_what_is_under_way_is_waited_for(shared_store: EventStore):
    store = shared_store
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def transact() -> None:
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
            begun.set()
            await go_on.wait()
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)

    transaction = asyncio.create_task(transact())
    await begun.wait()
    closing = asyncio.create_task(store.close())
    while store.is_connected:
        await asyncio.sleep(0)
    with pytest.raises(StoreClosedError):
        await store.get_global_position()
    go_on.set()
    await closing
    await transaction
    await store.open()
    assert await store.get_global_position() == 2


async def test_a_transaction_that_does_not_end_is_rolled_back_and_says_so(shared_store: EventStore):
    store = shared_store
    store._opened.database.close_seconds = 0.05
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def transact() -> None:
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
            begun.set()
            await go_on.wait()

    transaction = asyncio.create_task(transact())
    await begun.wait()
    await store.close()
    await store.open()
    assert await store.get_global_position() == 0
    await append(store)
    go_on.set()
    with pytest.raises(StoreClosedError, match="nothing of it is stored"):
        await transaction
    assert len([stored async for stored in store.read_all()]) == 1


@pytest.mark.parametrize("under_way", ["reads", "transactions", "cancelled readers", "subscriptions"])
async def test_closed_stores_leave_nothing_checked_out_of_the_applications_pool(
    shared_database_url: str, under_way: str
):
    engine = engine_on(shared_database_url, pool_size=5, max_overflow=0, pool_timeout=20)
    try:
        for _ in range(6):
            store = EventStore(Database.from_engine(engine), enable_tracing=False)
            store._opened.database.close_seconds = 0.05
            await append(store)
            for _ in range(3):
                await store.append_events((event := placed()).aggregate_id, "Order", [event])
            tasks = [asyncio.create_task(busy(store, under_way)) for _ in range(3)]
            for _ in range(7):
                await asyncio.sleep(0)
            if under_way == "cancelled readers":
                for task in tasks:
                    task.cancel()
            await store.close()
            assert engine.pool.checkedout() == 0
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert engine.pool.checkedout() == 0
    finally:
        await engine.dispose()


async def busy(store: EventStore, how: str) -> None:
    with suppress(EventSourceError):
        while True:
            if how == "transactions":
                async with store.transaction():
                    await asyncio.sleep(60)
            elif how == "subscriptions":
                async with store.subscribe() as events:
                    async for _ in events:
                        pass
            else:
                async for _ in store.read_all():
                    await asyncio.sleep(0)


def threads() -> int:
    """All but those in which asyncio runs what would block."""
    return len([thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")])


async def test_closed_stores_leave_no_thread_behind(sqlite_url: str, open_stores):
    before = threads()
    for _ in range(5):
        store = open_store(sqlite_url, enable_tracing=False)
        store._opened.database.close_seconds = 0.05
        await append(store)
        tasks = [asyncio.create_task(busy(store, how)) for how in ("transactions", "reads", "subscriptions")]
        for _ in range(7):
            await asyncio.sleep(0)
        await store.close()
        while threads() > before:  # the last of them may be about to end
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_engine_that_is_disposed_of_gets_back_what_was_out(shared_database_url: str):
    engine = engine_on(shared_database_url, pool_size=5, max_overflow=0, pool_timeout=20)
    store = EventStore(Database.from_engine(engine), enable_tracing=False)
    for _ in range(4):
        await append(store)
        begun, go_on = asyncio.Event(), asyncio.Event()
        drivers: list[Any] = []

        async def transact(begun=begun, go_on=go_on, drivers=drivers) -> None:
            async with store.transaction() as tx:
                drivers.append((await tx.connection.get_raw_connection()).driver_connection)
                event = placed()
                await tx.append_events(event.aggregate_id, "Order", [event], 0)
                begun.set()
                await go_on.wait()

        transaction = asyncio.create_task(transact())
        await begun.wait()
        await engine.dispose()
        go_on.set()
        await transaction
        assert not store._opened.database.backend.is_alive(drivers[0])
    await store.close()
    await engine.dispose()


async def test_a_store_that_is_closed_twice_at_once_is_closed(store: EventStore):
    await append(store)
    await asyncio.gather(store.close(), store.close())
    assert not store.is_connected


async def test_a_close_that_is_cancelled_goes_to_its_end(shared_store: EventStore):
    await append(shared_store)
    closing = asyncio.create_task(shared_store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert not shared_store.is_connected


async def test_appends_that_could_not_be_written_before_the_limit_fail(sqlite_url: str, open_stores):
    store = await open_stores(sqlite_url)
    store._opened.database.close_seconds = 0.05
    with pytest.raises(StoreClosedError, match="nothing of it is stored"):
        async with store.transaction():
            appends = [Context().run(asyncio.create_task, append(store)) for _ in range(20)]
            await asyncio.sleep(0)
            await store.close()
            results = await asyncio.gather(*appends, return_exceptions=True)
            assert {type(result) for result in results} == {StoreClosedError}
    await store.open()
    assert await store.get_global_position() == 0
    await append(store)
