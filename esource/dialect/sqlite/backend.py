"""SQLite: engine and PRAGMAs, units of work in one thread hop, and what its errors mean."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy.dialects.sqlite.aiosqlite import dialect as sqlite_dialect
from sqlalchemy.engine import Connection as SyncConnection

from esource.dialect.backend import Backend, Call, Failure, Watched
from esource.dialect.errors import driver_error
from esource.dialect.plan import Plan, Written
from esource.dialect.sqlite.append import Append
from esource.dialect.sqlite.caller import JoinedConnection
from esource.dialect.sqlite.engine import MEMORY, in_caller, is_memory, sqlite_engine
from esource.dialect.sqlite.errors import explain, lacks_column
from esource.dialect.sqlite.files import make_room, place_of
from esource.dialect.sqlite.hop import fetch, hop, require_commits
from esource.errors import EventSourceError, InvalidOptionError
from esource.tables.statement import checked_names
from esource.tables.tag_index import SQLITE_TRIGGERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    import aiosqlite
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

WATCH_SECONDS = 0.02
"""Pause between two looks at whether another process has committed: half a percent of one core."""


class SQLiteBackend(Backend):
    """SQLite through aiosqlite: every call is one hop to the connection's thread, or none in the thread of its caller."""

    name: ClassVar[str] = "sqlite"
    in_files: ClassVar[bool] = True
    concurrent_writers: ClassVar[bool] = False
    connects_at_once: ClassVar[bool] = True
    # Each has a thread, and Python runs one at a time: 32 tasks read 15 000 times a second through 2, 7 700
    # through 8. The second is for the others while one fetches a long page.
    held_connections: ClassVar[int] = 2
    reads_ahead: ClassVar[bool] = False
    migrates_unasked: ClassVar[bool] = True
    creates_at_once: ClassVar[bool] = True
    works_in_caller = staticmethod(in_caller)
    tag_triggers: ClassVar[Sequence[str]] = SQLITE_TRIGGERS
    default_options: ClassVar[Mapping[str, Any]] = {
        "wal_mode": True,
        "busy_timeout": 5000,
        "synchronous": "FULL",
        "read_only": False,
        "execution": "thread",
        "on_connect": (),
    }
    # Freed bytes become zeros; a write-ahead log would keep the old pages for as long as it is there.
    forgetful_options: ClassVar[Mapping[str, Any]] = {
        "wal_mode": False,
        "on_connect": ("PRAGMA secure_delete = ON",),
    }

    def __init__(self) -> None:
        self.sqlalchemy_dialect = sqlite_dialect()
        self._append = Append(self.sqlalchemy_dialect)

    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        return sqlite_engine(url, **options)

    def prepare(self, url: URL, *, read_only: bool) -> None:
        if not is_memory(url):
            make_room(Path(str(url.database)), self.describe(url), read_only=read_only)

    def describe(self, url: URL) -> str:
        return f"SQLite database {url.database or MEMORY}"

    def fetch(
        self, driver: aiosqlite.Connection, text: str, arguments: Sequence[Any]
    ) -> Awaitable[list[Any]]:
        connection = driver._conn  # noqa: SLF001 - its own property costs two calls
        if connection.row_factory is None:
            return fetch(driver, connection, text, arguments)
        return self.write(driver, text, arguments, commit=False)

    def write(
        self, driver: aiosqlite.Connection, text: str, arguments: Sequence[Any], *, commit: bool
    ) -> Awaitable[list[Any]]:
        def run(cursor: sqlite3.Cursor) -> list[Any]:
            return cursor.execute(text, arguments).fetchall()

        return hop(driver, run, commit=commit)

    def append(self, driver: aiosqlite.Connection, plan: Plan, *, commit: bool) -> Awaitable[Written]:
        return hop(driver, partial(self._append.run, plan), commit=commit)

    def busy_seconds(self, options: Mapping[str, Any]) -> float | None:
        # An engine of the application does not tell. And with 0, which is SQLite's "not at all", tasks take turns all the same.
        milliseconds: int = options.get("busy_timeout") or self.default_options["busy_timeout"]
        return milliseconds / 1000

    async def begin(self, connection: AsyncConnection, driver: aiosqlite.Connection) -> AsyncTransaction:
        if not driver.in_transaction:
            # A deferred BEGIN would fail at once, busy timeout or not, when its first write meets another.
            await self.run(driver, "BEGIN IMMEDIATE")
        return await connection.begin()

    async def begin_reading(
        self, connection: AsyncConnection, driver: aiosqlite.Connection
    ) -> AsyncTransaction:
        if not driver.in_transaction:
            await self.run(driver, "BEGIN")
        return await connection.begin()

    async def join(
        self, connection: AsyncConnection, database: str, schema: str | None
    ) -> aiosqlite.Connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await require_commits(driver, database)
        if not (driver.in_transaction and connection.in_transaction()):
            # Through SQLAlchemy, which otherwise would not know that there is something to commit.
            await connection.exec_driver_sql("SELECT 1" if driver.in_transaction else "BEGIN IMMEDIATE")
        return driver  # type: ignore[no-any-return]

    synchronous_driver = "sqlite3"

    def is_of_driver(self, connection: object) -> bool:
        return isinstance(connection, sqlite3.Connection)

    async def join_synchronous(
        self, connection: Any, call: Call, database: str, schema: str | None
    ) -> aiosqlite.Connection:
        opened = connection
        if isinstance(connection, SyncConnection):
            opened = (await call(lambda: connection.connection, ())).driver_connection
            if not isinstance(opened, sqlite3.Connection):
                raise InvalidOptionError(f"{database}: connection must be one of sqlite3's")
        joined = JoinedConnection(opened, call)
        await require_commits(joined, database)
        if isinstance(connection, SyncConnection):
            if not (opened.in_transaction and connection.in_transaction()):
                begin = "SELECT 1" if opened.in_transaction else "BEGIN IMMEDIATE"
                await call(connection.exec_driver_sql, (begin,))
        elif not opened.in_transaction:
            if opened.isolation_level is None:
                raise InvalidOptionError(f"{database}: the connection is in AUTOCOMMIT. Begin a transaction.")
            await call(opened.execute, ("BEGIN IMMEDIATE",))
        return joined

    async def commit(self, transaction: AsyncTransaction, driver: aiosqlite.Connection) -> bool:
        if not driver.in_transaction:
            # Some errors (a full disk, a conflict resolved by ROLLBACK) roll back the transaction as a whole.
            await transaction.rollback()
            return False
        place = place_of(driver)
        if place is not None:
            place.check()
        await transaction.commit()
        return True

    async def roll_back(self, transaction: AsyncTransaction, driver: aiosqlite.Connection) -> None:
        if transaction.is_active:
            await transaction.rollback()
        if driver.in_transaction:  # after a commit that failed, SQLAlchemy has nothing to roll back
            await driver.rollback()

    async def run(self, driver: aiosqlite.Connection, text: str) -> None:
        await driver.execute_fetchall(text)

    def is_in_transaction(self, driver: aiosqlite.Connection) -> bool:
        return driver.in_transaction

    async def abandon(self, driver: aiosqlite.Connection) -> None:
        # Whether there is a transaction or not: a BEGIN that was cancelled may be on its way to the thread.
        await driver.rollback()

    def break_off(self, driver: aiosqlite.Connection) -> None:
        with suppress(ValueError, sqlite3.Error):  # it is closed already
            driver._conn.interrupt()  # noqa: SLF001 - the public call is a coroutine

    async def before_schema_change(self, driver: aiosqlite.Connection) -> None:
        # To write a table anew means to drop it, and with foreign keys on SQLite deletes its rows first: what refers to
        # them with ON DELETE CASCADE would go as well. Inside a transaction the PRAGMA does nothing.
        [(is_on,)] = await self.fetch(driver, "PRAGMA foreign_keys", ())
        if is_on:
            driver.esource_foreign_keys = True  # type: ignore[attr-defined]
            await self.fetch(driver, "PRAGMA foreign_keys = OFF", ())

    async def after_schema_change(self, driver: aiosqlite.Connection) -> None:
        if getattr(driver, "esource_foreign_keys", False) and self.is_alive(driver):
            await self.fetch(driver, "PRAGMA foreign_keys = ON", ())

    async def before_reading(self, driver: aiosqlite.Connection) -> None:
        [(is_on,)] = await self.fetch(driver, "PRAGMA query_only", ())
        if not is_on:  # it stays on in a store that only reads
            driver.esource_reads_now = True  # type: ignore[attr-defined]
            await self.fetch(driver, "PRAGMA query_only = ON", ())

    async def after_reading(self, driver: aiosqlite.Connection) -> None:
        if getattr(driver, "esource_reads_now", False):
            await self.fetch(driver, "PRAGMA query_only = OFF", ())
            driver.esource_reads_now = False  # type: ignore[attr-defined]

    async def missing_tables(self, names: Sequence[str], driver: aiosqlite.Connection) -> list[str]:
        found = await self.fetch(driver, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')", ())
        there = {name for (name,) in found}
        return [name for name in names if name not in there]

    async def lock_schema(self, connection: AsyncConnection, schema: str | None) -> None:
        """Nothing to do: `begin` has made this the only writer."""

    async def lock_log(self, driver: aiosqlite.Connection, schema: str | None = None) -> None:
        """Nothing to do: `begin` has made this the only writer."""

    async def watch(self, driver: aiosqlite.Connection, watched: Watched) -> None:
        seen = None
        while True:
            # Changes when any other connection, of this process or another, has committed.
            [(version,)] = await driver.execute_fetchall("PRAGMA data_version")
            if seen is None:
                watched.begin()
            elif seen != version:
                watched.set()
            seen = version
            watched.cover(watched.awaited)
            await asyncio.sleep(WATCH_SECONDS)

    def names(self, values: Sequence[Any]) -> Any:
        return json.dumps(checked_names(values))

    def is_alive(self, driver: aiosqlite.Connection) -> bool:
        return driver._connection is not None and driver._running  # noqa: SLF001 - said nowhere else

    def classify(self, error: BaseException) -> Failure:
        cause = driver_error(error)
        if isinstance(cause, sqlite3.IntegrityError) and "UNIQUE constraint failed" in str(cause):
            return "unique"
        return "other"

    def lacks_column(self, error: BaseException) -> bool:
        return lacks_column(error)

    def explain(self, error: BaseException, database: str) -> EventSourceError | None:
        return explain(error, database)
