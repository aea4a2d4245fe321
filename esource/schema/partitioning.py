"""A log in parts, on PostgreSQL: for logs so large that one table's backups, indexes and vacuum have become work.

Optional, and no part of the schema's versions: `partition` makes a partitioned table of `events`, `merge` a plain one
again. Parts are ranges of positions. `begin_partition`, called by a job at the start of each month, closes the open
part and begins the next. Readers of the log touch only the parts that their positions are in.

All promises stay: an id is stored once, two appends with one expected version do not both win, positions are in
order. It costs each append a second row, and a look into every part for the version of its stream: few large parts,
not many small ones. ``docs/growth.md`` has figures.

`detach` takes an old part out of the log, as a table of its own: to be dumped, dropped or kept elsewhere; `attach` brings it
back. Its events are read no more. Their ids stay taken. A stream that has events in no other part **cannot go on**: it looks new, and
the versions that it had are refused. Detach what has ended.

What the application has added to `events` goes along, there and back: columns with their values, indexes, CHECK constraints,
rights and comments. What cannot go along (a foreign key, a view, a trigger, a rule, an identity column, ...) is refused
before anything is changed. What `esource.copying.archiving` takes out of a log in parts can be restored.

Each of these waits for the appends that run, and keeps appends and reads waiting while it works: `partition` builds two
indexes over the whole log and `merge` copies all of it, `begin_partition` reads the open part once. Run them as the
tables' owner, and `merge` before a migration that changes `events`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.database import Database
from esource.database.sources import Source, opened_database
from esource.dialect.postgresql.partitioning import (
    IS_DETACHED,
    IS_PARTITIONED,
    LAST_POSITION,
    LOCK,
    LOCK_FILLINGS,
    NEXT_OF_PARTS,
    OBSTACLES,
    PARTITIONS,
    begin,
    take_out,
)
from esource.dialect.postgresql.partitioning import attach as attach_statements
from esource.dialect.postgresql.partitioning import merge as merge_statements
from esource.dialect.postgresql.partitioning import partition as partition_statements
from esource.errors import InvalidOptionError, SchemaOutdatedError
from esource.schema.revisions import HEAD
from esource.schema.versions import current
from esource.tables.names import PARTITION_PREFIX


class Partition(NamedTuple):
    """A part of the log."""

    name: str
    """The name of its table."""
    first: int
    """The first position that belongs to it."""


async def partition(database: Source) -> None:
    """Partition the log of a database (a store, an engine, a URL) at the newest schema: what is stored becomes the
    first part, and what comes goes to a second.

    Raises:
        InvalidOptionError: it is partitioned already, the database has no partitions, or something holds on to the
            table: row-level security, a view, a trigger, a foreign key.
        SchemaOutdatedError: the schema is not the newest.
        DatabaseReadOnlyError: the connected role does not own the tables.
    """
    async with opened_database(database) as opened:
        found = await current(opened)
        if found != HEAD:
            raise SchemaOutdatedError(opened.name, found, HEAD)
        async with _locked(opened, partitioned=False) as connection:
            await _refuse_obstacles(opened, connection)
            last = (await connection.exec_driver_sql(LAST_POSITION)).scalar_one()
            await _run(connection, partition_statements(last, connection.dialect))


async def begin_partition(database: Source) -> Partition | None:
    """Close the open part behind the last event and begin the next; None if the open part is still empty.

    Raises:
        InvalidOptionError: the log is not partitioned.
    """
    async with opened_database(database) as opened, _locked(opened, partitioned=True) as connection:
        *_, newest = await _partitions(connection)
        last = (await connection.exec_driver_sql(LAST_POSITION)).scalar_one()
        if last < newest.first:
            return None
        await _run(connection, begin(*newest, last))
        return (await _partitions(connection))[-1]


async def partitions(database: Source) -> list[Partition]:
    """The parts of the log in their order; the last one is open.

    Raises:
        InvalidOptionError: the log is not partitioned.
    """
    async with opened_database(database) as opened, opened.transaction() as unit:
        with opened.backend.errors(opened.name):
            await _require(opened, unit.connection, partitioned=True)
            return await _partitions(unit.connection)


async def detach(database: Source, name: str) -> None:
    """Take a part out of the log; its table stays, under its name.

    Raises:
        InvalidOptionError: there is no such part, or it is the open one.
    """
    async with opened_database(database) as opened, _locked(opened, partitioned=True) as connection:
        closed = [part.name for part in (await _partitions(connection))[:-1]]
        if name not in closed:
            raise InvalidOptionError(
                f"{name!r} is no closed part of the log: {', '.join(closed) or 'there is none'}"
            )
        await _run(connection, take_out(name))


async def attach(database: Source, name: str) -> None:
    """Bring back into the log a part that was detached, and its tags into their index.

    If tags of their types were filled since it was detached (`esource.copying.fill_tags`), queries over these tags are refused until
    it has looked at these events, too.

    Raises:
        InvalidOptionError: there is no table of that name that was a part, it is in the log, or the log is not partitioned.
        SchemaOutdatedError: the schema is not the newest.
    """
    async with opened_database(database) as opened:
        found = await current(opened)
        if found != HEAD:
            raise SchemaOutdatedError(opened.name, found, HEAD)
        async with _locked(opened, LOCK_FILLINGS, LOCK, partitioned=True) as connection:
            text = name.removeprefix(PARTITION_PREFIX)
            first = int(text) if text != name and text.isdecimal() else -1
            there: Any = await connection.exec_driver_sql(IS_DETACHED, (name,))
            if first < 0 or not there.scalar():
                raise InvalidOptionError(
                    f"{name!r} is no part that was detached: those are tables named {PARTITION_PREFIX}<position>"
                )
            bound = (await connection.exec_driver_sql(NEXT_OF_PARTS, (first,))).scalar_one()
            await _run(connection, attach_statements(name, first, bound))


async def merge(database: Source) -> None:
    """Make a plain table again of what the log holds; what was detached stays where it is.

    Raises:
        InvalidOptionError: the log is not partitioned, or something holds on to the table.
    """
    async with opened_database(database) as opened, _locked(opened, partitioned=True) as connection:
        await _refuse_obstacles(opened, connection)
        await _run(connection, merge_statements(connection.dialect))


@asynccontextmanager
async def _locked(database: Database, *locks: str, partitioned: bool) -> AsyncIterator[AsyncConnection]:
    """A transaction during which no other connection migrates, appends or reads the log. The table's own lock comes before the
    append lock in every append, so that those that wait look the table up anew."""
    if not database.backend.supports_partitions:
        raise InvalidOptionError(f"partitions are PostgreSQL's, and this is {database.name}")
    async with database.transaction() as unit:
        with database.backend.errors(database.name):
            await database.backend.lock_schema(unit.connection, database.schema)
            await _run(unit.connection, list(locks or [LOCK]))
            await _require(database, unit.connection, partitioned=partitioned)
            yield unit.connection


async def _require(database: Database, connection: AsyncConnection, *, partitioned: bool) -> None:
    if not database.backend.supports_partitions:
        raise InvalidOptionError(f"partitions are PostgreSQL's, and this is {database.name}")
    if bool((await connection.exec_driver_sql(IS_PARTITIONED)).scalar()) is not partitioned:
        raise InvalidOptionError(
            f"the log of {database.name} is {'not partitioned' if partitioned else 'partitioned already'}"
        )


async def _refuse_obstacles(database: Database, connection: AsyncConnection) -> None:
    obstacles = (await connection.exec_driver_sql(OBSTACLES)).scalars().all()
    if obstacles:
        raise InvalidOptionError(
            f"{database.name}: {', '.join(obstacles)} would stay with the old table. Take it away first, and make "
            "it anew afterwards."
        )


async def _partitions(connection: AsyncConnection) -> list[Partition]:
    found: Any = await connection.exec_driver_sql(PARTITIONS)
    return [Partition(*row) for row in found]


async def _run(connection: AsyncConnection, statements: list[str]) -> None:
    for statement in statements:
        await connection.exec_driver_sql(statement)
