"""What a server may lack of PostgreSQL is switched off one by one; a plain PostgreSQL runs with all of it off, too."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed, several
from support.schemas import execute, rows

from esource import PostgreSQLEventStore, SQLiteEventStore, schema
from esource.errors import DatabaseError, InvalidOptionError, OptimisticLockError
from esource.testing.server import dsn

WITHOUT = {"append_lock": "row", "notify": False}


@pytest.fixture
async def bare(postgres_url, open_stores):
    """A store that uses neither advisory locks nor NOTIFY."""
    await schema.create_append_lock(postgres_url)
    await schema.create_append_lock(postgres_url)
    return await open_stores(postgres_url, outbox_enabled=True, **WITHOUT)


@pytest.fixture
async def admin(postgres_url):
    connection = await asyncpg.connect(**dsn(make_url(postgres_url)))
    yield connection
    await connection.close()


async def test_a_store_without_advisory_locks_and_notify_appends_reads_and_refuses_conflicts(bare, admin):
    order = placed().aggregate_id
    await bare.append_events(order, "Order", several(3, order), 0)
    with pytest.raises(OptimisticLockError):
        await bare.append_events(order, "Order", [placed(order)], 0)
    await asyncio.gather(
        *(bare.append_events((e := placed()).aggregate_id, "Order", [e], 0) for _ in range(40))
    )
    repeated = [placed(order), placed(order)]
    await bare.append_events(order, "Order", repeated, 3)
    assert (await bare.append_events(order, "Order", repeated, 3)).idempotent  # the way that locks first
    assert len([stored async for stored in bare.read_all()]) == 45
    assert await admin.fetchval("SELECT count(*) FROM event_outbox") == 45


async def test_the_lock_row_keeps_the_log_in_order(bare, admin, postgres_url, open_stores):
    other = await open_stores(postgres_url, **WITHOUT)
    first, second = placed(), placed()
    async with bare.transaction() as transaction:
        earlier = await transaction.append_events(first.aggregate_id, "Order", [first])
        assert not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        later = asyncio.create_task(other.append_events(second.aggregate_id, "Order", [second]))
        while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
        assert await admin.fetchval("SELECT max(global_position) FROM events") is None
        assert not later.done()
    assert (await later).global_position > earlier.global_position


async def test_a_subscription_without_notify_polls(bare, admin, postgres_url, open_stores):
    heard = []
    await admin.add_listener(
        await admin.fetchval("SELECT 'esource_' || 'events'::regclass::oid"), lambda *a: heard.append(a)
    )
    other = await open_stores(postgres_url, **WITHOUT)
    async with bare.subscribe(0, poll_seconds=0.02) as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        while not bare._opened.database.wake_up._waiters:
            await asyncio.sleep(0)
        event = placed()
        await other.append_events(event.aggregate_id, "Order", [event])
        assert (await waiting).event_id == event.event_id
    assert not bare._opened.database.wake_up.is_watching
    await admin.fetch("SELECT 1")
    assert heard == []


async def test_without_a_lock_row_the_error_says_how_to_make_it(postgres_url, open_stores):
    store = await open_stores(postgres_url, **WITHOUT)
    await execute(postgres_url, "DROP TABLE esource_append_lock")
    event = placed()

    async def attempts():
        with pytest.raises(DatabaseError, match="create_append_lock"):
            await store.append_events(event.aggregate_id, "Order", [event])
        with pytest.raises(DatabaseError, match="create_append_lock"):
            async with store.transaction():
                await store.append_events(event.aggregate_id, "Order", [event])

    await attempts()
    await schema.create_append_lock(postgres_url)
    await execute(postgres_url, "DELETE FROM esource_append_lock")
    await attempts()
    await execute(postgres_url, "DROP FUNCTION esource_lock_positions()")
    await attempts()
    assert await rows(postgres_url, "SELECT count(*) FROM events") == [(0,)]
    await schema.create_append_lock(postgres_url)
    await store.append_events(event.aggregate_id, "Order", [event])


async def test_the_lock_row_is_left_alone_by_migrations_and_is_postgresqls(bare, sqlite_url, postgres_url):
    assert not schema.include_name("esource_append_lock", "table", {})
    await schema.downgrade(postgres_url, "0001")
    await schema.upgrade(postgres_url)
    with pytest.raises(InvalidOptionError, match="one writer at a time"):
        await schema.create_append_lock(sqlite_url)
    with pytest.raises(InvalidOptionError, match="'advisory' or 'row'"):
        PostgreSQLEventStore(postgres_url, append_lock="none")
    with pytest.raises(TypeError):
        SQLiteEventStore(":memory:", notify=False)
