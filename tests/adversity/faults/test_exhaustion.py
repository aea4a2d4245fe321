"""Others who hold what we need: foreign transactions that last, a pool without a free connection."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.effort import examples
from support.orders import placed
from support.tally import Tally

from esource import EventStore, PostgreSQLEventStore
from esource.errors import DatabaseUnavailableError
from esource.testing.server import dsn


async def append(store: EventStore) -> object:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    return event.event_id


async def event_ids(store: EventStore) -> list[object]:
    return [stored.event_id async for stored in store.read_all()]


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_foreign_transaction_that_lasts_holds_up_neither_appends_nor_followers_on_postgresql(
    postgres_url: str, open_stores, isolation
):
    """One that has read and written, elsewhere in the database, and does not end."""
    store = await open_stores(postgres_url)
    tally = Tally(f"long foreign transaction ({isolation.replace('_', ' ')})", "postgresql")
    foreign = await asyncpg.connect(**dsn(make_url(postgres_url)))
    await foreign.execute("CREATE TABLE elsewhere (id int)")
    acknowledged = [await append(store)]
    transaction = foreign.transaction(isolation=isolation)
    await transaction.start()
    await foreign.execute("INSERT INTO elsewhere SELECT count(*) FROM events")
    seen = []
    async with store.subscribe() as events:
        for _ in range(examples(20)):
            acknowledged.append(await append(store))
            async with store.transaction() as tx:
                event = placed()
                await tx.append_events(event.aggregate_id, "Order", [event])
            acknowledged.append(event.event_id)
        while len(seen) < len(acknowledged):
            seen.append((await asyncio.wait_for(events.__anext__(), 60)).event_id)
    tally.injected += 1
    await transaction.rollback()
    await foreign.close()
    tally.judge(acknowledged, await event_ids(store))
    tally.judge_follower(acknowledged, seen)
    tally.conclude()


async def test_a_foreign_reader_on_sqlite_lets_the_log_grow_until_it_ends(sqlite_url: str, open_stores):
    """Nobody is held up; what it keeps from being checkpointed is written back once it has gone."""
    store = await open_stores(sqlite_url)
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    wal = path.with_name(f"{path.name}-wal")
    tally = Tally("long foreign reader", "sqlite")
    acknowledged = [await append(store)]
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN")
    foreign.execute("SELECT count(*) FROM events").fetchone()
    sizes = []
    for _ in range(examples(3)):
        acknowledged += await asyncio.gather(*(append(store) for _ in range(400)))
        sizes.append(wal.stat().st_size)
    tally.injected += 1
    assert sizes == sorted(set(sizes)), "the write-ahead log did not grow"
    assert foreign.execute("SELECT count(*) FROM events").fetchone() == (1,)
    foreign.execute("COMMIT")
    foreign.close()
    other = sqlite3.connect(path)
    busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert (busy, wal.stat().st_size) == (0, 0)
    acknowledged.append(await append(store))
    tally.judge(acknowledged, await event_ids(store))
    tally.conclude()


@pytest.mark.awaited
async def test_a_pool_that_is_used_up_is_a_clear_error_and_serves_again_when_there_is_room(postgres_url: str):
    engine = create_async_engine(
        make_url(postgres_url).set(drivername="postgresql+asyncpg"),
        pool_size=2,
        max_overflow=0,
        pool_timeout=0.1,
    )
    tally = Tally("pool used up by the application", "postgresql")
    acknowledged = []
    async with PostgreSQLEventStore(engine, enable_tracing=False) as store:
        for _ in range(examples(2)):
            acknowledged.append(await append(store))
            async with engine.connect() as theirs:
                await theirs.exec_driver_sql("SELECT 1")
                acknowledged.append(await append(store))  # on the connection that the store holds
                with pytest.raises(DatabaseUnavailableError, match="raise pool_size"):
                    async with store.transaction():
                        pass
                tally.injected += 1
                tally.errors += 1
            async with store.transaction() as tx:
                event = placed()
                await tx.append_events(event.aggregate_id, "Order", [event])
            acknowledged.append(event.event_id)
        tally.judge(acknowledged, await event_ids(store))
    assert engine.pool.checkedout() == 0
    await engine.dispose()
    tally.conclude()
