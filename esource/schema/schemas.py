"""Several logs in one PostgreSQL database, each in a schema of its own: list them, and drop one.

A store names its schema in the URL (``?schema=tenant_7``) or with the option ``schema``. The first migration makes it:
``await store.initialize()``, ``await esource.schema.upgrade(url)``, ``alembic upgrade head``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.database import Database
from esource.database.sources import Source, opened_database
from esource.dialect.moving import LOCK_SECONDS
from esource.dialect.postgresql import schemas as sql
from esource.dialect.postgresql.quoting import check_schema
from esource.errors import InvalidOptionError, SchemaMissingError
from esource.schema.revisions import version_of


@dataclass(frozen=True, slots=True)
class LogSchema:
    """A schema with a log in it."""

    name: str
    version: str
    """The revision of its tables."""
    position: int
    """The global position of its last event; 0 if it has none."""
    bytes: int
    """How much its tables and indexes take, those of the application included."""


async def log_schemas(database: Source) -> list[LogSchema]:
    """The logs of a database (a store, an engine, a URL), by the names of their schemas.

    Only those that the connected role may read.

    Raises:
        InvalidOptionError: the database has no schemas.
    """
    async with opened_database(database) as opened:
        _require_support(opened)
        found = []
        for (name,) in await _fetched(opened, sql.LOGS):
            try:
                [(version, position, size)] = await _fetched(opened, sql.about(name))
            except SchemaMissingError:  # it was dropped meanwhile, or taken back to no tables
                continue
            if version is not None:
                found.append(LogSchema(name, version_of(version), position, size))
        return found


async def has_schema(database: Source, name: str) -> bool:
    """Whether a database (a store, an engine or a URL) has a schema of this name."""
    async with opened_database(database) as opened:
        _require_support(opened)
        [(found,)] = await opened.inspect(partial(opened.backend.fetch, text=sql.IS_THERE, arguments=(name,)))
        return bool(found)


async def drop_schema(database: Source, name: str, *, everything: bool = False) -> None:
    """Drop a schema and the empty log in it, in one transaction.

    Args:
        database: a store, an engine or a URL; of the role that owns the schema.
        name: the schema.
        everything: drop it also if it holds events or objects of the application. Views and foreign keys in other schemas
            that refer to these go, too.

    Raises:
        InvalidOptionError: it holds events or other objects, and ``everything`` was not said; it has no log; it is
            ``public``; it is not there; the database has no schemas.
        DatabaseBusyError: a transaction held on to the log for ten seconds.
        DatabaseReadOnlyError: the role does not own the schema.
    """
    check_schema(name)
    async with opened_database(database) as opened:
        _require_support(opened)
        async with opened.transaction() as unit:
            with opened.backend.errors(opened.name):
                await _drop(unit.connection, opened.name, name, everything)


async def _drop(connection: AsyncConnection, database: str, name: str, everything: bool) -> None:
    async def ask(statement: str) -> list[Any]:
        return list((await connection.exec_driver_sql(statement, (name,))).scalars())

    if name == "public":
        raise InvalidOptionError(
            f"{database}: public is not the schema of a log alone. `esource downgrade base` drops the tables of a log"
        )
    if await ask(sql.IS_THERE) == [False]:
        raise InvalidOptionError(f"{database} has no schema {name!r}")
    await ask(sql.LOCK_MIGRATIONS)
    if await ask(sql.HAS_LOG) == [False] and await ask(sql.IS_EMPTY) == [False]:
        raise InvalidOptionError(f"{database}: the schema {name!r} has no log in it. Nothing was dropped")
    held = others = await ask(sql.OTHER_OBJECTS)
    if await ask(sql.HAS_EVENTS) == [True]:
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        await connection.exec_driver_sql(sql.lock(name))
        last = (await connection.exec_driver_sql(sql.last_position(name))).scalar_one()
        held = [f"events up to global position {last}"] * bool(last) + others
    if held and not everything:
        raise InvalidOptionError(
            f"{database}: the schema {name!r} holds {', '.join(held)}. Nothing was dropped. `everything` "
            "(`--everything`) drops that, too"
        )
    await connection.exec_driver_sql(sql.drop(name))


async def _fetched(database: Database, statement: str) -> list[Any]:
    return await database.inspect(partial(database.backend.fetch, text=statement, arguments=()))


def _require_support(database: Database) -> None:
    if not database.backend.supports_schemas:
        raise InvalidOptionError(f"schemas are PostgreSQL's, and this is {database.name}")
