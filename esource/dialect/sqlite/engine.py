"""Connections to SQLite: which file, which PRAGMAs, and how one that fails ends."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from esource.checks import check_choice
from esource.dialect.sqlite.caller import CallersConnection, connect_to_copy
from esource.dialect.sqlite.caller import connect as connect_here
from esource.dialect.sqlite.files import Place, opened_at, reading_uri

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import aiosqlite
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

MEMORY = ":memory:"


def is_memory(url: URL) -> bool:
    """Whether the URL names a private in-memory database."""
    return url.database in (None, "", MEMORY)


def in_caller(url: URL, options: Mapping[str, Any]) -> bool:
    """Whether the connections work in the thread of their caller: in memory always, where there is no disk to wait for.

    Raises:
        InvalidOptionError: there is no such choice.
    """
    execution = check_choice("execution", options["execution"], ("thread", "caller"))
    return is_memory(url) or bool(execution == "caller")


def sqlite_engine(url: URL, **options: Any) -> AsyncEngine:
    """An engine with the options of a store on SQLite: see `SQLiteBackend.default_options`."""
    busy_timeout: int = options["busy_timeout"]
    on_connect: Sequence[str] = options["on_connect"]
    connect: Callable[..., Awaitable[aiosqlite.Connection]] = _connect
    if in_caller(url, options):
        connect, busy_timeout = partial(connect_here, options["busy_timeout"] / 1000), 0
    if is_memory(url):
        pool: dict[str, Any] = {"poolclass": StaticPool}
        if on_connect:
            connect, on_connect = partial(connect_to_copy, ";\n".join(on_connect)), ()
    else:
        pool = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 8, "max_overflow": -1}
        where, read_only = Place(str(url.database)), options["read_only"]
        connect = partial(_connect_to_read, connect) if read_only else partial(_connect_to, connect, where)
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

    if in_caller(url, options):
        # SQLAlchemy would make a task of closing a connection that failed, and a caller without a loop has none.
        dialect = engine.dialect
        dialect.do_terminate = dialect.do_close  # type: ignore[method-assign]

    # First of all how long to wait: the statements after it may themselves meet another process's lock.
    script = ";\n".join([f"PRAGMA busy_timeout = {busy_timeout:d}", *_pragmas(url, options), *on_connect])

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        try:
            connection.run_async(partial(_set_up, script, options["busy_timeout"]))
        except BaseException:
            # The pool does not know this connection yet, and would not end its thread.
            connection.close()
            raise

    @event.listens_for(engine.sync_engine, "handle_error")
    def keep_connection(context: Any) -> None:
        # SQLAlchemy gives up a connection whose caller was cancelled. Ours are sound: their thread
        # ends each statement before the next. And an in-memory database lives in its connection.
        if isinstance(context.original_exception, asyncio.CancelledError):
            context.is_disconnect = False

    return engine


def _pragmas(url: URL, options: Mapping[str, Any]) -> list[str]:
    """How a connection works, as statements for a new one."""
    if options["read_only"]:
        return ["PRAGMA query_only = ON"]
    if is_memory(url):
        return []
    synchronous = options["synchronous"]
    if synchronous == "FULL" and not options["wal_mode"]:
        # Removing the journal is the commit, and FULL alone does not wait for it: a power cut soon
        # after would bring the journal back, and take the commit away (sqlite.org/pragma.html).
        synchronous = "EXTRA"
    return [
        # Readers go on while a writer commits; kept in the file, so one process decides for all.
        f"PRAGMA journal_mode = {'WAL' if options['wal_mode'] else 'DELETE'}",
        # FULL: a committed event survives a power cut. NORMAL may lose the last ones, not the file.
        f"PRAGMA synchronous = {synchronous}",
    ]


async def _connect(path: str, **arguments: Any) -> aiosqlite.Connection:
    """An open connection, or an error after its thread has ended and the file is closed.

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


async def _connect_to(
    connect: Callable[..., Awaitable[aiosqlite.Connection]], place: Place, path: str, **arguments: Any
) -> aiosqlite.Connection:
    """A connection to the file that the others have open, and to no other."""
    place.check()
    return opened_at(place, await connect(path, **arguments))


async def _connect_to_read(
    connect: Callable[..., Awaitable[aiosqlite.Connection]], path: str, **arguments: Any
) -> aiosqlite.Connection:
    return await connect(reading_uri(path), uri=True, **arguments)


async def _set_up(script: str, busy_timeout: int, driver: aiosqlite.Connection) -> None:
    """Run the PRAGMAs of a new connection.

    Changing the journal mode needs the file for itself, and does not wait for it: when several processes
    open a fresh file, all but one are told at once that it is locked, whatever the busy timeout.
    """
    if isinstance(driver, CallersConnection):
        await driver.set_up(script)
        return
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
