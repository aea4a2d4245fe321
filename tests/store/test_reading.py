"""`EventStore.reading`: one moment of the database for queries, beside which everybody goes on writing."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from adversity.faults.stepping import cancelled_at
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from support.leaks import check_connections
from support.orders import placed

from esource import CheckpointRepository, EventStore, InMemoryEventStore, open_store
from esource.errors import DatabaseReadOnlyError, InvalidOptionError, StoreClosedError
from esource.tables.model import events

totals = Table("totals", MetaData(), Column("amount", Integer))
COUNT = select(func.count()).select_from(events)
WRITE = insert(totals).values(amount=9)


async def append(store: EventStore) -> None:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)


@pytest.fixture
async def with_totals(store: EventStore) -> EventStore:
    """A store with a read model of one row."""
    async with store.transaction() as transaction:
        await transaction.connection.run_sync(totals.create)
        await transaction.connection.execute(insert(totals).values(amount=1))
    return store


async def test_a_read_model_is_queried(with_totals: EventStore):
    async with with_totals.reading() as connection:
        assert await connection.scalar(select(totals.c.amount)) == 1
    check_connections(with_totals)


async def test_everybody_appends_while_a_reading_is_open_and_it_stays_at_its_moment(
    shared_store: EventStore, shared_database_url: str, open_stores
):
    # It would wait for a lock, and not for long.
    options = {"busy_timeout": 1} if shared_database_url.startswith("sqlite") else {}
    another = await open_stores(shared_database_url, **options)
    await append(shared_store)
    appended = asyncio.Event()

    async def report() -> tuple[list[int], int, int]:
        async with shared_store.reading() as connection:
            seen = [await connection.scalar(COUNT)]
            opened.set()
            await appended.wait()
            seen.append(await connection.scalar(COUNT))
            position = await shared_store.get_global_position()
            return seen, position, len([event async for event in shared_store.read_all()])

    opened = asyncio.Event()
    reporting = asyncio.create_task(report())
    await opened.wait()
    await append(shared_store)
    await append(another)
    async with another.transaction() as transaction:
        event = placed()
        await transaction.append_events(event.aggregate_id, "Order", [event], 0)
    appended.set()
    assert await reporting == ([1, 1], 1, 1)
    assert await shared_store.get_global_position() == 4


async def test_reading_needs_no_turn_of_a_transaction_that_is_open(shared_store: EventStore):
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with shared_store.transaction():
            await append(shared_store)
            entered.set()
            await go_on.wait()

    writing = asyncio.create_task(write())
    await entered.wait()
    async with shared_store.reading() as connection:
        assert await connection.scalar(COUNT) == 0
    go_on.set()
    await writing


async def test_many_readings_are_open_at_once(shared_store: EventStore):
    everybody = asyncio.Event()
    count = 0

    async def report() -> None:
        nonlocal count
        async with shared_store.reading() as connection:
            await connection.scalar(COUNT)
            count += 1
            if count == 5:
                everybody.set()
            await everybody.wait()

    await asyncio.gather(*(report() for _ in range(5)))
    check_connections(shared_store)


@pytest.mark.awaited
async def test_sql_that_writes_is_refused(with_totals: EventStore):
    for write in (
        lambda connection: connection.execute(WRITE),
        lambda connection: connection.exec_driver_sql("DELETE FROM totals"),
        lambda connection: connection.run_sync(lambda sync: sync.execute(WRITE)),
        lambda connection: connection.scalar(text("UPDATE totals SET amount = 2 RETURNING amount")),
        lambda connection: connection.run_sync(totals.drop),
    ):
        async with with_totals.reading() as connection:
            with pytest.raises(DatabaseReadOnlyError, match="nothing can be written inside a reading"):
                await write(connection)
    with pytest.raises(DatabaseReadOnlyError):
        async with with_totals.reading() as connection, AsyncSession(connection) as session:
            await session.execute(WRITE)
    async with with_totals.reading() as connection:
        assert (await connection.execute(select(totals.c.amount))).all() == [(1,)]


async def test_the_store_writes_nothing_inside(store: EventStore):
    event = placed()
    async with store.reading() as connection:
        for write in (
            lambda: store.append_events(event.aggregate_id, "Order", [event], 0),
            lambda: store.append_events(event.aggregate_id, "Order", [event], 0, connection=connection),
            lambda: store.close_stream(event.aggregate_id, "Order", -1),
            lambda: CheckpointRepository(store).reset_checkpoint("Totals"),
            lambda: store.transaction().__aenter__(),
        ):
            with pytest.raises(DatabaseReadOnlyError, match="Write after its block"):
                await write()
        assert await store.get_global_position() == 0
    await append(store)
    assert await store.get_global_position() == 1


async def test_every_connection_writes_again_afterwards(store: EventStore):
    for _ in range(3):
        async with store.reading() as connection:
            await connection.scalar(COUNT)
        await append(store)
        async with store.transaction() as transaction:
            event = placed()
            await transaction.append_events(event.aggregate_id, "Order", [event], 0)
    assert await store.get_global_position() == 6


@pytest.mark.awaited
async def test_a_cancelled_reading_gives_its_connection_back_at_every_step(store: EventStore):
    async def report() -> int | None:
        async with store.reading() as connection:
            await connection.scalar(COUNT)
            return await connection.scalar(COUNT)

    number, is_cancelled = 1, True
    while is_cancelled:
        is_cancelled, _ = await cancelled_at(number, report)
        await append(store)
        async with store.transaction():
            pass
        check_connections(store)
        number += 1
    assert number > 2


async def test_closing_the_store_ends_a_reading_with_a_clear_error(store: EventStore):
    store._opened.database.close_seconds = 0.05
    opened, closed = asyncio.Event(), asyncio.Event()

    async def report() -> None:
        async with store.reading() as connection:
            await connection.scalar(COUNT)
            opened.set()
            await closed.wait()
            await connection.scalar(COUNT)

    reporting = asyncio.create_task(report())
    await opened.wait()
    await store.close()
    closed.set()
    with pytest.raises(StoreClosedError, match="was closed"):
        await reporting
    with pytest.raises(StoreClosedError):
        async with store.reading():
            pass


async def test_closing_waits_for_a_reading_that_comes_to_its_end(store: EventStore):
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def report() -> int | None:
        async with store.reading() as connection:
            opened.set()
            await go_on.wait()
            return await connection.scalar(COUNT)

    reporting = asyncio.create_task(report())
    await opened.wait()
    closing = asyncio.create_task(store.close())
    while store.is_connected:
        await asyncio.sleep(0)
    go_on.set()
    assert await reporting == 0
    await closing


async def test_a_store_that_only_reads_has_readings(shared_database_url: str, open_stores):
    await append(await open_stores(shared_database_url))
    async with open_store(shared_database_url, read_only=True) as store:
        for _ in range(2):
            async with store.reading() as connection:
                assert await connection.scalar(COUNT) == 1
        with pytest.raises(DatabaseReadOnlyError):
            await append(store)


async def test_a_store_bound_to_a_tenant_has_readings(store: EventStore):
    tenant = uuid4()
    bound = store.for_tenant(tenant)
    await append(store)
    await append(bound)
    async with bound.reading() as connection:
        assert await connection.scalar(COUNT) == 2  # the application's own SQL
        assert [stored.event.tenant_id async for stored in bound.read_all()] == [tenant]
        with pytest.raises(DatabaseReadOnlyError):
            await append(bound)


async def test_inside_a_transaction_a_reading_shows_what_was_written_there(with_totals: EventStore):
    async with with_totals.transaction() as transaction:
        await transaction.connection.execute(WRITE)
        async with with_totals.reading() as connection:
            assert await connection.scalar(select(func.max(totals.c.amount))) == 9
        await append(with_totals)
    async with with_totals.reading() as outer, with_totals.reading() as inner:
        assert await inner.scalar(COUNT) == await outer.scalar(COUNT) == 1


async def test_the_connection_cannot_end_the_reading(store: EventStore):
    async with store.reading() as connection:
        for end in (connection.commit, connection.rollback, connection.close):
            with pytest.raises(InvalidOptionError, match="ends with its block"):
                await end()


async def test_an_error_inside_passes_unchanged(store: EventStore):
    with pytest.raises(LookupError):
        async with store.reading():
            raise LookupError
    check_connections(store)


async def test_in_memory_an_append_waits_for_the_end_of_a_reading():
    async with InMemoryEventStore(enable_tracing=False) as store:
        await store.initialize()
        opened, go_on = asyncio.Event(), asyncio.Event()

        async def report() -> int | None:
            async with store.reading() as connection:
                opened.set()
                await go_on.wait()
                return await connection.scalar(COUNT)

        reporting = asyncio.create_task(report())
        await opened.wait()
        appending = asyncio.create_task(append(store))
        await asyncio.sleep(0)
        go_on.set()
        assert await reporting == 0
        await appending
        assert await store.get_global_position() == 1
