"""The repositories work on whatever people have."""

import sqlite3
import subprocess
import sys
from uuid import uuid4

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from support.orders import placed

import esource
from esource import (
    CheckpointRepository,
    DLQRepository,
    InMemoryCheckpointRepository,
    InMemoryDLQRepository,
    InMemoryOutboxRepository,
    InMemorySnapshotStore,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
    SQLiteCheckpointRepository,
    open_store,
)
from esource.database.sources import database_of
from esource.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    InvalidOptionError,
    SchemaMissingError,
    StoreClosedError,
)

pytestmark = pytest.mark.awaited


async def use(checkpoints, snapshots, dead_letters, outbox):
    event = placed()
    assert await checkpoints.save_position("p", 3, event.event_id, "OrderPlaced")
    assert await checkpoints.get_position("p") == 3
    snapshot = Snapshot(event.aggregate_id, "Order", 1, {"a": 1.0})
    assert await snapshots.save_snapshot(snapshot)
    assert await snapshots.get_snapshot(event.aggregate_id, "Order") == snapshot
    entry = await dead_letters.add_failed_event(event.event_id, "p", "OrderPlaced", {}, ValueError("x"))
    assert (await dead_letters.get_failed_event(entry)).event_id == event.event_id
    row = await outbox.add_event(event)
    assert [pending.id for pending in await outbox.get_pending_events()] == [row]


async def test_every_repository_works_on_every_source(source):
    repositories = [
        CheckpointRepository(source),
        SnapshotStore(source),
        DLQRepository(source),
        OutboxRepository(source),
    ]
    await use(*repositories)
    for repository in repositories:
        await repository.close()


async def test_the_in_memory_ones_need_no_argument():
    repositories = [
        InMemoryCheckpointRepository(),
        InMemorySnapshotStore(),
        InMemoryDLQRepository(),
        InMemoryOutboxRepository(),
    ]
    await use(*repositories)
    for repository in repositories:
        await repository.close()
    with pytest.raises(StoreClosedError):
        await repositories[0].get_position("p")


async def test_the_in_memory_ones_share_the_store_they_are_given(open_stores):
    store = await open_stores("sqlite://")
    await use(
        InMemoryCheckpointRepository(store),
        InMemorySnapshotStore(store),
        InMemoryDLQRepository(store),
        InMemoryOutboxRepository(store),
    )
    await InMemoryCheckpointRepository(store).close()
    assert store.is_connected
    assert await CheckpointRepository(store).get_position("p") == 3


def test_a_program_that_closes_nothing_still_ends():
    program = (
        "import asyncio, uuid, esource\n"
        "async def main():\n"
        "    await esource.InMemoryCheckpointRepository().save_position('p', 1, uuid.uuid4(), 'E')\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


async def test_what_a_transaction_wrote_goes_with_it(shared_store):
    event = placed()
    with pytest.raises(LookupError):
        async with shared_store.transaction() as tx:
            await use(tx.checkpoints, tx.snapshots, tx.dead_letters, tx.outbox)
            await tx.append_events(event.aggregate_id, "Order", [event])
            raise LookupError
    assert await CheckpointRepository(shared_store).get_all_checkpoints() == []
    assert await OutboxRepository(shared_store).get_pending_events() == []
    assert await DLQRepository(shared_store).get_failed_events() == []
    assert await shared_store.get_global_position() == 0


async def test_an_application_s_own_transaction_decides(shared_store, shared_database_url):
    url = shared_database_url.replace("sqlite://", "sqlite+aiosqlite://").replace(
        "postgresql://", "postgresql+asyncpg://"
    )
    engine = create_async_engine(url)
    try:
        with pytest.raises(LookupError):
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE orders_seen (id INTEGER)"))
                assert await CheckpointRepository(connection).save_position("p", 1, uuid4(), "E")
                raise LookupError
        assert await CheckpointRepository(engine).get_position("p") is None
        async with engine.begin() as connection:
            assert await CheckpointRepository(connection).save_position("p", 1, uuid4(), "E")
        repository = CheckpointRepository(engine)
        assert await repository.get_position("p") == 1
    finally:
        await engine.dispose()


@pytest.mark.parametrize("source", [None, 5, object(), async_sessionmaker(), "mysql://localhost/x"])
def test_anything_else_is_refused(source):
    with pytest.raises(InvalidOptionError):
        CheckpointRepository(source)


# -- an open aiosqlite connection, which only SQLite has ---------------------------------------------


@pytest.fixture
async def raw(tmp_path):
    async with open_store(str(tmp_path / "events.db")) as store:
        await store.initialize()
    async with aiosqlite.connect(tmp_path / "events.db", timeout=0.1) as connection:
        yield connection


async def test_a_lent_connection_commits_what_it_writes(raw, tmp_path):
    await SQLiteCheckpointRepository(raw).save_position("p", 1, uuid4(), "E")
    assert not raw.in_transaction
    with sqlite3.connect(tmp_path / "events.db") as other:
        assert other.execute("SELECT projection_name FROM projection_checkpoints").fetchall() == [("p",)]
    other.close()


async def test_a_lent_connection_s_own_transaction_decides(raw):
    repository = SQLiteCheckpointRepository(raw)
    await raw.execute("CREATE TABLE seen (id INTEGER)")
    await raw.execute("INSERT INTO seen VALUES (1)")
    assert await repository.save_position("p", 1, uuid4(), "E")
    assert raw.in_transaction
    await raw.rollback()
    assert await repository.get_position("p") is None
    await raw.execute("INSERT INTO seen VALUES (1)")
    await repository.save_position("p", 2, uuid4(), "E")
    await raw.commit()
    assert await repository.get_position("p") == 2


async def test_a_lent_connection_s_row_factory_does_not_matter(raw):
    repository = SQLiteCheckpointRepository(raw)
    factories = [
        aiosqlite.Row,
        lambda cursor, row: {column[0]: value for column, value in zip(cursor.description, row, strict=True)},
    ]
    for position, factory in enumerate(factories, start=1):
        raw.row_factory = factory
        assert await repository.save_position("p", position, uuid4(), "E")
        assert await repository.get_position("p") == position
        assert raw.row_factory is factory


async def test_a_lent_connection_without_our_tables_says_what_to_do(tmp_path):
    async with aiosqlite.connect(tmp_path / "empty.db") as raw:
        for call in (CheckpointRepository(raw).get_all_checkpoints(), OutboxRepository(raw).get_stats()):
            with pytest.raises(SchemaMissingError, match=r"initialize\(\).*alembic upgrade head"):
                await call
        with pytest.raises(SchemaMissingError):
            await CheckpointRepository(raw).save_position("p", 1, uuid4(), "E")
        assert not raw.in_transaction


async def test_a_lent_connection_that_waits_too_long_is_our_error(raw, tmp_path):
    other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        await CheckpointRepository(raw).save_position("p", 1, uuid4(), "E")
    other.close()
    assert await CheckpointRepository(raw).save_position("p", 1, uuid4(), "E")


async def test_a_lent_connection_that_is_closed_is_our_error(tmp_path):
    async with aiosqlite.connect(tmp_path / "events.db") as raw:
        pass
    with pytest.raises(DatabaseUnavailableError):
        await CheckpointRepository(raw).get_position("p")


async def test_a_lent_connection_has_no_transactions_of_ours_and_no_engine(raw, tmp_path):
    database = database_of(raw)
    with pytest.raises(InvalidOptionError, match="transactions of its own"):
        async with database.transaction():
            pass
    with pytest.raises(InvalidOptionError, match="has no engine"):
        database.connections.engine
    await database.close()


async def test_a_lent_connection_stays_open(raw):
    repository = CheckpointRepository(raw)
    await repository.get_position("p")
    await repository.close()
    await raw.execute("SELECT 1")


async def test_a_database_without_tables_says_what_to_do(empty_database_url):
    repository = CheckpointRepository(empty_database_url)
    try:
        with pytest.raises(SchemaMissingError, match=r"initialize\(\).*alembic upgrade head"):
            await repository.get_position("p")
    finally:
        await repository.close()


@pytest.mark.parametrize("kind", ["Checkpoint", "DLQ", "Outbox"])
def test_the_tutorial_s_import_paths_lead_to_the_same_classes(kind):
    module = __import__(f"esource.repositories.{kind.lower()}", fromlist=["*"])
    package = __import__("esource.repositories", fromlist=["*"])
    for prefix in ("", "SQLite", "PostgreSQL", "InMemory"):
        name = f"{prefix}{kind}Repository"
        assert getattr(module, name) is getattr(package, name) is getattr(esource, name)
    assert set(module.__all__) <= set(package.__all__)
