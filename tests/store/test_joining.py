"""Appends that join a transaction which the application has opened on its own engine."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from uuid import uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, func, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from support.orders import Order, placed, several

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    DuplicateEventError,
    InvalidOptionError,
    OptimisticLockError,
    OutboxRepository,
    SnapshotStore,
)

totals = Table("totals", MetaData(), Column("id", Integer, primary_key=True))


class Publisher:
    async def publish(self, events):
        raise NotImplementedError


@pytest.fixture
async def engine(shared_database_url, shared_store):
    """The application's own engine, on the database of the store."""
    url = make_url(shared_database_url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.drivername]
    engine = create_async_engine(url.set(drivername=driver))
    async with engine.begin() as connection:
        await connection.run_sync(totals.metadata.create_all)
    yield engine
    assert engine.pool.checkedout() == 0
    await engine.dispose()


async def count_of(engine):
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(totals))


async def test_an_append_commits_with_the_applications_connection(shared_store, engine):
    order = uuid4()
    async with engine.begin() as connection:
        await connection.execute(insert(totals).values(id=1))
        result = await shared_store.append_events(order, "Order", several(2, order), 0, connection=connection)
        assert (result.new_version, result.global_position) == (2, 2)
        assert await shared_store.get_stream_version(order, "Order") == 0
    assert await shared_store.get_stream_version(order, "Order") == 2
    assert await count_of(engine) == 1


async def test_an_append_vanishes_with_the_applications_rollback(shared_store, engine):
    order = uuid4()
    with pytest.raises(RuntimeError):
        async with engine.begin() as connection:
            await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
            await connection.execute(insert(totals).values(id=1))
            raise RuntimeError
    assert await shared_store.get_global_position() == 0
    assert await count_of(engine) == 0
    await shared_store.append_events(order, "Order", [placed(order)], 0)


async def test_an_append_joins_a_connection_that_has_not_begun_yet(shared_store, engine):
    order = uuid4()
    async with engine.connect() as connection:
        await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
        await connection.rollback()
        await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
        await connection.commit()
    assert await shared_store.get_stream_version(order, "Order") == 1


@pytest.mark.parametrize("commit", [True, False])
async def test_an_append_joins_a_session(shared_store, engine, commit):
    order = uuid4()
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with sessions() as session:
        await session.execute(insert(totals).values(id=1))
        await shared_store.append_events(order, "Order", [placed(order)], 0, connection=session)
        await (session.commit() if commit else session.rollback())
    assert await shared_store.get_stream_version(order, "Order") == int(commit)
    assert await count_of(engine) == int(commit)


@pytest.mark.parametrize("commit", [True, False])
async def test_an_aggregate_is_saved_in_the_applications_transaction(shared_store, engine, commit):
    repository = AggregateRepository(shared_store, Order)
    order = repository.create_new(uuid4())
    order.place("c1", 1.0)
    async with engine.connect() as connection:
        await connection.execute(insert(totals).values(id=1))
        assert (await repository.save(order, connection=connection)).new_version == 1
        assert not order.has_uncommitted_events
        await (connection.commit() if commit else connection.rollback())
    assert await shared_store.get_stream_version(order.aggregate_id, "Order") == int(commit)
    assert await count_of(engine) == int(commit)


async def test_nobody_is_told_of_an_aggregate_that_the_application_may_roll_back(shared_store, engine):
    snapshots = SnapshotStore(shared_store)
    order = Order(uuid4())
    order.place("c1", 1.0)
    publishing = AggregateRepository(shared_store, Order, event_publisher=Publisher())
    keeping = AggregateRepository(shared_store, Order, snapshot_store=snapshots, snapshot_threshold=1)
    async with engine.connect() as connection:
        with pytest.raises(InvalidOptionError, match="event_publisher is told after a commit"):
            await publishing.save(order, connection=connection)
        await keeping.save(order, connection=connection)
        await connection.rollback()
    assert not await snapshots.snapshot_exists(order.aggregate_id, "Order")
    with pytest.raises(AggregateNotFoundError):
        await keeping.load(order.aggregate_id)


async def test_a_conflict_leaves_the_applications_transaction_usable(shared_store, engine):
    order = uuid4()
    event = placed(order)
    await shared_store.append_events(order, "Order", [event], 0)
    async with engine.begin() as connection:
        with pytest.raises(OptimisticLockError):
            await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
        with pytest.raises(DuplicateEventError):
            # Only the last is stored already: whatever was written of the others is undone.
            events = [*several(59, order), event]
            await shared_store.append_events(order, "Order", events, 1, connection=connection)
        again = await shared_store.append_events(order, "Order", [event], 0, connection=connection)
        assert again.idempotent
        await connection.execute(insert(totals).values(id=1))
    assert await count_of(engine) == 1
    assert await shared_store.get_stream_version(order, "Order") == 1


async def test_later_appends_in_the_transaction_see_the_earlier_ones(shared_store, engine):
    order = uuid4()
    async with engine.begin() as connection:
        for version in range(3):
            result = await shared_store.append_events(
                order, "Order", [placed(order)], version, connection=connection
            )
            assert result.new_version == version + 1
        nothing = await shared_store.append_events(order, "Order", [], connection=connection)
        assert nothing.new_version == 3


async def test_other_appends_come_after_the_applications_transaction(shared_store, engine):
    order, other = uuid4(), uuid4()
    async with engine.begin() as connection:
        await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
        waiting = asyncio.create_task(shared_store.append_events(other, "Order", [placed(other)], 0))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
    await waiting
    assert [e.aggregate_id async for e in shared_store.read_all()] == [order, other]


async def test_the_connection_of_a_transaction_may_be_named(store):
    order = uuid4()
    async with store.transaction() as tx:
        await store.append_events(order, "Order", [placed(order)], 0, connection=tx.connection)
        session = AsyncSession(tx.connection)
        await store.append_events(order, "Order", [placed(order)], 1, connection=session)
    assert await store.get_stream_version(order, "Order") == 2


async def test_joined_appends_fill_the_outbox(shared_database_url, open_stores, engine):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    order = uuid4()
    async with engine.begin() as connection:
        await store.append_events(order, "Order", several(2, order), 0, connection=connection)
    rows = await OutboxRepository(store).get_pending_events()
    assert [row.global_position for row in rows] == [1, 2]


async def test_an_engine_that_begins_transactions_itself_is_joined(shared_store, engine):
    """SQLAlchemy's recipe for SQLite emits BEGIN on its own; the append must not begin another."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine.sync_engine, "connect")
        def stop_implicit_begin(connection, record):
            connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")

        await engine.dispose()
    order = uuid4()
    async with engine.begin() as connection:
        await connection.execute(insert(totals).values(id=1))
        await shared_store.append_events(order, "Order", [placed(order)], 0, connection=connection)
    assert await shared_store.get_stream_version(order, "Order") == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit before Python 3.12")
async def test_a_connection_whose_commit_does_nothing_is_refused_on_python_3_12_and_newer(
    sqlite_url, open_stores
):
    store = await open_stores(sqlite_url)
    url = make_url(sqlite_url).set(drivername="sqlite+aiosqlite")
    for autocommit in (True, False):
        engine = create_async_engine(url, connect_args={"autocommit": autocommit})
        with pytest.raises(InvalidOptionError, match="autocommit=True") if autocommit else nullcontext():
            async with engine.connect() as connection:
                await store.append_events(order := uuid4(), "Order", [placed(order)], connection=connection)
                await connection.commit()
        await engine.dispose()
        assert await store.get_global_position() == (0 if autocommit else 1)


async def test_a_stream_that_was_closed_in_the_same_transaction_can_be_closed_again(shared_store, engine):
    order = uuid4()
    await shared_store.append_events(order, "Order", several(2, order))
    async with engine.begin() as connection:
        first = await shared_store.close_stream(order, "Order", connection=connection)
        again = await shared_store.close_stream(order, "Order", connection=connection)
    assert (again.new_version, again.global_position) == (first.new_version, first.global_position)
    assert (first.idempotent, again.idempotent) == (False, True)


async def test_appending_nothing_tells_the_version_that_the_transaction_sees(shared_store, engine):
    order = uuid4()
    async with engine.begin() as connection:
        await shared_store.append_events(order, "Order", several(2, order), connection=connection)
        nothing = await shared_store.append_events(order, "Order", [], connection=connection)
    assert nothing.new_version == 2
