"""The tutorial's claims about the schema (38-62)."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from support.orders import placed

from esource import SQLiteEventStore, schema
from esource.database.database import Database
from esource.tables import events

FIVE_TABLES = {"events", "event_outbox", "projection_checkpoints", "dead_letter_queue", "snapshots"}

TUTORIAL_INDEXES = {
    "idx_events_aggregate_id": ["aggregate_id"],
    "idx_events_aggregate_type": ["aggregate_type"],
    "idx_events_event_type": ["event_type"],
    "idx_events_timestamp": ["timestamp"],
    "idx_events_tenant_id": ["tenant_id"],
    "idx_events_type_tenant_timestamp": ["aggregate_type", "tenant_id", "timestamp"],
    "idx_events_aggregate_version": ["aggregate_id", "aggregate_type", "version"],
}

# Migration 0002 drops these: the index of the UNIQUE constraint, or a longer one, serves the same queries.
DROPPED_AS_DUPLICATES = {
    "idx_events_aggregate_id",
    "idx_events_aggregate_type",
    "idx_events_aggregate_version",
}


async def seen_in(store, look):
    """What SQLAlchemy's inspector sees in the store's database."""
    async with store.transaction() as transaction:
        return await transaction.connection.run_sync(lambda connection: look(inspect(connection)))


def indexes_of_events(inspector):
    return {
        index["name"]: index["column_names"]
        for index in inspector.get_indexes("events")
        if not index.get("duplicates_constraint")
    }


@pytest.fixture
def file(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
async def sqlite_events(file):
    """The events table of an initialized SQLite file, opened with the standard library."""
    async with SQLiteEventStore(file, enable_tracing=False) as store:
        await store.initialize()
    with closing(sqlite3.connect(file)) as connection:
        yield connection


async def test_initialize_creates_the_five_tables_and_the_version_table(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)
    tables = await seen_in(store, lambda inspector: set(inspector.get_table_names()))
    assert tables == FIVE_TABLES | {"event_tags", "tag_fillings", schema.VERSION_TABLE}


async def test_initialize_may_be_repeated(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    for _ in range(3):
        await store.initialize()
    assert await store.get_global_position() == 1


@pytest.mark.parametrize(
    ("column", "declared", "required"),
    [
        ("event_id", "TEXT", 1),
        ("aggregate_id", "TEXT", 1),
        ("aggregate_type", "TEXT", 1),
        ("event_type", "TEXT", 1),
        ("tenant_id", "TEXT", 0),
        ("actor_id", "TEXT", 0),
        ("version", "INTEGER", 1),
        ("timestamp", "TEXT", 1),
        ("payload", "TEXT", 1),
        ("created_at", "TEXT", 1),
        ("tags", "TEXT", 0),  # ours
    ],
)
def test_the_columns_of_events_are_the_tutorials_sqlite(sqlite_events, column, declared, required):
    found = {row[1]: row[2:4] for row in sqlite_events.execute("PRAGMA table_info(events)")}
    assert found[column] == (declared, required)
    assert len(found) == 12


def test_the_global_position_is_an_autoincremented_key_sqlite(sqlite_events):
    rows = list(sqlite_events.execute("PRAGMA table_info(events)"))
    assert [(row[1], row[2]) for row in rows if row[5]] == [("global_position", "INTEGER")]
    (sql,) = sqlite_events.execute("SELECT sql FROM sqlite_master WHERE name = 'events'").fetchone()
    assert "global_position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" in sql


def test_created_at_defaults_to_now_sqlite(sqlite_events):
    sqlite_events.execute(
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) "
        "VALUES ('e', 'a', 'Order', 'OrderPlaced', 1, 't', '{}')"
    )
    (created_at,) = sqlite_events.execute("SELECT created_at FROM events").fetchone()
    age = datetime.now(timezone.utc) - datetime.fromisoformat(created_at).replace(tzinfo=timezone.utc)
    assert abs(age) < timedelta(hours=1)


async def test_event_ids_and_versions_are_unique(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)
    found = await seen_in(
        store,
        lambda inspector: {tuple(c["column_names"]) for c in inspector.get_unique_constraints("events")},
    )
    assert found == {("event_id",), ("aggregate_id", "aggregate_type", "version")}


async def test_a_second_event_at_one_version_is_refused_by_the_database_itself(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    async with store.transaction() as transaction:
        row = (await transaction.connection.execute(events.select())).mappings().one()
    with pytest.raises(IntegrityError, match="uq_events_aggregate_version|events.version"):
        async with store.transaction() as transaction:
            again = {**row, "event_id": placed().event_id}
            del again["global_position"]
            await transaction.connection.execute(events.insert().values(again))


async def test_the_stored_values_have_the_tutorials_form_sqlite(file):
    moment = datetime(2024, 5, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    event = placed(
        aggregate_id=UUID("550e8400-e29b-41d4-a716-446655440000"),
        occurred_at=moment,
        tenant_id=placed().event_id,
    )
    async with SQLiteEventStore(file, enable_tracing=False) as store:
        await store.initialize()
        await store.append_events(event.aggregate_id, "Order", [event])
    with closing(sqlite3.connect(file)) as connection:
        row = connection.execute(
            "SELECT event_id, aggregate_id, tenant_id, timestamp, json_extract(payload, '$.customer_id'), "
            "created_at, typeof(event_id), typeof(timestamp), typeof(payload) FROM events"
        ).fetchone()
    assert row[:5] == (
        str(event.event_id),
        "550e8400-e29b-41d4-a716-446655440000",
        str(event.tenant_id),
        "2024-05-01T10:00:00.000000+00:00",
        "c-1",
    )
    assert len(row[5]) == len("2024-05-01T10:00:00.000000+00:00")
    assert row[5].endswith("+00:00")
    assert row[6:] == ("text", "text", "text")


async def test_the_columns_of_events_have_native_types_postgresql(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    columns = await seen_in(store, lambda inspector: {c["name"]: c for c in inspector.get_columns("events")})
    assert {name: str(column["type"]) for name, column in columns.items()} == {
        "global_position": "BIGINT",
        "event_id": "UUID",
        "aggregate_id": "UUID",
        "aggregate_type": "VARCHAR(255)",
        "event_type": "VARCHAR(255)",
        "tenant_id": "UUID",
        "actor_id": "VARCHAR(255)",
        "version": "INTEGER",
        "timestamp": "TIMESTAMP",
        "payload": "JSONB",
        "created_at": "TIMESTAMP",
        "tags": "JSONB",
    }
    assert columns["timestamp"]["type"].timezone
    assert columns["created_at"]["type"].timezone
    assert "nextval" in columns["global_position"]["default"]
    assert {name for name, column in columns.items() if column["nullable"]} == {
        "tenant_id",
        "actor_id",
        "tags",
    }


async def test_both_databases_have_the_same_check_constraints(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)

    def checks(inspector):
        return {c["name"] for table in FIVE_TABLES for c in inspector.get_check_constraints(table)}

    assert await seen_in(store, checks) == {"chk_events_version", "chk_outbox_status", "chk_dlq_status"}


async def test_migration_0001_creates_the_tutorials_indexes(empty_database_url, open_stores):
    await schema.upgrade(empty_database_url, "0001")
    assert await _indexes_without_opening_a_store(empty_database_url) == TUTORIAL_INDEXES


async def test_the_newest_schema_keeps_all_but_the_duplicates(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)
    assert await seen_in(store, indexes_of_events) == {
        name: columns for name, columns in TUTORIAL_INDEXES.items() if name not in DROPPED_AS_DUPLICATES
    }


async def test_the_tenant_index_is_partial(empty_database_url, open_stores):
    store = await open_stores(empty_database_url)

    def condition(inspector):
        [index] = [i for i in inspector.get_indexes("events") if i["name"] == "idx_events_tenant_id"]
        return str(index["dialect_options"][f"{inspector.dialect.name}_where"]).strip("()")

    assert (await seen_in(store, condition)).lower() == "tenant_id is not null"


@pytest.mark.parametrize(
    "condition",
    [
        "aggregate_id = 'a'",
        "aggregate_type = 'Order'",
        "event_type = 'OrderPlaced'",
        "timestamp >= '2024'",
        "tenant_id = 't'",
        "aggregate_type = 'Order' AND tenant_id = 't' AND timestamp >= '2024'",
        "aggregate_id = 'a' AND aggregate_type = 'Order' AND version > 1",
    ],
)
def test_every_query_that_the_tutorial_has_an_index_for_is_served_by_one_sqlite(sqlite_events, condition):
    plan = sqlite_events.execute(f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {condition}").fetchall()
    assert all(row[3].startswith("SEARCH events USING INDEX") for row in plan), plan


async def _indexes_without_opening_a_store(url):
    database = Database.from_url(make_url(url))
    try:
        async with database.transaction() as unit:
            return await unit.connection.run_sync(lambda connection: indexes_of_events(inspect(connection)))
    finally:
        await database.close()
