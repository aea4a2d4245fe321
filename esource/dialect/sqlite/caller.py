"""A connection that works in the thread of its caller, where aiosqlite has a thread for each.

A hop to a thread and back takes about 100 µs, more than most statements. Without it the caller waits for the disk
itself, and the event loop with it. For the lock of another writer it waits as for anything else: in the loop. And a task
that works on and on gives the other tasks a turn.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import sqlite3
import sys
import time
from functools import cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import aiosqlite
from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from esource.dialect.backend import Call

PAUSE_SECONDS = (0.0005, 0.005)
"""Between two looks at whether another writer has let go of the file: a random time, so that many do not look at once."""

TURN_SECONDS = 0.005
"""How long the tasks of a loop work through a connection before the loop has a turn: by time, because a commit takes as
long as the disk takes."""


class _AtOnce:
    """A queue that runs what is put in: SQLAlchemy sets the isolation level through that of aiosqlite."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, work = item
        result = work()
        if future is not None:
            future.set_result(result)


class CallersConnection(aiosqlite.Connection):
    """aiosqlite's connection without its thread. Its coroutines end without being suspended, with two exceptions. When
    another writer has locked the file, they look again until the busy timeout is over, and other tasks run meanwhile.
    When they have worked for `TURN_SECONDS` and nothing else has had a turn, they wait for one."""

    def __init__(self, opened: sqlite3.Connection, busy_seconds: float) -> None:
        super().__init__(lambda: opened, 64)
        self._connection: sqlite3.Connection | None = opened
        self._tx: Any = _AtOnce()
        self._busy_seconds = busy_seconds
        self._turn_began: float | None = None
        """When the loop's present turn began, by the monotonic clock; None for the first call of a turn."""

    def __await__(self) -> Generator[Any, None, CallersConnection]:
        return self
        yield  # it is open already: nothing to wait for

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._connection is None:
            raise ValueError("Connection closed")
        began = self._turn_began
        if began is None:
            self._begin_turn()
        elif time.monotonic() - began > TURN_SECONDS and asyncio.current_task() is not None:
            await asyncio.sleep(0)
        try:
            return fn(*args, **kwargs)
        except sqlite3.OperationalError as error:
            # What another writer had no room for has done nothing, except a script: its beginning.
            if not _may_pass(error) or getattr(fn, "__name__", "") == "executescript":
                raise
        return await self._once_free(partial(fn, *args, **kwargs))

    def _begin_turn(self) -> None:
        """Note when the loop's turn began. Without a task there is no loop that could have another one."""
        if asyncio.current_task() is not None:
            self._turn_began = time.monotonic()
            asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        """Called by the loop when it gets to something else."""
        self._turn_began = None

    async def set_up(self, script: str) -> None:
        """Run a script that can be run again from the start."""
        await self._once_free(partial(self._conn.executescript, script))

    async def _once_free(self, work: Callable[[], Any]) -> Any:
        until = time.monotonic() + self._busy_seconds
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not _may_pass(error) or time.monotonic() >= until:
                    raise
            await _pause()

    async def close(self) -> None:
        self.stop()

    def __del__(self) -> None:
        """sqlite3 says by itself that a connection was not closed."""

    def stop(self) -> None:
        """Close the file."""
        opened, self._connection, self._running = self._connection, None, False
        if opened is not None:
            opened.close()


class JoinedConnection(CallersConnection):
    """An application's own connection, which works in the application's thread."""

    def __init__(self, opened: sqlite3.Connection, call: Call) -> None:
        super().__init__(opened, 0.0)
        self._call = call

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await self._call(partial(_with_tuples, self._conn, fn, *args, **kwargs), ())


def _with_tuples(opened: sqlite3.Connection, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function while the connection's rows are tuples, whatever rows the application has asked for."""
    chosen, opened.row_factory = opened.row_factory, None
    try:
        return fn(*args, **kwargs)
    finally:
        opened.row_factory = chosen


def _may_pass(error: sqlite3.OperationalError) -> bool:
    """Whether another writer has locked the file. SQLite says something else of a table that is locked."""
    return str(error) == "database is locked"


async def _pause() -> None:
    """Let others run for a moment: other tasks, or where SQLAlchemy is called without a task, other threads only."""
    seconds = random.uniform(*PAUSE_SECONDS)  # noqa: S311 - spreads load, keeps no secret
    if asyncio.current_task() is None and _is_for_a_greenlet():
        time.sleep(seconds)  # noqa: ASYNC251 - a greenlet cannot go on in another thread
    else:
        await asyncio.sleep(seconds)


def _is_for_a_greenlet() -> bool:
    """Whether SQLAlchemy waits in a greenlet for what runs here: itself outside of that, called by `greenlet_spawn`."""
    if getcurrent().parent is not None:
        return True
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - a documented call
    while frame is not None and frame.f_code is not greenlet_spawn.__code__:
        frame = frame.f_back
    return frame is not None


async def connect(busy_seconds: float, path: str, **arguments: Any) -> CallersConnection:
    """An open connection. SQLite itself never waits for a lock: while it waits, nothing else in the thread would run."""
    arguments |= {
        "timeout": 0,
        "check_same_thread": False,  # of several threads that share a store, one works at a time
    }
    return CallersConnection(sqlite3.connect(path, **arguments), busy_seconds)


async def connect_to_copy(script: str, path: str, **arguments: Any) -> CallersConnection:
    """An open connection to a database in memory on which the script has run.

    It has run once in the process, and the pages are copied: for the tables of a store 0.13 ms in place of 0.86 ms.
    """
    connection = await connect(0.0, path, **arguments)
    try:
        original, lock = _original(script, os.getpid())
        with lock:
            original.backup(connection._conn)  # noqa: SLF001 - the public call is for a thread
    except BaseException:
        connection.stop()
        raise
    return connection


@cache
def _original(script: str, process: int) -> tuple[sqlite3.Connection, Lock]:
    """What is copied, and its lock. SQLite forbids to use a connection in another process than its own."""
    original = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    atexit.register(original.close)
    original.executescript(script)
    return original, Lock()
