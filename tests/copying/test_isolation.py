"""A move sees what was committed before it, whatever isolation level the database gives by default."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed

from esource import EventStore, open_store
from esource.copying import copy, cut_over, export_store, import_store, verify_copy
from esource.database.sources import database_of
from esource.errors import EventSourceError


@pytest.fixture(params=["repeatable read", "serializable"])
async def strict_url(request, postgres_url: str, open_stores) -> str:
    """A PostgreSQL database whose transactions look at one moment unless they say otherwise."""
    store: EventStore = await open_stores(postgres_url)
    name = make_url(postgres_url).database
    await database_of(store).run_script(
        [f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{request.param}'"]
    )
    return postgres_url


async def waits_for_a_lock(store: EventStore) -> bool:
    async with store.transaction() as tx:
        found = await tx.connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(found.scalar_one())


async def test_what_is_committed_while_a_cut_over_waits_for_its_writers_moves_too(
    strict_url: str, sqlite_url: str, open_stores
):
    source: EventStore = await open_stores(strict_url)
    watcher: EventStore = await open_stores(strict_url)
    target: EventStore = await open_stores(sqlite_url)
    first, last = placed(), placed()
    await source.append_events(first.aggregate_id, "Order", [first])
    await copy(strict_url, sqlite_url)

    async with source.transaction() as tx:
        await tx.append_events(last.aggregate_id, "Order", [last])
        moving = asyncio.create_task(cut_over(strict_url, sqlite_url))
        while not await waits_for_a_lock(watcher):
            assert not moving.done()
            await asyncio.sleep(0.01)
    await moving

    assert await target.event_exists(last.event_id)
    assert (await verify_copy(strict_url, sqlite_url)).is_identical


async def test_a_store_is_copied_exported_and_imported(
    strict_url: str, sqlite_url: str, open_stores, tmp_path
):
    events = [placed() for _ in range(5)]
    async with open_store(strict_url, enable_tracing=False) as source:
        for event in events:
            await source.append_events(event.aggregate_id, "Order", [event])
    await copy(strict_url, sqlite_url, verify=True)
    assert (await export_store(strict_url, tmp_path / "export")).events == 5
    assert (await import_store(f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "export")).events == 5


async def test_an_import_through_an_engine_without_transactions_is_whole_or_absent(
    empty_database_url: str, open_stores, tmp_path
):
    source: EventStore = await open_stores(f"sqlite:///{tmp_path / 'source.db'}")
    await source.initialize()
    for event in [placed() for _ in range(3)]:
        await source.append_events(event.aggregate_id, "Order", [event])
    await export_store(source, tmp_path / "whole")
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").write_bytes(b"".join(lines[:-1]))
    url = make_url(empty_database_url)
    url = url.set(drivername={"sqlite": "sqlite+aiosqlite"}.get(url.drivername, "postgresql+asyncpg"))
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with open_store(empty_database_url, enable_tracing=False) as store:
            await store.initialize()
            with pytest.raises(EventSourceError):
                await import_store(engine, tmp_path / "cut")
            assert await store.get_global_position() == 0
    finally:
        await engine.dispose()
