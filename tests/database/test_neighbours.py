"""A transaction that awaits work made outside of it: both would wait for ever, and the work ends with an error."""

from __future__ import annotations

import asyncio
from contextvars import Context
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed

from esource import CheckpointRepository, PostgreSQLEventStore
from esource.database import neighbours
from esource.database.database import Database
from esource.dialect.sqlite.backend import SQLiteBackend
from esource.errors import DatabaseBusyError

EVENT = uuid4()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(neighbours, "STANDSTILL_SECONDS", 0.05)


@pytest.fixture
def limits(database_url):
    return {"busy_timeout": 50} if database_url.startswith("sqlite") else {}


async def append_one(to, **options):
    event = placed()
    return await to.append_events(event.aggregate_id, "Order", [event], **options)


async def save(checkpoints):
    await checkpoints.save_position("totals", 1, EVENT, "OrderPlaced")


async def save_checkpoint(store):
    await save(CheckpointRepository(store))


async def append_in_another_transaction(store):
    async with store.transaction() as transaction:
        await append_one(transaction)


def outside(work):
    """Work in a task that does not know of the transaction: one that serves a queue is like that."""
    return Context().run(asyncio.get_running_loop().create_task, work)


@pytest.mark.parametrize("work", [append_one, save_checkpoint, append_in_another_transaction])
async def test_work_that_waits_for_the_transaction_that_awaits_it_ends_with_an_error(
    database_url, open_stores, limits, work
):
    store = await open_stores(database_url, **limits)
    async with store.transaction() as transaction:
        await append_one(transaction)
        await save(transaction.checkpoints)
        with pytest.raises(DatabaseBusyError, match="a transaction of this program"):
            await outside(work(store))
        await append_one(transaction)
    assert await store.get_global_position() == 2
    await work(store)


async def test_a_task_that_is_started_inside_the_transaction_belongs_to_it(database_url, open_stores, limits):
    store = await open_stores(database_url, **limits)
    async with store.transaction() as transaction:
        await append_one(transaction)
        await asyncio.gather(append_one(store), asyncio.create_task(append_one(store)))
    assert await store.get_global_position() == 3


async def test_an_append_through_another_store_of_the_same_database_ends_with_an_error(
    shared_database_url, open_stores
):
    limits = {"busy_timeout": 50} if shared_database_url.startswith("sqlite") else {}
    store, other = [await open_stores(shared_database_url, **limits) for _ in range(2)]
    async with store.transaction() as transaction:
        await append_one(transaction)
        with pytest.raises(DatabaseBusyError):
            await append_one(other)
        await append_one(transaction)
    assert await store.get_global_position() == 2
    assert (await append_one(other)).success


async def test_an_append_that_forgets_the_transaction_of_the_application_ends_with_an_error(
    shared_database_url, open_stores
):
    limits = {"busy_timeout": 50} if shared_database_url.startswith("sqlite") else {}
    store = await open_stores(shared_database_url, **limits)
    async with store._opened.database.connections.engine.connect() as connection:
        await append_one(store, connection=connection)
        with pytest.raises(DatabaseBusyError):
            await append_one(store)
        await append_one(store, connection=connection)
        await connection.commit()
    assert await store.get_global_position() == 2
    assert (await append_one(store)).success


async def test_a_wait_for_a_transaction_that_goes_on_has_no_limit(postgres_url, open_stores, monkeypatch):
    """On SQLite it has: a writer waits for ``busy_timeout``."""
    monkeypatch.setattr(
        neighbours, "STANDSTILL_SECONDS", 1.0
    )  # a busy machine is slow between two statements
    store = await open_stores(postgres_url)
    async with store.transaction() as transaction:
        await append_one(transaction)
        waiting = outside(append_one(store))
        for _ in range(15):
            await transaction.connection.exec_driver_sql("SELECT pg_sleep(0.1)")
        assert not waiting.done()
    assert (await waiting).success


async def test_a_wait_for_another_program_has_the_servers_limit_only(postgres_url, open_stores, monkeypatch):
    store = await open_stores(postgres_url)
    monkeypatch.setattr(neighbours, "_of_databases", {})
    foreign = await open_stores(postgres_url)
    async with foreign.transaction() as transaction:
        await append_one(transaction)
        waiting = outside(append_one(store))
        async with store.transaction():  # a neighbour that holds nothing
            await transaction.connection.exec_driver_sql("SELECT pg_sleep(0.2)")
            assert not waiting.done()
    assert (await waiting).success


async def test_work_that_waits_for_the_only_connection_of_a_pool_ends_with_an_error(postgres_url):
    url = make_url(postgres_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with PostgreSQLEventStore(engine, enable_tracing=False) as store:
        async with store.transaction() as transaction:
            await append_one(transaction)
            with pytest.raises(DatabaseBusyError, match="a transaction of this program"):
                await outside(append_one(store))
        assert (await append_one(store)).global_position == 2
    await engine.dispose()


async def test_on_an_engine_of_the_application_such_work_ends_as_well(shared_database_url, monkeypatch):
    monkeypatch.setitem(SQLiteBackend.default_options, "busy_timeout", 50)
    url = make_url(shared_database_url)
    driver = "aiosqlite" if url.drivername == "sqlite" else "asyncpg"
    engine = create_async_engine(url.set(drivername=f"{url.drivername}+{driver}"))
    database = Database.from_engine(engine)
    checkpoint = CheckpointRepository(database)
    async with database.transaction():
        await save(checkpoint)
        with pytest.raises(DatabaseBusyError):
            await outside(save(checkpoint))
    await save(checkpoint)
    await database.close()
    await engine.dispose()
