"""Behind a real PgBouncer in transaction mode, with a few server connections for everybody. nox's session `pgbouncer`
runs these, and the tests of the store and of projections, with every PostgreSQL store behind it."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.clusters import SERVER_CONNECTIONS
from support.orders import placed
from support.schemas import execute, rows

from esource import PostgreSQLEventStore, open_store
from esource.dialect.postgresql.backend import POOLED_CONNECT_ARGS
from esource.errors import DatabaseError, EventSourceError, InvalidOptionError


@pytest.fixture
def pooled_url(pooler, postgres_url):
    return pooler.set(database=make_url(postgres_url).database).render_as_string(hide_password=False)


pytestmark = pytest.mark.usefixtures("pooler")  # left out of runs that have none


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


async def test_more_clients_than_server_connections_append_read_and_follow(postgres_url, open_stores):
    stores = [await open_stores(postgres_url, outbox_enabled=True) for _ in range(4)]
    seen = []

    async def follow():
        async with stores[0].subscribe(0, poll_seconds=0.02) as subscription:
            async for stored in subscription:
                seen.append(stored.global_position)
                if len(seen) == 200:
                    return

    async def work(store):
        for _ in range(10):
            result = await append_one(store)
            assert await store.get_global_position() >= result.global_position

    await asyncio.gather(follow(), *(work(store) for store in stores for _ in range(5)))
    assert seen == sorted(seen)
    assert await rows(postgres_url, "SELECT count(*) FROM event_outbox") == [(200,)]
    in_use = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert (await rows(postgres_url, in_use))[0][0] <= SERVER_CONNECTIONS
    idle = f"{in_use} AND state LIKE 'idle in%'"
    assert await rows(postgres_url, idle) == [(0,)]


async def test_without_the_setting_the_error_names_it(pooled_url):
    async with (
        open_store(pooled_url, enable_tracing=False) as one,
        open_store(pooled_url, enable_tracing=False) as other,
    ):

        async def work(store):
            for _ in range(50):
                await asyncio.gather(*(append_one(store) for _ in range(4)), store.get_global_position())

        with pytest.raises(DatabaseError, match="transaction_pooling=True"):
            await asyncio.gather(work(one), work(other))


async def test_a_cancelled_append_leaves_no_connection_inside_a_transaction(
    postgres_url, pooled_url, open_stores
):
    store = await open_stores(postgres_url)
    for turn in range(40):
        task = asyncio.create_task(append_one(store))
        for _ in range(turn % 8):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await append_one(store)
    [(events,)] = await rows(postgres_url, "SELECT count(*) FROM events")
    assert 40 <= events <= 80


async def test_an_engine_of_the_applications_own_works_with_these_arguments(pooled_url):
    engine = create_async_engine(
        pooled_url.replace("postgresql:", "postgresql+asyncpg:"), connect_args=POOLED_CONNECT_ARGS
    )
    async with PostgreSQLEventStore(engine, transaction_pooling=True, enable_tracing=False) as store:

        async def work():
            async with store.transaction() as transaction:
                await append_one(store)
                found = await transaction.connection.execute(
                    text("SELECT count(*) FROM events WHERE version = :v"), {"v": 1}
                )
                assert found.scalar_one() > 0

        await asyncio.gather(*(work() for _ in range(10)))
        assert await store.get_global_position() >= 10
    await engine.dispose()


async def test_a_schema_that_the_pooler_keeps_from_the_server_is_told_and_one_of_the_role_works(
    pooled_url, postgres_url, open_stores
):
    with pytest.raises(InvalidOptionError, match="ALTER ROLE"):
        PostgreSQLEventStore(pooled_url, schema="red", transaction_pooling=True)
    store = PostgreSQLEventStore(pooled_url, schema="red")
    with pytest.raises(EventSourceError, match="search_path"):
        await store.open()
    await store.close()
    database = make_url(postgres_url).database
    await execute(
        postgres_url,
        "CREATE SCHEMA red",
        f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET search_path = red",
    )
    try:
        by_role = await open_stores(postgres_url)
        await by_role.initialize()
        assert (await append_one(by_role)).global_position == 1
        async with by_role.transaction() as transaction:
            await transaction.connection.exec_driver_sql("SET LOCAL search_path = public")
        assert (await append_one(by_role)).global_position == 2
        assert await rows(postgres_url, "SELECT count(*) FROM red.events") == [(2,)]
        assert await rows(postgres_url, "SELECT count(*) FROM public.events") == [(0,)]
    finally:
        await execute(postgres_url, f"ALTER ROLE CURRENT_USER IN DATABASE {database} RESET search_path")
