"""The versions of the schema: which one a database has, and how it gets to the newest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, inspect, select
from sqlalchemy.schema import CreateIndex, CreateTable

from esource.checks import shown
from esource.database.database import Database
from esource.database.sources import opened_database, require_whole
from esource.dialect.postgresql.row_level_security import DISABLE, ENABLE
from esource.errors import (
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SchemaUnmanagedError,
)
from esource.tables.model import events, indexes_of, metadata
from esource.tables.names import OUR_TABLES, VERSION_TABLE, is_ours
from esource.tables.statement import Statement

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003")
"""Every schema this library knows, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

TABLES = frozenset(OUR_TABLES)

ROW_LEVEL_SECURITY = {"on": ENABLE, "off": DISABLE}

_version_table = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),  # as Alembic makes it
)
_VERSION = Statement(select(_version_table.c.version_num))
_COLUMNS = {
    column.name: Statement(select(column).limit(1)) for column in events.columns if "since" not in column.info
}
_ANY_EVENT = Statement(select(events.c.global_position).limit(1))


def scripts() -> Path:
    """The folder of the Alembic environment: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("esource")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def alembic_config(url: str | None = None) -> Config:
    """An Alembic configuration of our scripts, for ``alembic.command``. No ini file is needed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """For the ``include_name`` of an application's Alembic: everything except our tables."""
    return not (type_ == "table" and name is not None and is_ours(name))


async def current(database: Any) -> str | None:
    """The schema version of a database (a store, an engine, a URL); None if it has none of ours.

    Raises:
        SchemaUnmanagedError: tables by our names are there without a version.
    """
    async with opened_database(database) as opened:
        return await _current(opened)


async def _current(database: Database) -> str | None:
    found = await _recorded(database)
    if found is not None:
        return found
    lacking = await _lacking(database)
    if lacking is None:
        return None
    # Another process may have created everything between the two looks: its version came with its tables.
    found = await _recorded(database)
    if found is None:
        raise SchemaUnmanagedError(database.name, lacking)
    return found


async def _lacking(database: Database) -> list[str] | None:
    """The columns of the first schema that the table of events has not; None if there is no such table."""
    lacking = []
    for name, look in _COLUMNS.items():
        try:
            await database.rows(look, {})
        except SchemaMissingError:  # noqa: PERF203 - each column has its own answer
            return None
        except SchemaOutdatedError:
            lacking.append(name)
    return lacking


async def _recorded(database: Database) -> str | None:
    """What the version table says; None if it is empty or absent."""
    try:
        rows = await database.rows(_VERSION, {})
    except SchemaMissingError:
        return None
    return str(rows[0][0]) if rows else None


async def _has_events(database: Database) -> bool:
    try:
        return bool(await database.rows(_ANY_EVENT, {}))
    except SchemaMissingError:
        return False


async def require_head(database: Any) -> None:
    """Refuse a database (a store, an engine, a URL) that is not at this library's schema. Changes nothing.

    Raises:
        SchemaMissingError: it has none of our tables.
        SchemaUnmanagedError: our tables are there without a version.
        SchemaOutdatedError: it is older.
        SchemaTooNewError: it is newer.
    """
    async with opened_database(database) as opened:
        found = await _current(opened)
        if found is None:
            raise SchemaMissingError(opened.name)
        if found not in REVISIONS:
            raise SchemaTooNewError(opened.name, found, HEAD)
        if found != HEAD:
            raise SchemaOutdatedError(opened.name, found, HEAD)


@asynccontextmanager
async def whole_store(source: Any, what: str, *, any_schema: bool = False) -> AsyncIterator[Database]:
    """The database behind a source, for work on everything that it holds, whoever's events these are.

    Args:
        source: a store, an engine, a URL.
        what: the work, for the error: "an export".
        any_schema: go on whatever the schema is.

    Raises:
        InvalidOptionError: the source is a store bound to a tenant.
        SchemaError: the tables are missing, older or newer.
    """
    require_whole(source, what)
    async with opened_database(source) as database:
        if not any_schema:
            await require_head(database)
        yield database


async def initialize(database: Database, *, upgrade: bool | None = None) -> None:
    """See `EventStore.initialize`."""
    found = await _current(database)
    if found == HEAD:
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
    await migrate(database, "upgrade", "head")


async def upgrade(database: Any, revision: str = "head") -> None:
    """Upgrade a database (a store, an engine, a URL) to a revision.

    Raises:
        SchemaUnmanagedError: our tables are there without a version; see `adopt`.
        SchemaTooNewError: the schema is newer than this library.
    """
    await _command(database, "upgrade", revision)


async def downgrade(database: Any, revision: str) -> None:
    """Take a database back to an older revision, keeping its data; ``base`` drops all our tables."""
    await _command(database, "downgrade", revision)


async def adopt(database: Any) -> None:
    """Take over a database that eventsource-py 0.4 or 0.5 wrote: record it as 0001, then upgrade.

    Make a backup first. All in one transaction: it is taken over whole, or left as it was.

    Raises:
        InvalidOptionError: the database is managed by esource already, or is not one of eventsource-py's:
            a table or a column is missing.
        SchemaMissingError: it is empty.
    """
    async with opened_database(database) as opened:
        await migrate(opened, "adopt", "head")


async def create_append_lock(database: Any) -> None:
    """Make the row that stores opened with ``append_lock="row"`` lock; may be repeated. It is a table of its own
    and no part of the schema's versions: drop it when no such store is left.

    Raises:
        InvalidOptionError: the database is not PostgreSQL.
    """
    async with opened_database(database) as opened:
        if not opened.backend.append_lock_script:
            raise InvalidOptionError(f"{opened.name} has one writer at a time: there is nothing to lock")
        await opened.run_script(opened.backend.append_lock_script)


async def _command(database: Any, command: str, revision: str) -> None:
    if not isinstance(revision, str) or not revision:
        raise InvalidOptionError(
            f"revision must be one of {', '.join(REVISIONS)}, head or base, not {shown(revision)}"
        )
    async with opened_database(database) as opened:
        found = await _current(opened)
        if found is not None and found not in REVISIONS:
            raise SchemaTooNewError(opened.name, found, HEAD)
        await migrate(opened, command, revision)


async def migrate(
    database: Database, command: str, revision: str, row_level_security: str | None = None
) -> None:
    """Run an Alembic command, and nothing beside it, in one transaction."""
    async with database.transaction() as unit:
        await database.backend.lock_schema(unit.connection)
        with database.backend.errors(database.name):
            await unit.connection.run_sync(_run_command, command, revision, database.name, row_level_security)


def _run_command(
    connection: Connection, command: str, revision: str, database: str, row_level_security: str | None
) -> None:
    from alembic import command as alembic

    config = alembic_config()
    config.attributes["connection"] = connection
    config.attributes["row_level_security"] = row_level_security
    if command == "adopt":
        _refuse_to_adopt(connection, database)
        alembic.stamp(config, "0001")
        command = "upgrade"
    getattr(alembic, command)(config, revision)


def _refuse_to_adopt(connection: Connection, database: str) -> None:
    """Refuse what is not a database of eventsource-py, while the lock keeps others from changing it."""
    found = inspect(connection)
    tables = set(found.get_table_names())
    if VERSION_TABLE in tables:
        version = connection.scalar(select(_version_table.c.version_num))
        if version is not None:
            raise InvalidOptionError(f"{database} is at schema {version} already: nothing to adopt")
    if not TABLES & tables:
        raise SchemaMissingError(database, "nothing to adopt")
    missing = sorted(TABLES - tables)
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
    """The statements that create the newest schema at once, for a private in-memory database.

    Twenty times faster than the scripts, which matters where every test has a database of its own; a
    test proves that both ways lead to the same schema.
    """
    dialect = database.backend.sqlalchemy_dialect
    tables = metadata.sorted_tables
    indexes = [index for table in tables for index in indexes_of(table)]
    return [
        *(str(CreateTable(table).compile(dialect=dialect)) for table in (*tables, _version_table)),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes),
        f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')",
    ]


def in_memory() -> Database:
    """A private database in memory that gets the newest schema when it is first used. No I/O."""
    database = Database.from_url("sqlite://")
    database.connections.set_option("on_connect", create_script(database))
    return database
