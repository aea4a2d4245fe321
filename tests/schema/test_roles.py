"""Three roles for one log, on PostgreSQL, the only one of the databases that has roles. Every session is that of
the real role, authenticated as itself."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import OrderPlaced, placed, several
from support.schemas import execute, rows

from esource import (
    AppendCondition,
    DLQRepository,
    Lease,
    OutboxRelay,
    OutboxRepository,
    Projection,
    ProjectionRunner,
    Query,
    QueryItem,
    Snapshot,
    SnapshotStore,
    handles,
    schema,
)
from esource.errors import AppendConditionError, DatabaseReadOnlyError, InvalidOptionError
from esource.schema import row_level_security
from esource.schema.roles import create_roles, role_script
from esource.testing.server import dsn

PASSWORD = uuid4().hex
DENIED = asyncpg.InsufficientPrivilegeError
OURS = (
    "events",
    "event_outbox",
    "projection_checkpoints",
    "dead_letter_queue",
    "snapshots",
    schema.VERSION_TABLE,
)


class Counted(Projection):
    """Counts in a table that the migrator has made."""

    async def reset(self, connection):
        await connection.exec_driver_sql("DELETE FROM counted")

    @handles(OrderPlaced)
    async def placed(self, event, context):
        await context.connection.exec_driver_sql("INSERT INTO counted DEFAULT VALUES")


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
async def names(empty_postgres_url):
    """Three names that only correct quoting survives; a cluster has its roles in common, so they go again."""
    mark = uuid4().hex[:8]
    kinds = ("migrator", "writer", "reader")
    names = {kind: f"{kind} '1\" $do$; 50%s \\é {mark}" for kind in kinds}
    yield names
    existing = await rows(empty_postgres_url, "SELECT rolname FROM pg_roles")
    for name in names.values():
        if (name,) in existing:
            await execute(empty_postgres_url, f"DROP OWNED BY {quoted(name)}", f"DROP ROLE {quoted(name)}")


@pytest.fixture
async def as_role(empty_postgres_url, names):
    """The database's URL for one of the roles, once they exist."""
    for name in names.values():
        await execute(empty_postgres_url, f"CREATE ROLE {quoted(name)} LOGIN PASSWORD '{PASSWORD}'")
    url = make_url(empty_postgres_url)
    return lambda kind: url.set(username=names[kind], password=PASSWORD).render_as_string(hide_password=False)


async def session(url):
    return await asyncpg.connect(**dsn(make_url(url)))


@pytest.mark.parametrize("schema_name", ["public", 'the log\'s "own" 50%'])
async def test_from_an_empty_database_each_role_does_its_work_and_no_more(
    empty_postgres_url, names, as_role, schema_name, open_stores
):
    await create_roles(empty_postgres_url, schema=schema_name, **names)
    if schema_name != "public":  # as some harden their databases
        await execute(
            empty_postgres_url,
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(names['migrator'])} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        )
    await schema.upgrade(as_role("migrator"))
    await create_roles(empty_postgres_url, schema=schema_name, **names)
    migrator = await session(as_role("migrator"))
    await migrator.execute("CREATE TABLE counted (n serial)")

    # The writer: everything that services do.
    writer = await open_stores(as_role("writer"), outbox_enabled=True)  # with `initialize()`
    order = uuid4()
    await writer.append_events(order, "Order", several(3, order), 0)
    assert (await writer.get_events(order)).version == 3
    runner = ProjectionRunner(writer, Counted())
    await runner.run(live=False)
    await runner.rebuild()
    assert await migrator.fetchval("SELECT count(*) FROM counted") == 3
    async with Lease(writer, "mailer"), writer.subscribe(checkpoint="mailer", live=False) as subscription:
        async for stored in subscription:
            await subscription.save()
    await SnapshotStore(writer).save_snapshot(Snapshot(order, "Order", 3, {}))
    await SnapshotStore(writer).delete_snapshot(order, "Order")
    letters = DLQRepository(writer)
    await letters.add_failed_event(stored.event_id, "p", "OrderPlaced", {}, ValueError("x"))
    published = []

    class Publisher:
        async def publish(self, entry):
            published.append(entry.event_id)

    await OutboxRelay(writer, Publisher()).drain()
    assert len(published) == 3
    await OutboxRepository(writer).cleanup_published(0)

    # The reader: everything is there to be read.
    reader = await open_stores(as_role("reader"))
    assert [event.event_id async for event in reader.subscribe(0, live=False)]
    assert await DLQRepository(reader).get_failed_events()
    with pytest.raises(DatabaseReadOnlyError, match="as a role that may write"):
        await reader.append_events(order, "Order", [placed(order)])

    by_hand = await session(as_role("reader"))
    for table in (*OURS, "counted"):
        await by_hand.fetch(f"SELECT * FROM {table}")
        for forbidden in (
            f"INSERT INTO {table} DEFAULT VALUES",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"DROP TABLE {table}",
        ):
            with pytest.raises(DENIED):
                await by_hand.execute(forbidden)
    with pytest.raises(DENIED):
        await by_hand.execute("SELECT nextval('events_global_position_seq')")

    # Neither changes the schema, nor what is stored.
    for kind in ("writer", "reader"):
        other = await session(as_role(kind))
        for forbidden in (
            "UPDATE events SET payload = '{}'",
            "DELETE FROM events",
            f"UPDATE {schema.VERSION_TABLE} SET version_num = '0001'",
            "CREATE TABLE mine (n int)",
            "ALTER TABLE events ADD COLUMN mine int",
            "DROP INDEX idx_events_timestamp",
            "TRUNCATE snapshots",
            "SELECT setval('events_global_position_seq', 1)",
        ):
            with pytest.raises(DENIED):
                await other.execute(forbidden)
        await other.close()
    with pytest.raises(DatabaseReadOnlyError):
        await schema.downgrade(writer, "0002")
    assert await schema.current(reader) == schema.HEAD

    for connection in (migrator, by_hand):
        await connection.close()


async def test_the_writer_appends_to_a_log_of_a_row_that_nobody_but_the_migrator_sets(
    empty_postgres_url, names, as_role, open_stores
):
    await create_roles(empty_postgres_url, schema='the log\'s "own" 50%', **names)
    await schema.create_append_lock(as_role("migrator"))
    for _ in range(2):
        writer = await open_stores(as_role("writer"), append_lock="row")
        order = uuid4()
        await writer.append_events(order, "Order", several(3, order), 0)
        for kind in ("writer", "reader"):
            other = await session(as_role(kind))
            assert await other.fetchval("SELECT last_position FROM esource_append_lock") in (3, 6)
            for forbidden in (
                "UPDATE esource_append_lock SET last_position = 9",
                "DELETE FROM esource_append_lock",
                *(["SELECT esource_lock_positions()"] if kind == "reader" else []),
            ):
                with pytest.raises(DENIED):
                    await other.execute(forbidden)
            await other.close()
        await create_roles(empty_postgres_url, schema='the log\'s "own" 50%', **names)
    with pytest.raises(DatabaseReadOnlyError):
        await schema.drop_append_lock(as_role("writer"))
    assert (await writer.append_events(order, "Order", several(1, order), 3)).global_position == 7


async def test_the_tables_of_an_older_owner_go_over_to_the_migrator_who_upgrades_them(
    empty_postgres_url, names, as_role, open_stores
):
    await schema.upgrade(empty_postgres_url, "0001")
    await create_roles(empty_postgres_url, **names)

    await schema.upgrade(as_role("migrator"))
    writer = await open_stores(as_role("writer"))
    await writer.append_events((event := placed()).aggregate_id, "Order", [event])
    await schema.downgrade(as_role("migrator"), "0001")
    assert await schema.current(as_role("reader")) == "0001"


async def test_an_upgrade_with_roles_gives_nobody_else_the_index_of_the_tags_to_write(
    empty_postgres_url, names, as_role, open_stores
):
    await create_roles(empty_postgres_url, **names)
    await schema.upgrade(as_role("migrator"), "0003")
    await schema.upgrade(as_role("migrator"))
    writer = await open_stores(as_role("writer"))
    taken = AppendCondition(Query(QueryItem(tags=["name:x"])), 0)
    await writer.append([placed()], tags=["name:x"])

    by_hand = await session(as_role("writer"))
    for forbidden in (
        "INSERT INTO event_tags VALUES ('name:y', 1)",
        "UPDATE event_tags SET tag = 'name:y'",
        "DELETE FROM event_tags",
        "TRUNCATE event_tags",
    ):
        with pytest.raises(DENIED):
            await by_hand.execute(forbidden)
    await by_hand.close()
    with pytest.raises(AppendConditionError):
        await writer.append([placed()], condition=taken)


async def test_row_level_security_goes_over_to_the_migrator_and_nobody_rebinds_a_tenant(
    empty_postgres_url, names, as_role, open_stores
):
    await create_roles(empty_postgres_url, **names)
    await schema.upgrade(as_role("migrator"))
    await row_level_security.enable(as_role("migrator"))  # before the rights were narrowed, and again after
    for kind in ("writer", "reader"):
        other = await session(as_role(kind))
        for forbidden in ("SELECT * FROM esource_tenant_roles", "DELETE FROM esource_tenant_roles"):
            with pytest.raises(DENIED):
                await other.execute(forbidden)
        assert await other.fetch("SELECT * FROM events") == []
        await other.close()

    await create_roles(empty_postgres_url, **names)
    await row_level_security.enable(as_role("migrator"))
    for kind in ("writer", "reader"):
        await row_level_security.bind_role(as_role("migrator"), names[kind], None)
    writer, reader = await open_stores(as_role("writer")), await open_stores(as_role("reader"))
    tenant = uuid4()
    event = placed(tenant_id=tenant)
    await writer.append_events(event.aggregate_id, "Order", [event])
    assert (await reader.get_events(event.aggregate_id)).events == [event]
    await row_level_security.disable(as_role("migrator"))


async def test_the_script_makes_roles_that_may_log_in_once_they_have_a_password(empty_postgres_url, names):
    await execute(empty_postgres_url, role_script(**names))  # as psql would, all of it at once
    found = await rows(
        empty_postgres_url, "SELECT rolname, rolcanlogin, rolsuper, rolpassword FROM pg_authid"
    )
    assert {(name, True, False, None) for name in names.values()} <= set(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"writer": ""},
        {"writer": "public"},
        {"reader": "pg_read_all_data"},
        {"migrator": "x" * 64},
        {"reader": "esource_writer"},
        {"schema": "a\x00b"},
    ],
    ids=str,
)
def test_names_that_postgresql_would_take_for_something_else_are_refused(wrong):
    with pytest.raises(InvalidOptionError):
        role_script(**wrong)


async def test_sqlite_has_no_roles(sqlite_url):
    with pytest.raises(InvalidOptionError, match="PostgreSQL's"):
        await create_roles(sqlite_url)
