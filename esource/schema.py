"""Bringing a database to the newest schema, through the Alembic scripts in ``migrations/``.

The ways in:

- ``await store.initialize()``: a fresh database, or an older one on SQLite;
- ``alembic upgrade head``: from a checkout, or from anywhere with ``script_location = esource:migrations``;
- ``await esource.schema.upgrade(url)``: the same from a program;
- inside an application's own Alembic: add ``esource:migrations/versions`` to its ``version_locations``, or
  call `upgrade` from a deployment step. Give `include_name` to its ``context.configure``, so that
  autogenerate leaves our tables alone.

Every way runs the whole upgrade in one transaction under a lock: any number of processes may do it at
once, and a migration that dies leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, String, Table, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateIndex, CreateTable

from esource.database import Database
from esource.dialect import Statement, backend_for_url
from esource.errors import (
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SchemaUnmanagedError,
)
from esource.tables import events, metadata

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

VERSION_TABLE = "esource_alembic_version"
"""Alembic's version table for our scripts: an application's own `alembic_version` stays its own."""

REVISIONS = ("0001", "0002")
"""Every schema this library knows, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

TABLES = frozenset(metadata.tables)

_version_table = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), nullable=False))
_VERSION = Statement(select(_version_table.c.version_num))
_ANY_EVENT = Statement(select(events.c.global_position).limit(1))


def scripts() -> Path:
    """The folder of the Alembic environment: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("esource")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def alembic_config(url: str | None = None) -> Config:
    """An Alembic configuration of our scripts, for `alembic.command`. No ini file is needed."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def include_name(name: str | None, type_: str, parent_names: Any) -> bool:
    """For the ``include_name`` of an application's Alembic: everything except our tables."""
    return not (type_ == "table" and (name in TABLES or name == VERSION_TABLE))


# -- from a program ------------------------------------------------------------------------------


async def current(database: Any) -> str | None:
    """The schema version of a database (a store, an engine, a URL); None if it has none of ours.

    Raises:
        SchemaUnmanagedError: our tables are there without a version.
    """
    opened = Database.of(database)
    try:
        return await _current(opened)
    finally:
        if opened is not database and isinstance(database, str):
            await opened.close()


async def _current(database: Database) -> str | None:
    try:
        rows = await database.rows(_VERSION, {})
    except SchemaMissingError:
        rows = []
    if rows:
        return str(rows[0][0])
    if await _has_events(database) is None:
        return None
    raise SchemaUnmanagedError(database.name)


async def _has_events(database: Database) -> bool | None:
    """Whether there are events; None if there is no such table."""
    try:
        return bool(await database.rows(_ANY_EVENT, {}))
    except SchemaMissingError:
        return None


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
    await _migrate(database, "upgrade", "head")


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
        InvalidOptionError: the database is managed by esource already, or lacks one of the tables.
    """
    opened = Database.of(database)
    try:
        try:
            found = await _current(opened)
        except SchemaUnmanagedError:
            found = None
        else:
            if found is not None:
                raise InvalidOptionError(f"{opened.name} is at schema {found} already: nothing to adopt")
            raise SchemaMissingError(opened.name, "nothing to adopt")
        await _migrate(opened, "adopt", "head")
    finally:
        if opened is not database and isinstance(database, str):
            await opened.close()


async def _command(database: Any, command: str, revision: str) -> None:
    opened = Database.of(database)
    try:
        found = await _current(opened)
        if found is not None and found not in REVISIONS:
            raise SchemaTooNewError(opened.name, found, HEAD)
        await _migrate(opened, command, revision)
    finally:
        if opened is not database and isinstance(database, str):
            await opened.close()


async def _migrate(database: Database, command: str, revision: str) -> None:
    async with database.transaction() as unit:
        await database.backend.lock_schema(unit.connection)
        with database.backend.errors(database.name):
            await unit.connection.run_sync(_run_command, command, revision)


def _run_command(connection: Connection, command: str, revision: str) -> None:
    from alembic import command as alembic

    config = alembic_config()
    config.attributes["connection"] = connection
    if command == "adopt":
        missing = TABLES - set(inspect(connection).get_table_names())
        if missing:
            raise InvalidOptionError(
                f"tables are missing: {', '.join(sorted(missing))}. Nothing was changed."
            )
        alembic.stamp(config, "0001")
        command = "upgrade"
    getattr(alembic, command)(config, revision)


def create_script(database: Database) -> list[str]:
    """The statements that create the newest schema at once, for a private in-memory database.

    Twenty times faster than the scripts, which matters where every test has a database of its own; a
    test proves that both ways lead to the same schema.
    """
    dialect = database.backend.sqlalchemy_dialect
    tables = metadata.sorted_tables
    indexes = [index for table in tables for index in sorted(table.indexes, key=lambda i: str(i.name))]
    return [
        *(str(CreateTable(table).compile(dialect=dialect)) for table in (*tables, _version_table)),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in indexes),
        f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')",
    ]


# -- from Alembic --------------------------------------------------------------------------------


def run_migrations(context: Any) -> None:
    """What ``migrations/env.py`` does, however Alembic was started."""
    config = context.config
    connection = config.attributes.get("connection")
    if connection is not None:
        _run_on(connection, context)
        return
    arguments = context.get_x_argument(as_dictionary=True)
    url = arguments.get("url") or os.environ.get("ESOURCE_URL") or config.get_main_option("sqlalchemy.url")
    if not url:
        raise InvalidOptionError(
            "no database: pass `alembic -x url=sqlite:///events.db …`, set ESOURCE_URL, or set "
            "sqlalchemy.url in alembic.ini"
        )
    if context.is_offline_mode():
        context.configure(dialect_name=backend_for_url(make_url(url)).name, literal_binds=True, **_options())
        with context.begin_transaction():
            context.run_migrations()
        return
    asyncio.run(_run_on_url(url, context))


async def _run_on_url(url: str, context: Any) -> None:
    database = Database.from_url(url)
    try:
        async with database.transaction() as unit:
            await database.backend.lock_schema(unit.connection)
            with database.backend.errors(database.name):
                await unit.connection.run_sync(_run_on, context)
    finally:
        await database.close()


def _run_on(connection: Connection, context: Any) -> None:
    context.configure(connection=connection, **_options())
    with context.begin_transaction():
        context.run_migrations()


def _options() -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "version_table": VERSION_TABLE,
        "render_as_batch": True,
        "include_name": lambda name, type_, parent_names: (
            not include_name(name, type_, parent_names) or type_ != "table"
        ),
    }


def record_revision(op: Any, revision: str | None) -> None:
    """Keep `VERSION_TABLE` true when our scripts run inside an application's own Alembic, whose version
    table is another: the store looks only into ours."""
    migration = op.get_context()
    if migration.version_table == VERSION_TABLE:
        return
    op.execute(f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
    op.execute(f"DELETE FROM {VERSION_TABLE}")
    if revision is not None:
        op.execute(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{revision}')")
