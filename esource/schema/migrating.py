"""Bringing a database from one version of the schema to another, from a program."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, inspect, select, update
from sqlalchemy.schema import CreateIndex, CreateTable

from esource.checks import shown
from esource.database.database import Database
from esource.database.sources import Source, opened_database
from esource.dialect.postgresql.positions import other_append_lock
from esource.dialect.postgresql.row_level_security import DISABLE, ENABLE
from esource.dialect.urls import inspection_of
from esource.errors import (
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
)
from esource.schema.revisions import HEAD, REVISIONS, TABLES, comparison_options, script_id, steps, version_of
from esource.schema.versions import current_of, require_tables, version_table
from esource.tables.model import events, indexes_of, metadata
from esource.tables.names import VERSION_TABLE
from esource.tables.statement import Statement

logger = logging.getLogger("esource")

ROW_LEVEL_SECURITY = {"on": ENABLE, "off": DISABLE}

_CREATE_SCRIPTS: dict[str, list[str]] = {}
"""By the name of the database: it takes longer to make the statements than to run them."""

_ANY_EVENT = Statement(select(events.c.global_position).limit(1))


async def initialize(
    database: Database, *, upgrade: bool | None = None, like: Database | None = None
) -> None:
    """See `EventStore.initialize`. Tables that are made draw their positions as those of another database do, if one is given."""
    found = await current_of(database)
    if found == HEAD:
        await require_tables(database, found)
        symptom = await database.inspect(inspection_of(database.backend).counter)
        if symptom is not None:
            logger.error("%s: %s", database.name, symptom)
        return
    if found is not None:
        if found not in REVISIONS:
            raise SchemaTooNewError(database.name, found, HEAD)
        allowed = database.backend.migrates_unasked or not await _has_events(database)
        if upgrade is False or (upgrade is None and not allowed):
            raise SchemaOutdatedError(database.name, found, HEAD)
    elif database.connections.is_private:
        await database.run_script(create_script(database))
        return
    await migrate(database, "upgrade", "head", is_new=found is None)
    if found is None and like is not None and database.backend.append_lock_scripts:
        way = await like.inspect(like.backend.append_lock_of)
        if way != "advisory":
            await _draw_positions(database, way)


async def settle_append_lock(database: Database) -> None:
    """Refuse a log that draws its positions in another way than a store was opened for. In an empty log the row is made.
    A store that only reads is for any log.

    Raises:
        InvalidOptionError: it does, and holds events or has the row.
    """
    backend = database.backend
    if not backend.append_lock_scripts or database.connections.only_read:
        return
    if await database.inspect(backend.append_lock_of) == backend.append_lock:
        return
    if backend.append_lock == "advisory" or await _has_events(database):
        raise other_append_lock(database.name, backend.append_lock)
    await _draw_positions(database, backend.append_lock)


async def _has_events(database: Database) -> bool:
    try:
        return bool(await database.rows(_ANY_EVENT, {}))
    except SchemaMissingError:
        return False


async def upgrade(database: Source, revision: str = "head") -> None:
    """Upgrade a database (a store, an engine, a URL) to a revision.

    Raises:
        SchemaUnmanagedError: our tables are there without a version; see `adopt`.
        SchemaTooNewError: the schema is newer than this library.
        InvalidOptionError: it would lose or meet something of the application's, which the error names.
    """
    await _command(database, "upgrade", revision)


async def downgrade(database: Source, revision: str) -> None:
    """Take a database back to an older revision, keeping its data; ``base`` drops all our tables."""
    await _command(database, "downgrade", revision)


async def adopt(database: Source) -> None:
    """Take over a database that eventsource-py 0.4 or 0.5 wrote: record it as 0001, then upgrade.

    Make a backup first. All in one transaction: it is taken over whole, or left as it was.

    Raises:
        InvalidOptionError: the database is managed by esource already, or is not one of eventsource-py's:
            a table or a column is missing.
        SchemaMissingError: it is empty.
    """
    async with opened_database(database) as opened:
        await migrate(opened, "adopt", "head")


async def create_append_lock(database: Source) -> None:
    """Let a log draw its positions from a row that the appends lock, for stores with ``append_lock="row"``.

    The row goes on where the sequence has come to. It is in a table of its own, and no part of the schema's versions. From then
    on stores without that option are refused. An empty database gets the tables. May be repeated: if the row is lost or behind
    the log, it is made anew. Waits up to 10 s for the transactions that use the log, and keeps others waiting meanwhile.

    Raises:
        InvalidOptionError: the database is not PostgreSQL.
        SchemaError: the tables are older or newer than this library's.
        DatabaseBusyError: a transaction uses the log for longer. Nothing was changed.
        DatabaseReadOnlyError: the connected role does not own the tables.
    """
    await _switch_append_lock(database, "row")


async def drop_append_lock(database: Source) -> None:
    """Let a log draw its positions from its sequence again, and drop the row. The sequence goes on where the row has come to.

    Stores with ``append_lock="row"`` are refused from then on. May be repeated. Raises what `create_append_lock` raises.
    """
    await _switch_append_lock(database, "advisory")


async def _switch_append_lock(database: Source, way: str) -> None:
    async with opened_database(database) as opened:
        if not opened.backend.append_lock_scripts:
            raise InvalidOptionError(f"{opened.name} has one writer at a time: there is nothing to lock")
        await initialize(opened)
        await _draw_positions(opened, way)


async def _draw_positions(database: Database, way: str) -> None:
    async with database.transaction(changes_schema=True) as unit:
        with database.backend.errors(database.name):
            await database.backend.lock_schema(unit.connection, database.schema)
            for statement in database.backend.append_lock_scripts[way]:
                await unit.connection.exec_driver_sql(statement)


async def _command(database: Source, command: str, revision: str) -> None:
    if not isinstance(revision, str) or not revision:
        raise InvalidOptionError(
            f"revision must be one of {', '.join(REVISIONS)}, head or base, not {shown(revision)}"
        )
    async with opened_database(database) as opened:
        found = await current_of(opened)
        if found is not None and found not in REVISIONS:
            raise SchemaTooNewError(opened.name, found, HEAD)
        if found is not None and command == "upgrade":
            await require_tables(opened, found)
        await migrate(opened, command, revision)


async def migrate(
    database: Database,
    command: str,
    revision: str,
    row_level_security: str | None = None,
    *,
    is_new: bool = False,
) -> None:
    """Run an Alembic command, and nothing beside it, in one transaction. Where the newest schema is wanted in a new database,
    which has no table at all, SQLite makes it without the scripts."""
    async with database.transaction(changes_schema=True) as unit:
        with database.backend.errors(database.name):
            await database.backend.lock_schema(unit.connection, database.schema)
            if is_new and database.backend.creates_at_once:
                script = create_script(database)
                if await unit.connection.run_sync(_run_if_empty, script):
                    return
            await unit.connection.run_sync(_run_command, command, revision, database.name, row_level_security)


def _run_if_empty(connection: Connection, script: Sequence[str]) -> bool:
    found = inspect(connection)
    if found.get_table_names() or found.get_view_names():
        return False
    for statement in script:
        connection.exec_driver_sql(statement)
    return True


def _run_command(
    connection: Connection, command: str, revision: str, database: str, row_level_security: str | None
) -> None:
    if command == "adopt":
        _refuse_to_adopt(connection, database)
        _run_steps(connection, steps("stamp", REVISIONS[0]))
        command = "upgrade"
    _run_steps(connection, steps(command, revision))
    for statement in () if row_level_security is None else ROW_LEVEL_SECURITY[row_level_security]:
        connection.exec_driver_sql(statement)


def _run_steps(connection: Connection, wanted: Callable[[Any, Any], Any]) -> None:
    """Run scripts on a connection. Other tasks may migrate other databases meanwhile."""
    from alembic.runtime.migration import MigrationContext
    from alembic.util import CommandError

    from esource.schema.operations import running

    rename_old_ids(connection)
    migration = MigrationContext.configure(connection, opts={**comparison_options(), "fn": wanted})
    try:
        with migration.begin_transaction(), running(migration):
            migration.run_migrations()
    except CommandError as error:
        raise InvalidOptionError(f"{error}") from error


def rename_old_ids(connection: Connection) -> None:
    """Bring the version table of a database up to date whose version was written before the ids had a prefix."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return
    column = version_table.c.version_num
    found = connection.scalar(select(column))
    if found in REVISIONS:
        connection.execute(update(version_table).values({column: script_id(found)}))


def _refuse_to_adopt(connection: Connection, database: str) -> None:
    """Refuse what is not a database of eventsource-py, while the lock keeps others from changing it."""
    found = inspect(connection)
    tables = set(found.get_table_names())
    if VERSION_TABLE in tables:
        version = connection.scalar(select(version_table.c.version_num))
        if version is not None:
            raise InvalidOptionError(
                f"{database} is at schema {version_of(version)} already: nothing to adopt"
            )
    if not TABLES & tables:
        raise SchemaMissingError(database, "nothing to adopt")
    missing = sorted(name for name in TABLES - tables if "since" not in metadata.tables[name].info)
    for table in metadata.sorted_tables:
        if table.name in tables:
            columns = {column["name"] for column in found.get_columns(table.name)}
            missing += [
                f"{table.name}.{column.name}"
                for column in table.columns
                if column.name not in columns and "since" not in column.info
            ]
    if missing:
        raise InvalidOptionError(
            f"{database} was not written by eventsource-py 0.4 or 0.5: it lacks {', '.join(missing)}. "
            "Nothing was changed."
        )


def create_script(database: Database) -> list[str]:
    """The statements that create the newest schema at once, in memory or in a new file.

    Twenty times faster than the scripts, which matters where every test or every tenant has a database of its own; a
    test proves that both ways lead to the same schema.
    """
    dialect = database.backend.sqlalchemy_dialect
    if dialect.name not in _CREATE_SCRIPTS:
        _CREATE_SCRIPTS[dialect.name] = _create_script(dialect, database.backend.tag_triggers)
    return list(_CREATE_SCRIPTS[dialect.name])


def _create_script(dialect: Dialect, triggers: Sequence[str]) -> list[str]:
    tables = metadata.sorted_tables
    indexes = [index for table in tables for index in indexes_of(table)]
    return [
        *(str(CreateTable(table).compile(dialect=dialect)) for table in (*tables, version_table)),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes),
        *triggers,
        f"INSERT INTO {VERSION_TABLE} VALUES ('{script_id(HEAD)}')",
    ]


def in_memory() -> Database:
    """A private database in memory that gets the newest schema when it is first used. No I/O."""
    database = Database.from_url("sqlite://")
    database.connections.set_option("on_connect", create_script(database))
    return database
