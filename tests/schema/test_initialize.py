"""What `initialize()` and `upgrade()` do to every kind of database they can meet."""

import asyncio
import shutil
import signal
import sys
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from support.orders import placed, several
from support.schemas import described, execute, rows, run_at_once

from esource import OutboxRepository, open_store, schema
from esource.errors import (
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SchemaUnmanagedError,
)
from esource.schema import versions

INITIALIZE = """
import asyncio, sys
from uuid import uuid4
from esource import DomainEvent, open_store, register_event

@register_event
class Noted(DomainEvent):
    event_type: str = "Noted"
    aggregate_type: str = "Note"

async def main():
    async with open_store(sys.argv[1], busy_timeout=30000) if sys.argv[1].startswith("sqlite") \
            else open_store(sys.argv[1]) as store:
        if sys.argv[2:] == ["upgrade"]:
            await store.initialize(upgrade=True)
        else:
            await store.initialize()
        note = uuid4()
        await store.append_events(note, "Note", [Noted(aggregate_id=note)], 0)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


async def at_revision(url: str, revision: str, *, with_data: bool = True) -> None:
    await schema.upgrade(url, revision)
    if with_data:
        await execute(
            url,
            "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload)"
            f" VALUES ('{uuid4()}', '{uuid4()}', 'Order', 'OrderPlaced', 1, '2025-03-01T12:00:00+00:00', "
            """'{"customer_id": "c-1", "total": 1.0}')""",
        )


async def test_initialize_can_be_repeated(shared_store, shared_database_url):
    order = uuid4()
    await shared_store.append_events(order, "Order", [placed(order)], 0)
    before = await described(shared_database_url)

    await shared_store.initialize()
    await shared_store.initialize(upgrade=True)

    assert await described(shared_database_url) == before
    assert await shared_store.get_stream_version(order, "Order") == 1


@pytest.mark.slow
async def test_many_processes_initialize_a_fresh_database_at_once(empty_database_url, tmp_path):
    await run_at_once(INITIALIZE, [[empty_database_url]] * 6, tmp_path)

    assert await rows(empty_database_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [
        (f"esource_{schema.HEAD}",)
    ]
    assert await rows(empty_database_url, "SELECT count(*) FROM events") == [(6,)]


ONE_OF_THREE_WAYS = """
import asyncio, os, sys
from alembic.config import main
from esource import open_store, schema

async def initialize():
    async with open_store(sys.argv[1]) as store:
        await store.initialize(upgrade=True)

print("ready", flush=True)
sys.stdin.readline()
if sys.argv[2] == "initialize":
    asyncio.run(initialize())
elif sys.argv[2] == "upgrade":
    asyncio.run(schema.upgrade(sys.argv[1]))
else:
    main(["-c", sys.argv[3], "-x", "url=" + sys.argv[1], "upgrade", "head"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("found", [None, "0001"], ids=["fresh", "older"])
async def test_a_store_a_program_and_alembic_migrate_one_database_at_once(
    empty_database_url, tmp_path, found
):
    if found is not None:
        await at_revision(empty_database_url, found)
    (tmp_path / "alembic.ini").write_text(f"[alembic]\nscript_location = {schema.scripts()}\n")
    ways = ("initialize", "upgrade", "alembic")

    await run_at_once(
        ONE_OF_THREE_WAYS,
        [[empty_database_url, way, str(tmp_path / "alembic.ini")] for way in ways],
        tmp_path,
    )

    assert await rows(empty_database_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [
        (f"esource_{schema.HEAD}",)
    ]
    assert await rows(empty_database_url, "SELECT count(*) FROM events") == [(0 if found is None else 1,)]


@pytest.mark.slow
async def test_many_processes_upgrade_an_older_database_at_once(empty_database_url, tmp_path):
    await at_revision(empty_database_url, "0001")

    await run_at_once(INITIALIZE, [[empty_database_url, "upgrade"]] * 4, tmp_path)

    assert await rows(empty_database_url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [
        (f"esource_{schema.HEAD}",)
    ]
    assert await rows(empty_database_url, "SELECT count(*) FROM events") == [(5,)]


async def test_many_stores_initialize_a_fresh_database_at_once(empty_database_url):
    stores = [open_store(empty_database_url, enable_tracing=False) for _ in range(10)]
    try:
        await asyncio.gather(*(store.initialize() for store in stores))
        orders = [uuid4() for _ in stores]
        await asyncio.gather(
            *(
                store.append_events(order, "Order", [placed(order)], 0)
                for store, order in zip(stores, orders, strict=True)
            )
        )
        assert await stores[0].get_global_position() == 10
    finally:
        for store in stores:
            await store.close()


async def test_an_older_schema_that_lacks_a_column_names_the_command_that_upgrades(empty_database_url):
    await at_revision(empty_database_url, "0001")
    outdated = pytest.raises(SchemaOutdatedError, match=r"alembic upgrade head.*initialize\(upgrade=True\)")
    order = uuid4()
    async with open_store(empty_database_url, outbox_enabled=True) as store:
        with outdated:
            await store.append_events(order, "Order", [placed(order)], 0)
        with outdated:
            await OutboxRepository(store).get_pending_events()
        with outdated:
            async with store.transaction():
                await store.append_events(order, "Order", [placed(order)], 0)
        assert await store.get_stream_version(order, "Order") == 0

        await store.initialize(upgrade=True)
        await store.append_events(order, "Order", [placed(order)], 0)


@pytest.mark.parametrize("length", [1, 12])
async def test_an_older_schema_takes_no_events_even_if_they_have_nothing_for_the_column_that_it_lacks(
    empty_database_url, length
):
    await at_revision(empty_database_url, "0003", with_data=False)
    order = uuid4()
    async with open_store(empty_database_url) as store:
        with pytest.raises(SchemaOutdatedError):
            await store.append_events(order, "Order", several(length, order), 0)


async def test_tables_that_appear_between_two_looks_are_not_taken_for_foreign_ones(
    empty_database_url, monkeypatch
):
    """Another process creates everything after we saw no version and before we look for tables."""
    lacking = versions._lacking

    async def created_meanwhile(database):
        monkeypatch.setattr(versions, "_lacking", lacking)
        await schema.upgrade(empty_database_url)
        return await lacking(database)

    monkeypatch.setattr(versions, "_lacking", created_meanwhile)

    assert await schema.current(empty_database_url) == schema.HEAD


# -- older and newer ---------------------------------------------------------------------------------


async def test_an_older_sqlite_file_is_upgraded_unasked(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await at_revision(url, "0001")

    async with open_store(url, enable_tracing=False) as store:
        await store.initialize()
        [stored] = [stored async for stored in store.read_all()]

    assert stored.event.customer_id == "c-1"
    assert await schema.current(url) == schema.HEAD


async def test_an_older_postgresql_database_with_data_is_upgraded_only_when_asked(empty_postgres_url):
    await at_revision(empty_postgres_url, "0001")

    async with open_store(empty_postgres_url, enable_tracing=False) as store:
        with pytest.raises(SchemaOutdatedError, match="alembic upgrade head") as refused:
            await store.initialize()
        assert (refused.value.found, refused.value.head) == ("0001", schema.HEAD)
        assert await schema.current(store) == "0001"
        await store.initialize(upgrade=True)
        [stored] = [stored async for stored in store.read_all()]

    assert stored.event.customer_id == "c-1"
    assert await schema.current(empty_postgres_url) == schema.HEAD


async def test_an_older_database_without_data_is_upgraded_unasked(empty_database_url):
    await at_revision(empty_database_url, "0001", with_data=False)

    async with open_store(empty_database_url, enable_tracing=False) as store:
        await store.initialize()

    assert await schema.current(empty_database_url) == schema.HEAD


@pytest.mark.parametrize(
    ("statement", "named", "renamed"),
    [
        (
            "CREATE TABLE event_tags (n integer)",
            "the table event_tags",
            "ALTER TABLE event_tags RENAME TO other",
        ),
        (
            "CREATE TABLE tag_fillings (n integer)",
            "the table tag_fillings",
            "ALTER TABLE tag_fillings RENAME TO other",
        ),
        ("CREATE VIEW event_tags AS SELECT 1 AS n", "the view event_tags", "DROP VIEW event_tags"),
        (
            "ALTER TABLE events ADD COLUMN tags text",
            "the column events.tags",
            "ALTER TABLE events RENAME COLUMN tags TO other",
        ),
    ],
)
async def test_what_an_application_has_by_a_new_name_of_ours_is_named_and_nothing_is_changed(
    empty_database_url, statement, named, renamed
):
    await at_revision(empty_database_url, "0003")
    await execute(empty_database_url, statement)
    before = await described(empty_database_url)

    async with open_store(empty_database_url, enable_tracing=False) as store:
        for refused in (store.initialize(upgrade=True), schema.upgrade(store)):
            with pytest.raises(InvalidOptionError, match=f"{named} would be in the way.* Rename"):
                await refused
        assert await described(empty_database_url) == before
        assert await schema.current(store) == "0003"

        await execute(empty_database_url, renamed)
        await store.initialize(upgrade=True)
        assert await schema.current(store) == schema.HEAD


async def test_a_fresh_log_beside_an_applications_table_of_that_name_is_refused(empty_database_url):
    await execute(empty_database_url, "CREATE TABLE event_tags (n integer)")

    async with open_store(empty_database_url, enable_tracing=False) as store:
        with pytest.raises(InvalidOptionError, match="the table event_tags would be in the way"):
            await store.initialize()
        assert await schema.current(store) is None


async def test_an_upgrade_can_be_forbidden(empty_database_url):
    await at_revision(empty_database_url, "0001", with_data=False)

    async with open_store(empty_database_url, enable_tracing=False) as store:
        with pytest.raises(SchemaOutdatedError):
            await store.initialize(upgrade=False)

    assert await schema.current(empty_database_url) == "0001"


async def test_a_newer_database_is_refused(shared_database_url):
    async with open_store(shared_database_url, enable_tracing=False) as store:
        await store.initialize()
    await execute(shared_database_url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")

    async with open_store(shared_database_url, enable_tracing=False) as store:
        for refused in (
            store.initialize(),
            store.initialize(upgrade=True),
            schema.upgrade(store),
            schema.downgrade(store, "0001"),
        ):
            with pytest.raises(SchemaTooNewError, match="pip install --upgrade esource") as error:
                await refused
            assert (error.value.found, error.value.head) == ("9999", schema.HEAD)


async def test_tables_without_a_version_are_refused(shared_database_url):
    async with open_store(shared_database_url, enable_tracing=False) as store:
        await store.initialize()
    await execute(shared_database_url, f"DROP TABLE {schema.VERSION_TABLE}")
    before = await described(shared_database_url)

    async with open_store(shared_database_url, enable_tracing=False) as store:
        for refused in (store.initialize(), schema.upgrade(store), schema.current(store)):
            with pytest.raises(SchemaUnmanagedError, match="alembic stamp esource_0001"):
                await refused

    assert await described(shared_database_url) == before


async def test_without_tables_every_use_names_both_ways_to_make_them(empty_database_url):
    order = uuid4()
    async with open_store(empty_database_url, enable_tracing=False) as store:
        for use in (
            store.append_events(order, "Order", [placed(order)], 0),
            store.get_events(order, "Order"),
            store.event_exists(order),
            store.get_global_position(),
        ):
            with pytest.raises(SchemaMissingError) as error:
                await use
            assert "store.initialize()" in str(error.value)
            assert "alembic upgrade head" in str(error.value)


# -- from a program ------------------------------------------------------------------------------------


async def test_upgrade_takes_a_store_an_engine_a_session_factory_or_a_url(empty_database_url):
    url = empty_database_url
    driver = "sqlite+aiosqlite" if url.startswith("sqlite") else "postgresql+asyncpg"
    engine = create_async_engine(url.replace(url.split(":")[0], driver, 1))
    store = open_store(url, enable_tracing=False)
    for source in (url, store, engine, async_sessionmaker(engine)):
        await schema.upgrade(source)
        assert await schema.current(source) == schema.HEAD
        await schema.downgrade(source, "base")
        assert await schema.current(source) is None

    assert store.is_connected
    await store.close()
    async with engine.connect() as connection:  # the engine is its owner's, and still works
        await connection.exec_driver_sql("SELECT 1")
    await engine.dispose()


# -- a migration that dies -------------------------------------------------------------------------------

KILLED = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from esource import schema

statements = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, parameters, context, executemany):
    global statements
    statements += 1
    if statements == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(schema.upgrade(sys.argv[1]))
print(statements)
"""


@pytest.mark.slow
async def test_on_sqlite_a_migration_that_is_killed_leaves_the_old_schema_and_its_rows(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await at_revision(url, "0001")
    for n in range(50):
        await execute(
            url,
            f"INSERT INTO snapshots (aggregate_id, aggregate_type, version, state) VALUES ('{n}', 'T', 1, '{{}}')",
        )
    before = (
        await described(url),
        await rows(url, "SELECT * FROM events"),
        await rows(url, "PRAGMA page_count"),
    )
    copy = tmp_path / "whole.db"
    shutil.copy(tmp_path / "events.db", copy)  # whole: the last connection has emptied the log
    finished = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, f"sqlite:///{copy}", "0", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    statements = int((await finished.communicate())[0])
    assert statements > 50

    for last in range(5, statements + 1, 15):
        killed = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, url, str(last), cwd=tmp_path
        )
        assert await killed.wait() == -signal.SIGKILL

        after = (
            await described(url),
            await rows(url, "SELECT * FROM events"),
            await rows(url, "PRAGMA page_count"),
        )
        assert after == before
        assert await rows(url, "PRAGMA integrity_check") == [("ok",)]

    await schema.upgrade(url)
    assert await schema.current(url) == schema.HEAD


async def test_on_postgresql_a_migration_that_is_killed_leaves_the_old_schema(empty_postgres_url, tmp_path):
    await at_revision(empty_postgres_url, "0001")
    before = await described(empty_postgres_url)

    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, empty_postgres_url, "20", cwd=tmp_path
    )
    assert await killed.wait() == -signal.SIGKILL

    await schema.upgrade(empty_postgres_url)  # waits until the server has noticed
    await schema.downgrade(empty_postgres_url, "0001")
    assert await described(empty_postgres_url) == before
