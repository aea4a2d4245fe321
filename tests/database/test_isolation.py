"""Transactions are what they promise, whatever isolation level the application has as its default."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from support.orders import placed, several

from esource import CheckpointRepository, EventStore
from esource.database.database import Database
from esource.errors import EventSourceError, InvalidOptionError
from esource.testing.server import dsn


def engine_on(url: str, **options: Any) -> AsyncEngine:
    driver = "postgresql+asyncpg" if url.startswith("postgresql") else "sqlite+aiosqlite"
    return create_async_engine(f"{driver}:{url.partition(':')[2]}", **options)


async def test_a_rolled_back_transaction_leaves_nothing_on_an_engine_in_autocommit(shared_database_url: str):
    engine = engine_on(shared_database_url, isolation_level="AUTOCOMMIT")
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        event = placed()
        with pytest.raises(LookupError):
            async with store.transaction() as tx:
                await tx.append_events(event.aggregate_id, "Order", [event], 0)
                raise LookupError
        assert await store.get_stream_version(event.aggregate_id, "Order") == 0
        async with store.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
        assert await store.get_stream_version(event.aggregate_id, "Order") == 1
    await engine.dispose()


async def test_an_append_does_not_join_a_connection_in_autocommit(postgres_url: str):
    engine = engine_on(postgres_url, isolation_level="AUTOCOMMIT")
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        event = placed()
        async with engine.begin() as connection:
            with pytest.raises(InvalidOptionError, match="AUTOCOMMIT"):
                await store.append_events(event.aggregate_id, "Order", [event], 0, connection=connection)
        assert await store.get_stream_version(event.aggregate_id, "Order") == 0
    await engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("of", ["engine", "database"])
async def test_contended_appends_all_succeed_under_a_stricter_default(postgres_url: str, of: str, level: str):
    if of == "database":
        connection = await asyncpg.connect(**dsn(make_url(postgres_url)))
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = '{level}'")
        await connection.close()
    options = {"isolation_level": level} if of == "engine" else {}
    engines = [engine_on(postgres_url, **options) for _ in range(3)]
    stores = [EventStore(Database.from_engine(engine), enable_tracing=False) for engine in engines]
    stream = placed().aggregate_id

    async def write(store: EventStore) -> None:
        for _ in range(15):
            await store.append_events(stream, "Order", [placed(stream)])
            async with store.transaction() as tx:
                await tx.append_events(stream, "Order", [placed(stream)])

    await asyncio.gather(*(write(store) for store in stores for _ in range(2)))
    assert await stores[0].get_stream_version(stream, "Order") == 180
    for store, engine in zip(stores, engines, strict=True):
        await store.close()
        await engine.dispose()


async def test_checkpoints_that_contend_are_all_saved_under_a_stricter_default(postgres_url: str):
    engine = engine_on(postgres_url, isolation_level="REPEATABLE READ")
    connection = await asyncpg.connect(**dsn(make_url(postgres_url)))
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(
        f"ALTER DATABASE {database} SET default_transaction_isolation = 'repeatable read'"
    )
    await connection.close()
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        checkpoints = CheckpointRepository(store)
        event = placed()
        await asyncio.gather(
            *(
                checkpoints.save_position("p", position, event.event_id, "OrderPlaced")
                for position in range(1, 200)
            )
        )
        assert await checkpoints.get_position("p") == 199
    await engine.dispose()


async def test_a_commit_that_the_server_cancels_leaves_no_connection_inside_a_transaction(postgres_url: str):
    engine = engine_on(postgres_url, pool_size=2, max_overflow=0)
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        async with store.transaction() as tx:
            await tx.connection.exec_driver_sql("CREATE TABLE slow (id int)")
            await tx.connection.exec_driver_sql(
                "CREATE FUNCTION cancelled() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END'"
            )
            await tx.connection.exec_driver_sql(
                "CREATE CONSTRAINT TRIGGER cancelled AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION cancelled()"
            )
        for _ in range(4):
            event = placed()
            with pytest.raises(EventSourceError):
                async with store.transaction() as tx:
                    await tx.append_events(event.aggregate_id, "Order", [event], 0)
                    await tx.connection.exec_driver_sql("INSERT INTO slow VALUES (1)")
            assert await store.get_stream_version(event.aggregate_id, "Order") == 0
            events = several(2)
            async with store.transaction() as tx:
                await tx.append_events(events[0].aggregate_id, "Order", events, 0)
            assert await store.get_stream_version(events[0].aggregate_id, "Order") == 2
    await engine.dispose()


async def test_a_connection_that_lies_in_the_pool_inside_a_transaction_is_taken_out_of_it(postgres_url: str):
    engine = engine_on(postgres_url, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute("BEGIN")
        with pytest.raises(asyncpg.PostgresError):
            await driver.execute("SELECT * FROM there_is_no_such_table")
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        for _ in range(3):
            event = placed()
            await store.append_events(event.aggregate_id, "Order", [event], 0)
            async with store._opened.database.reading():
                assert await store.get_stream_version(event.aggregate_id, "Order") == 1
    await engine.dispose()


async def test_an_error_inside_a_snapshot_ends_only_the_snapshot(shared_store: EventStore):
    for _ in range(5):
        with pytest.raises((DBAPIError, LookupError)):
            async with shared_store._opened.database.reading():
                await shared_store.get_global_position()
                raise LookupError
    event = placed()
    await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
