"""SQLite: engine and PRAGMAs, units of work in one thread hop, and what its errors mean."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sqlalchemy import bindparam, event, insert, literal_column, select
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as sqlite_dialect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from esource.dialect.backend import (
    Backend,
    Failure,
    Plan,
    Statement,
    Written,
    checked_names,
    driver_error,
    unavailable,
)
from esource.dialect.constructs import version_or_closed
from esource.dialect.moving import FENCE
from esource.dialect.sqlite_hop import hop
from esource.dialect.sqlite_place import Place, opened_at, place_of
from esource.dialect.sqlite_reading import reading_uri
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    EventSourceError,
    SchemaMissingError,
    StoreMovedError,
)
from esource.events import utc_now
from esource.tables import event_outbox, events, metadata
from esource.types import to_iso

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import aiosqlite
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from esource.dialect.inspection import Inspection
    from esource.dialect.moving import Moving

T = TypeVar("T")

MEMORY = ":memory:"

WATCH_SECONDS = 0.02
"""Pause between two looks at whether another process has committed: half a percent of one core."""

_VERSION = Statement(
    select(version_or_closed)
    .where(
        events.c.aggregate_id == bindparam("aggregate_id"),
        events.c.aggregate_type == bindparam("aggregate_type"),
    )
    .order_by(events.c.version.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))  # else SQLAlchemy says it with a parameter
)
_KNOWN = Statement(select(events.c.global_position).where(events.c.event_id == bindparam("event_id")))
_INSERT = Statement(
    insert(events).values({c.name: bindparam(c.name) for c in events.c if c.name != "global_position"})
)
_OUTBOX = Statement(
    insert(event_outbox).from_select(
        [
            "event_id",
            "event_type",
            "aggregate_id",
            "aggregate_type",
            "tenant_id",
            "created_at",
            "global_position",
        ],
        select(
            events.c.event_id,
            events.c.event_type,
            events.c.aggregate_id,
            events.c.aggregate_type,
            events.c.tenant_id,
            events.c.created_at,
            events.c.global_position,
        )
        .where(events.c.global_position.between(bindparam("first"), bindparam("last")))
        .order_by(events.c.global_position),
    )
)


class SQLiteBackend(Backend):
    """SQLite through aiosqlite: every connection has a thread of its own, every call is one hop to it."""

    name: ClassVar[str] = "sqlite"
    concurrent_writers: ClassVar[bool] = False
    # Each has a thread, and Python runs one at a time: 32 tasks read 15 000 times a second through 2, 7 700
    # through 8. The second is for the others while one fetches a long page.
    held_connections: ClassVar[int] = 2
    reads_ahead: ClassVar[bool] = False
    migrates_unasked: ClassVar[bool] = True
    default_options: ClassVar[Mapping[str, Any]] = {
        "wal_mode": True,
        "busy_timeout": 5000,
        "synchronous": "FULL",
        "read_only": False,
        "on_connect": (),
    }
    # Freed bytes become zeros; a write-ahead log would keep the old pages for as long as it is there.
    forgetful_options: ClassVar[Mapping[str, Any]] = {
        "wal_mode": False,
        "on_connect": ("PRAGMA secure_delete = ON",),
    }

    def __init__(self) -> None:
        self.sqlalchemy_dialect = sqlite_dialect()
        self._version = _VERSION.on(self).text
        self._known = _KNOWN.on(self).text
        self._insert = _INSERT.on(self).text
        self._outbox = _OUTBOX.on(self).text

    # -- engine ------------------------------------------------------------------------------------

    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        busy_timeout: int = options["busy_timeout"]
        pragmas = [
            # First of all: the statements below may themselves meet another process's lock.
            f"PRAGMA busy_timeout = {busy_timeout:d}",
        ]
        connect: Callable[..., Awaitable[aiosqlite.Connection]] = _connect
        if is_memory(url):
            pool: dict[str, Any] = {"poolclass": StaticPool}
        else:
            pool = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 8, "max_overflow": -1}
        if options["read_only"]:
            connect = _connect if is_memory(url) else _connect_to_read
            pragmas.append("PRAGMA query_only = ON")
        elif not is_memory(url):
            connect = partial(_connect_to, Place(str(url.database)))
            pragmas += [
                # Readers go on while a writer commits; kept in the file, so one process decides for all.
                f"PRAGMA journal_mode = {'WAL' if options['wal_mode'] else 'DELETE'}",
                # FULL: a committed event survives a power cut. NORMAL may lose the last ones, not the file.
                f"PRAGMA synchronous = {options['synchronous']}",
            ]
        engine = create_async_engine(
            url.set(drivername="sqlite+aiosqlite"),
            # No transaction but those that we begin: sqlite3 would defer BEGIN to the first write.
            connect_args={
                "isolation_level": None,
                "timeout": busy_timeout / 1000,
                "async_creator_fn": connect,
            },
            **pool,
        )

        script = ";\n".join([*pragmas, *options["on_connect"]])

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(connection: Any, record: Any) -> None:
            try:
                connection.run_async(partial(_set_up, script, busy_timeout))
            except BaseException:
                # The pool does not know this connection yet: nobody else would end its thread.
                connection.close()
                raise

        @event.listens_for(engine.sync_engine, "handle_error")
        def keep_connection(context: Any) -> None:
            # SQLAlchemy gives up a connection whose caller was cancelled. Ours are sound: their thread
            # ends each statement before the next. And an in-memory database lives in its connection.
            if isinstance(context.original_exception, asyncio.CancelledError):
                context.is_disconnect = False

        return engine

    def prepare(self, url: URL) -> None:
        if not is_memory(url) and url.database is not None:
            try:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unavailable(self.describe(url), error, "Choose another path") from error

    def describe(self, url: URL) -> str:
        return f"SQLite database {url.database or MEMORY}"

    # -- statements --------------------------------------------------------------------------------

    async def fetch(self, driver: aiosqlite.Connection, text: str, arguments: Sequence[Any]) -> list[Any]:
        if driver.row_factory is None:
            return await driver.execute_fetchall(text, arguments)  # type: ignore[return-value]
        return await self.write(driver, text, arguments, commit=False)

    def write(
        self, driver: aiosqlite.Connection, text: str, arguments: Sequence[Any], *, commit: bool
    ) -> Awaitable[list[Any]]:
        def run(connection: sqlite3.Connection) -> list[Any]:
            cursor = connection.cursor()
            cursor.row_factory = None  # a lent connection may make dicts of its rows
            return cursor.execute(text, arguments).fetchall()

        return hop(driver, run, commit=commit)

    def append(self, driver: aiosqlite.Connection, plan: Plan, *, commit: bool) -> Awaitable[Written]:
        return hop(driver, partial(self._append, plan), commit=commit)

    def _append(self, plan: Plan, connection: sqlite3.Connection) -> Written:
        """The body of an append transaction, in the connection's own thread."""
        execute = connection.execute
        versions, accepted, known, streams = [], [], [], []
        for stream in plan.streams:
            aggregate_id = str(stream.aggregate_id)
            last = execute(self._version, (aggregate_id, stream.aggregate_type)).fetchone()
            version = 0 if last is None else last[0]
            expected = stream.expected_version
            fits = version >= 0 and (expected in (version, -1) or (expected == -2 and version > 0))
            versions.append(version)
            accepted.append(fits)
            known.append(
                not fits and execute(self._known, (str(stream.first_event_id),)).fetchone() is not None
            )
            streams.append((aggregate_id, stream.aggregate_type))
        created_at = to_iso(utc_now())
        rows = [
            (
                str(row.event_id),
                *streams[stream],
                row.event_type,
                None if row.tenant_id is None else str(row.tenant_id),
                row.actor_id,
                versions[stream] + step,
                row.timestamp.isoformat(timespec="microseconds"),  # `to_iso` of a moment in UTC
                row.payload,
                created_at,
            )
            for stream, step, row in plan.rows
            if accepted[stream]
        ]
        if not rows:
            return Written(versions, accepted, known, ())
        if len(rows) == 1:
            last = execute(self._insert, rows[0]).lastrowid or 0
        else:
            connection.executemany(self._insert, rows)
            last = execute("SELECT last_insert_rowid()").fetchone()[0]
        # AUTOINCREMENT, inside one write transaction: the new positions have no hole between them.
        first = last - len(rows) + 1
        if plan.outbox:
            execute(self._outbox, (first, last))
        return Written(versions, accepted, known, range(first, last + 1))

    async def begin(self, connection: AsyncConnection) -> None:
        driver = (await connection.get_raw_connection()).driver_connection
        if not driver.in_transaction:  # type: ignore[union-attr]
            # A deferred BEGIN would fail at once, busy timeout or not, when its first write meets another.
            await connection.exec_driver_sql("BEGIN IMMEDIATE")

    async def begin_snapshot(self, connection: AsyncConnection) -> None:
        await connection.exec_driver_sql("BEGIN")

    def before_commit(self, driver: aiosqlite.Connection) -> None:
        place = place_of(driver)
        if place is not None:
            place.check()

    async def abandon(self, driver: aiosqlite.Connection) -> None:
        if driver.in_transaction:
            await driver.rollback()

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """Nothing to do: `begin` has made this the only writer."""

    async def lock_log(self, driver: aiosqlite.Connection) -> None:
        """Nothing to do: `begin` has made this the only writer."""

    async def watch(
        self, driver: aiosqlite.Connection, wake: Callable[[], None], ready: Callable[[], None]
    ) -> None:
        seen = None
        while True:
            # Changes when any other connection, of this process or another, has committed.
            [(version,)] = await driver.execute_fetchall("PRAGMA data_version")
            if seen is None:
                ready()
            elif seen != version:
                wake()
            seen = version
            await asyncio.sleep(WATCH_SECONDS)

    def inspection(self) -> Inspection:
        from esource.dialect.sqlite_inspection import SQLiteInspection

        return SQLiteInspection()

    def moving(self) -> Moving:
        from esource.dialect.sqlite_moving import SQLiteMoving

        return SQLiteMoving(self)

    def names(self, values: Sequence[Any]) -> Any:
        return json.dumps(checked_names(values))

    def is_alive(self, driver: aiosqlite.Connection) -> bool:
        return driver._connection is not None and driver._running  # noqa: SLF001 - said nowhere else

    # -- errors ------------------------------------------------------------------------------------

    def classify(self, error: BaseException) -> Failure:
        cause = driver_error(error)
        if isinstance(cause, sqlite3.IntegrityError) and "UNIQUE constraint failed" in str(cause):
            return "unique"
        return "other"

    def explain(self, error: BaseException, database: str) -> EventSourceError | None:
        cause = driver_error(error)
        if isinstance(cause, ValueError) and str(cause) in ("no active connection", "Connection closed"):
            return unavailable(database, cause, "The connection was closed; open the store again")
        if not isinstance(cause, sqlite3.Error):
            return None
        text = str(cause)
        if isinstance(cause, sqlite3.IntegrityError):
            if text.startswith(FENCE):
                return StoreMovedError(database, text.removeprefix(f"{FENCE}: "))
            name = _constraint_name(text)
            return ConstraintError(name, f"{database}: {name} refused the row ({text})")
        if any(hint in text for hint in ("no such table", "no such column", "has no column named")):
            return SchemaMissingError(database, text)
        if "locked" in text or "busy" in text:
            return DatabaseBusyError(
                f"{database}: {text}: another connection held the write lock longer than the busy timeout. "
                "Raise busy_timeout (milliseconds), or find the long transaction."
            )
        if "readonly" in text or "read-only" in text:
            return DatabaseReadOnlyError(
                f"{database}: {text}. Check the permissions of the file and its folder."
            )
        if "full" in text:
            return DatabaseFullError(f"{database}: {text}. Free some space; nothing was written.")
        if any(hint in text for hint in ("unable to open", "not a database", "malformed", "disk I/O error")):
            return unavailable(
                database, cause, "Check the path: it must name a SQLite file that can be opened"
            )
        return DatabaseError(f"{database}: {text}")


def is_memory(url: URL) -> bool:
    """Whether the URL names a private in-memory database."""
    return url.database in (None, "", MEMORY)


async def _connect(path: str, **arguments: Any) -> aiosqlite.Connection:
    """An open connection, or an error after its thread has ended.

    aiosqlite tells the thread of a failed connection to stop and does not wait. One that answers to an
    event loop that is closed by then reports an error of its own.
    """
    import aiosqlite

    connection = aiosqlite.connect(path, **arguments)
    thread: Thread = connection if isinstance(connection, Thread) else connection._thread  # noqa: SLF001
    thread.daemon = True
    try:
        return await connection
    except BaseException:
        await asyncio.to_thread(thread.join, 1.0)
        raise


async def _connect_to(place: Place, path: str, **arguments: Any) -> aiosqlite.Connection:
    """A connection to the file that the others have open, and to no other."""
    place.check()
    return opened_at(place, await _connect(path, **arguments))


async def _connect_to_read(path: str, **arguments: Any) -> aiosqlite.Connection:
    return await _connect(reading_uri(path), uri=True, **arguments)


async def _set_up(script: str, busy_timeout: int, driver: aiosqlite.Connection) -> None:
    """Run the PRAGMAs of a new connection.

    Changing the journal mode needs the file for itself, and does not wait for it: when several processes
    open a fresh file, all but one are told at once that it is locked, whatever the busy timeout.
    """
    try:
        await driver.executescript(script)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
    else:
        return
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random

    async for attempt in AsyncRetrying(
        stop=stop_after_delay(busy_timeout / 1000),
        wait=wait_random(0.002, 0.02),
        retry=retry_if_exception(lambda error: "locked" in str(error)),
        reraise=True,
    ):
        with attempt:
            await driver.executescript(script)


def _constraint_name(text: str) -> str:
    """The name of the constraint: SQLite names columns for UNIQUE and NOT NULL, the rest by name."""
    kind, _, found = text.partition(" constraint failed: ")
    if kind == "UNIQUE":
        columns = {tuple(part.split(".", 1)) for part in found.split(", ")}
        for table in metadata.tables.values():
            for constraint in table.constraints:
                names = {(table.name, column.name) for column in getattr(constraint, "columns", ())}
                if names == columns:
                    return str(constraint.name)
    return found or kind
