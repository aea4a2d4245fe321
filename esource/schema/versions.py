"""Which version of the schema a database has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from sqlalchemy import Column, MetaData, PrimaryKeyConstraint, String, Table, select

from esource.database.database import Database
from esource.database.sources import Source, opened_database, require_whole
from esource.errors import (
    SchemaMissingError,
    SchemaOutdatedError,
    SchemaTooNewError,
    SchemaUnmanagedError,
)
from esource.schema.revisions import HEAD, REVISIONS, version_of
from esource.tables.model import events, metadata
from esource.tables.names import VERSION_TABLE
from esource.tables.statement import Statement

version_table = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),  # as Alembic makes it
)
_VERSION = Statement(select(version_table.c.version_num))
_COLUMNS = {
    column.name: Statement(select(column).limit(1)) for column in events.columns if "since" not in column.info
}


async def current(database: Source) -> str | None:
    """The schema version of a database (a store, an engine, a URL); None if it has none of ours.

    Raises:
        SchemaUnmanagedError: tables by our names are there without a version.
    """
    async with opened_database(database) as opened:
        return await current_of(opened)


async def current_of(database: Database) -> str | None:
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
    return version_of(str(rows[0][0])) if rows else None


async def require_head(database: Source, *, tables: bool = True) -> None:
    """Refuse a database (a store, an engine, a URL) that is not at this library's schema. Changes nothing.

    Raises:
        SchemaMissingError: it has none of our tables, or (with ``tables``) lacks one.
        SchemaUnmanagedError: our tables are there without a version.
        SchemaOutdatedError: it is older.
        SchemaTooNewError: it is newer.
    """
    async with opened_database(database) as opened:
        found = await current_of(opened)
        if found is None:
            raise SchemaMissingError(opened.name)
        if found not in REVISIONS:
            raise SchemaTooNewError(opened.name, found, HEAD)
        if found != HEAD:
            raise SchemaOutdatedError(opened.name, found, HEAD)
        if tables:
            await require_tables(opened, found)


async def require_tables(database: Database, version: str) -> None:
    """Refuse a database whose version says that our tables are there, and some are not.

    Raises:
        SchemaMissingError: it names the tables.
    """
    known = [
        name
        for name, table in metadata.tables.items()
        if version not in REVISIONS or table.info.get("since", REVISIONS[0]) <= version
    ]
    missing = await database.inspect(partial(database.backend.missing_tables, known))
    if missing:
        raise SchemaMissingError(database.name, ", ".join(missing), version=version)


@asynccontextmanager
async def whole_store(source: Source, what: str, *, any_schema: bool = False) -> AsyncIterator[Database]:
    """The database behind a source, for work on the events of all tenants.

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
