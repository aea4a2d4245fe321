"""SQLite writes tables anew where it cannot alter them: nothing of the application's is lost, or it is refused."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from support.schemas import described, execute, rows, sqlite_path

from esource import EventStore, schema
from esource.database.database import Database
from esource.errors import InvalidOptionError

ONE_EVENT = (
    "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) VALUES "
    "('e0000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001', 'Order', 'OrderPlaced', 1, "
    "'2025-03-01T12:00:00.500000+00:00', '{}')"
)
REFERRING = (
    "CREATE TABLE notes (id INTEGER, event_id TEXT REFERENCES events (event_id) ON DELETE CASCADE, text TEXT)",
    "INSERT INTO notes (event_id, text) VALUES ('e0000000-0000-4000-8000-000000000001', 'mind this one')",
)


@pytest.fixture
async def old_url(tmp_path):
    """A SQLite file at the first revision, with an event."""
    url = f"sqlite:///{tmp_path / 'old.db'}"
    await schema.upgrade(url, "0001")
    await execute(url, ONE_EVENT)
    return url


def engine_with_foreign_keys(url):
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))

    @event.listens_for(engine.sync_engine, "connect")
    def switch_on(connection, record):
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


@pytest.mark.parametrize("way", ["store", "up", "down"])
async def test_what_refers_to_events_with_on_delete_cascade_stays(old_url, way):
    await execute(old_url, *REFERRING)
    engine = engine_with_foreign_keys(old_url)
    if way == "store":
        async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
            await store.initialize()
            async with store.transaction() as transaction:
                found = await transaction.connection.exec_driver_sql("PRAGMA foreign_keys")
                assert found.scalar() == 1
    else:
        await schema.upgrade(engine)
        if way == "down":
            await schema.downgrade(engine, "0001")
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1
    await engine.dispose()

    assert await rows(old_url, "SELECT text FROM notes") == [("mind this one",)]
    assert await rows(old_url, "PRAGMA foreign_key_check") == []
    with closing(sqlite3.connect(sqlite_path(old_url))) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM events")
        assert connection.execute("SELECT * FROM notes").fetchall() == []


async def test_inside_a_transaction_with_foreign_keys_on_a_migration_says_what_to_do(old_url):
    await execute(old_url, *REFERRING)
    before = await described(old_url)
    engine = engine_with_foreign_keys(old_url)
    async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
        with pytest.raises(InvalidOptionError, match=r"notes refers to events.*Run `esource upgrade`"):
            async with store.transaction():
                await schema.upgrade(store)
    await engine.dispose()

    assert await described(old_url) == before
    assert await rows(old_url, "SELECT text FROM notes") == [("mind this one",)]


async def test_columns_values_indexes_triggers_and_views_of_the_application_stay(old_url):
    await execute(
        old_url,
        "ALTER TABLE events ADD COLUMN note TEXT",
        'ALTER TABLE events ADD COLUMN "how ""much""" REAL NOT NULL DEFAULT 1.5',
        "ALTER TABLE snapshots ADD COLUMN seen TEXT DEFAULT 'never'",
        "UPDATE events SET note = 'mind this one'",
        "CREATE INDEX theirs ON events (note)",
        "CREATE VIEW noted AS SELECT note FROM events",
        "CREATE TRIGGER told AFTER INSERT ON events BEGIN UPDATE events SET note = 'told' WHERE note IS NULL; END",
    )
    before = (await described(old_url))["events"]["columns"]

    for migrate, revision in ((schema.upgrade, "head"), (schema.downgrade, "0001"), (schema.upgrade, "head")):
        await migrate(old_url, revision)
        found = await described(old_url)
        assert await rows(old_url, 'SELECT note, "how ""much""" FROM events') == [("mind this one", 1.5)]
        assert await rows(old_url, "SELECT note FROM noted") == [("mind this one",)]
        assert "theirs" in found["events"]["indexes"]
        assert ("trigger", "told") in found["others"]
        for column in ("note", 'how "much"'):
            assert found["events"]["columns"][column] == before[column]
    await execute(old_url, ONE_EVENT.replace("00001'", "00002'"))
    assert await rows(old_url, "SELECT note FROM events ORDER BY 1") == [("mind this one",), ("told",)]


LOST = {
    "a generated column": (
        ["ALTER TABLE events ADD COLUMN size INTEGER GENERATED ALWAYS AS (length(payload)) VIRTUAL"],
        "the generated column size",
    ),
    "a reference": (
        ["CREATE TABLE customers (id INTEGER PRIMARY KEY)",
         "ALTER TABLE events ADD COLUMN customer INTEGER REFERENCES customers (id)"],
        "the reference to customers",
    ),
    "a check": (["ALTER TABLE snapshots ADD COLUMN stars INTEGER CHECK (stars < 6)"], "a CHECK"),
    "a collation": (["ALTER TABLE events ADD COLUMN note TEXT COLLATE NOCASE"], "a COLLATE"),
}  # fmt: skip


@pytest.mark.parametrize(("statements", "named"), LOST.values(), ids=LOST)
async def test_what_would_be_lost_is_named_and_nothing_is_changed(old_url, statements, named):
    await execute(old_url, *statements)
    before = await described(old_url)

    with pytest.raises(InvalidOptionError, match=f"and would lose {named}"):
        await schema.upgrade(old_url)

    assert await described(old_url) == before
    assert await schema.current(old_url) == "0001"
