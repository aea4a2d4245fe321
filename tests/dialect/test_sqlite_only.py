"""What only SQLite has: files, PRAGMAs, one writer at a time, the driver's threads."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import uuid4

import aiosqlite
import pytest
from support.orders import placed, several

from esource import CheckpointRepository, SQLiteEventStore, open_store
from esource.copying.rows import EVENTS, MIRRORED, same_keys
from esource.dialect.moving import insert_of
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
async def store(path, open_stores):
    return await open_stores(f"sqlite:///{path}")


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


async def pragma(store, name):
    async with store.transaction() as tx:
        return (await tx.connection.exec_driver_sql(f"PRAGMA {name}")).scalar()


def test_the_driver_has_the_one_private_call_that_a_unit_of_work_needs():
    assert asyncio.iscoroutinefunction(aiosqlite.Connection._execute)


# -- set-up ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "journal", "synchronous"),
    [({}, "wal", 2), ({"wal_mode": False}, "delete", 3), ({"synchronous": "NORMAL"}, "wal", 1)],
    ids=str,
)
async def test_pragmas_are_what_was_asked_for(path, options, journal, synchronous):
    async with SQLiteEventStore(path, busy_timeout=1234, **options) as store:
        assert await pragma(store, "journal_mode") == journal
        assert await pragma(store, "synchronous") == synchronous
        assert await pragma(store, "busy_timeout") == 1234
        assert store.wal_mode == (journal == "wal")


def test_the_store_tells_the_mode_that_is_in_effect():
    assert SQLiteEventStore(":memory:").wal_mode is False
    assert SQLiteEventStore("events.db").wal_mode is True


async def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "events.db"
    async with SQLiteEventStore(path) as store:
        await store.initialize()
        await append_one(store)
    assert path.exists()


async def test_a_clean_close_leaves_one_file(path):
    async with SQLiteEventStore(path) as store:
        await store.initialize()
        await append_one(store)
        assert path.with_name("events.db-wal").exists()
    assert [file.name for file in path.parent.iterdir()] == ["events.db"]


async def test_an_empty_file_is_a_fresh_database(path):
    path.touch()
    async with SQLiteEventStore(path) as store:
        await store.initialize()
        assert (await append_one(store)).global_position == 1


@pytest.mark.parametrize("name", ["with space.db", "ünï.db", "a?b#c%20.db", "x'y.db"])
async def test_any_file_name_will_do(tmp_path, name):
    async with SQLiteEventStore(tmp_path / name) as store:
        await store.initialize()
        await append_one(store)
    assert [file.name for file in tmp_path.iterdir()] == [name]


# -- several writers -------------------------------------------------------------------------------


async def test_any_number_of_stores_may_open_a_fresh_file_at_once(path):
    stores = [SQLiteEventStore(path) for _ in range(8)]
    await asyncio.gather(*(store.initialize() for store in stores))
    await asyncio.gather(*(append_one(store) for store in stores for _ in range(5)))
    assert await stores[0].get_global_position() == 40
    for store in stores:
        await store.close()


@pytest.mark.slow
def test_any_number_of_processes_may_open_and_fill_a_fresh_file_at_once(path):
    program = textwrap.dedent(
        """
        import asyncio, sys
        from support.orders import placed
        from esource import SQLiteEventStore

        async def main():
            async with SQLiteEventStore(sys.argv[1], busy_timeout=20000) as store:
                await store.initialize()
                for _ in range(20):
                    event = placed()
                    await store.append_events(event.aggregate_id, "Order", [event], 0)

        asyncio.run(main())
        """
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*), max(global_position) FROM events").fetchone() == (80, 80)
    connection.close()


async def test_a_writer_waits_for_another_program_up_to_the_busy_timeout(path, open_stores):
    patient = await open_stores(f"sqlite:///{path}", busy_timeout=20_000)
    hasty = await open_stores(f"sqlite:///{path}", busy_timeout=20)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError, match="busy_timeout"):
        await append_one(hasty)
    with pytest.raises(DatabaseBusyError):
        async with hasty.transaction():
            pass
    with pytest.raises(DatabaseBusyError):
        await CheckpointRepository(hasty).save_position("p", 1, uuid4(), "OrderPlaced")
    waiting = asyncio.create_task(append_one(patient))
    assert await hasty.get_global_position() == 0  # readers do not wait
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    assert (await waiting).global_position == 1
    assert (await append_one(hasty)).global_position == 2


async def test_a_transaction_that_read_first_can_still_write(path, open_stores):
    """A deferred transaction would be refused at its first write once another had written meanwhile."""
    one, two = await open_stores(f"sqlite:///{path}"), await open_stores(f"sqlite:///{path}")

    async def read_then_write(store):
        async with store.transaction() as tx:
            position = await store.get_global_position()
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event])
            return position

    positions = await asyncio.gather(*(read_then_write(store) for _ in range(5) for store in (one, two)))
    assert sorted(positions) == list(range(10))


async def test_a_commit_that_fails_leaves_no_transaction_behind(path, open_stores):
    """Without WAL a reader can keep a commit out."""
    store = await open_stores(f"sqlite:///{path}", wal_mode=False, busy_timeout=20)
    await append_one(store)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM events").fetchone()
    for _ in range(2):
        with pytest.raises(DatabaseBusyError):
            await append_one(store)
        with pytest.raises(DatabaseBusyError):
            async with store.transaction() as tx:
                event = placed()
                await tx.append_events(event.aggregate_id, "Order", [event])
    reader.execute("COMMIT")
    reader.close()
    assert (await append_one(store)).global_position == 2
    assert len([e async for e in store.read_all()]) == 2


async def test_no_statement_stays_open_after_a_write(store, path):
    """An unread RETURNING cursor would keep its transaction open and everybody else out."""
    await CheckpointRepository(store).save_position("p", 1, uuid4(), "OrderPlaced")
    async for _event in store.read_all():
        pass
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    other.execute("ROLLBACK")
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    other.close()


async def test_an_open_iterator_does_not_keep_the_wal_from_being_checkpointed(store, path):
    for _ in range(3):
        events = several(300)
        await store.append_events(events[0].aggregate_id, "Order", events)
    reading = store.read_all()
    await reading.__anext__()
    await append_one(store)
    other = sqlite3.connect(path)
    busy, pages, moved = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (busy, pages, moved) == (0, 0, 0)
    other.close()
    await reading.aclose()


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "text", "below a file"])
async def test_a_path_that_is_no_database_is_named(tmp_path, kind):
    text = tmp_path / "notes.txt"
    text.write_text("shopping: milk, bread, events " * 100)
    path = {"folder": tmp_path, "text": text, "below a file": text / "events.db"}[kind]
    store = open_store(str(path))
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match="path") as caught:
            await store.initialize()
        assert str(path) in str(caught.value)
        assert caught.value.__cause__ is not None
    assert not store.is_connected
    assert text.read_text().startswith("shopping")


async def test_a_store_opens_once_its_path_is_mended(tmp_path):
    path = tmp_path / "events.db"
    path.mkdir()
    store = open_store(str(path))
    with pytest.raises(DatabaseUnavailableError):
        await store.open()
    path.rmdir()
    await store.initialize()
    assert (await append_one(store)).global_position == 1
    await store.close()


async def test_a_full_disk_loses_nothing_and_ends_when_there_is_space(store):
    kept = await append_one(store)
    connection = store._opened.database.connections.writers.idle[-1].driver
    [(pages,)] = await connection.execute_fetchall("PRAGMA page_count")
    await connection.execute_fetchall(f"PRAGMA max_page_count = {pages + 2}")
    large = several(50, metadata={"text": "x" * 2000})
    results = await asyncio.gather(
        *(store.append_events(large[0].aggregate_id, "Order", large, -1) for _ in range(3)),
        return_exceptions=True,
    )
    assert {type(result) for result in results} == {DatabaseFullError}
    with pytest.raises(DatabaseFullError, match="space"):
        async with store.transaction() as tx:
            await tx.append_events(large[0].aggregate_id, "Order", large)
    assert await store.get_global_position() == kept.global_position
    await connection.execute_fetchall("PRAGMA max_page_count = 1000000")
    result = await store.append_events(large[0].aggregate_id, "Order", large, 0)
    assert (result.new_version, result.idempotent) == (50, False)


async def test_a_database_that_may_not_be_written_says_so(store):
    await append_one(store)
    # Permissions do not bind every user that tests run as; this PRAGMA binds all.
    connection = store._opened.database.connections.writers.idle[-1].driver
    await connection.execute_fetchall("PRAGMA query_only = ON")
    with pytest.raises(DatabaseReadOnlyError, match="permissions"):
        await append_one(store)
    with pytest.raises(DatabaseReadOnlyError):
        await CheckpointRepository(store).save_position("p", 1, uuid4(), "OrderPlaced")
    assert await store.get_global_position() == 1
    await connection.execute_fetchall("PRAGMA query_only = OFF")
    assert (await append_one(store)).global_position == 2


@pytest.mark.parametrize("which", ["writers", "readers"])
async def test_a_connection_that_was_closed_is_replaced(store, which):
    await append_one(store)
    assert await store.get_global_position() == 1
    await getattr(store._opened.database.connections, which).idle[-1].driver.close()
    assert await store.get_global_position() == 1
    assert (await append_one(store)).global_position == 2


async def test_a_store_in_memory_survives_the_cancellation_of_whatever_runs_on_it(open_stores):
    store = await open_stores("sqlite://")
    await append_one(store)
    for moment in range(25):

        async def work():
            async with store.transaction() as tx:
                for _ in range(5):
                    await tx.connection.exec_driver_sql("SELECT count(*) FROM events")
                raise RuntimeError

        task = asyncio.create_task(work())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.get_global_position() == 1


async def test_an_append_that_fails_half_way_leaves_nothing_in_a_transaction_that_goes_on(path, open_stores):
    """PostgreSQL would refuse to go on; SQLite undoes only the statement that failed, not those before."""
    store = await open_stores(f"sqlite:///{path}", outbox_enabled=True)
    order = uuid4()
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON event_outbox BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        with pytest.raises(ConstraintError, match="refused"):
            await tx.append_events(order, "Order", [placed(order)], 0)
        await tx.connection.exec_driver_sql("DROP TRIGGER refuse")
        assert (await tx.append_events(order, "Order", [placed(order)], 0)).new_version == 1
    assert [e.aggregate_id async for e in store.read_all()] == [order]


async def test_sqlites_executemany_is_given_nothing_that_returns_rows_which_python_3_10_refuses(store):
    backend = store._opened.database.backend
    kept = [same_keys(relation, "postgresql", "sqlite") for relation in (EVENTS, *MIRRORED)]
    assert {True, False} == set(kept)
    for relation, with_key in zip((EVENTS, *MIRRORED), kept, strict=True):
        text = (
            insert_of(relation.table, relation.columns(with_key=with_key)).on(backend.sqlalchemy_dialect).text
        )
        assert text.startswith("INSERT INTO")
        assert "RETURNING" not in text
