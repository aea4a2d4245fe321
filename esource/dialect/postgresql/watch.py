"""Listening on PostgreSQL: to appends, and to the checkpoints that a task waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from esource.dialect.backend import Watched
from esource.tables.constructs import CHANNEL, LISTENING_KEY, SAVED, waiting_key

SETTLE_SECONDS = 2.0
"""How long the server may take to confirm that a statement was cancelled, before its connection is given up."""

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""Between two tries to share the lock of a checkpoint that a transaction is just moving: the pause doubles each time."""

IDLE_SECONDS = 3600.0

_CHANNEL_NAME = f"SELECT {CHANNEL}"
_LISTEN = f"SELECT pg_advisory_lock_shared({LISTENING_KEY})"
_LISTEN_NO_MORE = f"SELECT pg_advisory_unlock_shared({LISTENING_KEY})"
_KEY = waiting_key("name")
_NAMES = "FROM unnest($1::text[]) AS name"
_SHARE = f"SELECT name {_NAMES} WHERE pg_try_advisory_lock_shared({_KEY})"
_LEAVE = f"SELECT pg_advisory_unlock_shared({_KEY}) {_NAMES}"


async def watch(driver: Any, watched: Watched, *, with_locks: bool) -> None:
    """Tell of what other connections commit, until this one is lost.

    Args:
        driver: An `asyncpg.Connection` that no other task uses meanwhile.
        watched: What is told of each commit.
        with_locks: Whether a statement that appends, or moves a checkpoint, looks for the locks of its waiters.
    """

    def on_notification(connection: Any, process: int, channel: str, content: str) -> None:
        if content == SAVED:
            watched.saved()
        else:
            watched.appended()

    def on_termination(_: Any) -> None:
        watched.look()

    shared: set[str] = set()
    channel = await driver.fetchval(_CHANNEL_NAME)
    driver.add_termination_listener(on_termination)
    await driver.add_listener(channel, on_notification)
    try:
        if with_locks:
            await driver.execute(_LISTEN)  # waits for an append that is under way, which tells nobody
        watched.begin()
        pause = FIRST_PAUSE_SECONDS
        while not driver.is_closed():
            wanted = watched.awaited if with_locks else frozenset()
            if await _share(driver, wanted, shared):
                watched.cover(wanted)
                pause = FIRST_PAUSE_SECONDS
                await watched.changes(IDLE_SECONDS)
            else:
                await watched.changes(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    finally:
        if not driver.is_closed():
            driver.remove_termination_listener(on_termination)
            try:
                await asyncio.wait_for(
                    _end(driver, channel, on_notification, shared, with_locks), SETTLE_SECONDS
                )
            except BaseException as error:
                # A network that swallows everything, or a program that cancels all its tasks once more: in the pool the
                # connection would go on listening, and each append would tell it.
                driver.terminate()
                if not isinstance(error, Exception):
                    raise


async def _share(driver: Any, wanted: frozenset[str], shared: set[str]) -> bool:
    """Let go of the locks that are not wanted, and share the others; whether all of them are shared."""
    needless = shared - wanted
    if needless:
        await driver.fetch(_LEAVE, list(needless))
        shared -= needless
    missing = wanted - shared
    if not missing:
        return True
    shared |= missing  # if this is cancelled, it is not known which of them the server has given
    found = {name for (name,) in await driver.fetch(_SHARE, list(missing))}
    shared -= missing - found
    return found == missing


async def _end(driver: Any, channel: str, listener: Any, shared: set[str], with_locks: bool) -> None:
    if with_locks:
        await driver.execute(_LISTEN_NO_MORE)
    if shared:
        await driver.fetch(_LEAVE, list(shared))
    await driver.remove_listener(channel, listener)


class SharedWatcher:
    """A connection on which several logs are watched: their statements take turns, each in its log's schema.

    Args:
        driver: An `asyncpg.Connection` that is used for nothing else.
        lock: Held by the watch whose turn it is.
        enter: Lets the connection work in the schema of this log.
    """

    def __init__(self, driver: Any, lock: asyncio.Lock, enter: Callable[[], Awaitable[None]]) -> None:
        self._driver = driver
        self._lock = lock
        self._enter = enter
        self.is_closed = driver.is_closed
        self.terminate = driver.terminate
        self.add_termination_listener = driver.add_termination_listener
        self.remove_termination_listener = driver.remove_termination_listener

    async def _in_turn(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async with self._lock:
            await self._enter()
            return await call(*arguments)

    async def fetchval(self, text: str) -> Any:
        return await self._in_turn(self._driver.fetchval, text)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        return await self._in_turn(self._driver.fetch, text, *arguments)

    async def execute(self, text: str) -> Any:
        return await self._in_turn(self._driver.execute, text)

    async def add_listener(self, channel: str, listener: Callable[..., None]) -> None:
        await self._in_turn(self._driver.add_listener, channel, listener)

    async def remove_listener(self, channel: str, listener: Callable[..., None]) -> None:
        await self._in_turn(self._driver.remove_listener, channel, listener)
