"""PostgreSQL databases that tests use one after the other: nothing of one test is left for the next."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed

from esource import open_store
from esource.testing import server
from esource.testing.server import dsn

CHANGES = {
    "a table": "CREATE TABLE mine (id int)",
    "a column": "ALTER TABLE events ADD COLUMN mine int",
    "a column's length": "ALTER TABLE events ALTER COLUMN event_type TYPE varchar(300)",
    "a constraint's name": "ALTER TABLE events RENAME CONSTRAINT chk_events_version TO mine",
    "an index": "DROP INDEX idx_events_timestamp",
    "a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "what a function sees": "ALTER FUNCTION esource_refusal(jsonb) STABLE",
    "a setting of a function": "ALTER FUNCTION esource_refusal(jsonb) SET work_mem = '1MB'",
    "a trigger that is off": "ALTER TABLE events DISABLE TRIGGER ALL",
    "a sequence's steps": "ALTER SEQUENCE events_global_position_seq INCREMENT 2",
    "a schema": "CREATE SCHEMA mine",
    "a policy": "CREATE POLICY mine ON events USING (true)",
    "rights": "GRANT SELECT ON events TO PUBLIC",
    "the revision": "UPDATE esource_alembic_version SET version_num = '0001'",
}


async def execute(url, *statements):
    connection = await asyncpg.connect(**dsn(make_url(url)))
    for statement in statements:
        await connection.execute(statement)
    return connection


async def test_rows_sequences_and_connections_do_not_outlive_a_test(postgres_databases):
    with postgres_databases.with_tables() as first:
        async with open_store(first, enable_tracing=False) as store:
            await store.append_events((event := placed()).aggregate_id, "Order", [event])
        left = await execute(first, "BEGIN", "LOCK TABLE events")
    with postgres_databases.with_tables() as second:
        assert second == first
        async with open_store(second, enable_tracing=False) as store:
            assert await store.get_global_position() == 0
            result = await store.append_events((event := placed()).aggregate_id, "Order", [event])
            assert result.global_position == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await left.fetch("SELECT 1")
    left.terminate()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_database_that_was_changed_is_not_used_again(postgres_databases, change):
    with postgres_databases.with_tables() as first:
        await (await execute(first, change)).close()
    with postgres_databases.with_tables() as second:
        assert second != first


def test_files_are_kept_in_memory_only_where_there_is_enough_and_nobody_says_where(monkeypatch, tmp_path):
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(server, "SHARED_MEMORY", str(tmp_path))
    monkeypatch.setattr(server, "LEAST_FREE_BYTES", 1)
    assert server._in_memory() == str(tmp_path)
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert server._in_memory() is None
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(server, "LEAST_FREE_BYTES", 2**60)
    assert server._in_memory() is None
    monkeypatch.setattr(server, "SHARED_MEMORY", str(tmp_path / "not here"))
    assert server._in_memory() is None
