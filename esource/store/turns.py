"""Turns: what would conflict within one process waits instead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from esource.database.database import Database
from esource.database.patience import Retry
from esource.database.sources import parts_of
from esource.database.unit_of_work import Unit
from esource.errors import InvalidOptionError

RETRY = Retry(attempts=10, first_seconds=0.005, longest_seconds=0.5)
"""How often a command or a decision is tried when other processes come first."""


class _Turn:
    """A turn that is taken, as the commands see it that are executed inside of it."""

    def __init__(self, locks: list[asyncio.Lock]) -> None:
        self.locks = locks
        """None are left when it is over: a task that was started inside may go on for longer."""


_taken: ContextVar[tuple[_Turn, ...]] = ContextVar("esource_turns_taken", default=())


class Turns:
    """The turns of one database, by what they are about."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """A lock is forgotten when no command holds it or waits for it."""
        self.groups: dict[str, Any] = {}
        """By what they are about: groups that wait to be stored. The holder of that turn adds to one, or stores it."""

    @asynccontextmanager
    async def taken(self, keys: Iterable[str], unit: Unit | None, what: str) -> AsyncIterator[bool]:
        """Wait for the turn of all of these keys; whether it was waited for.

        Inside another turn, and inside a transaction, nothing waits: who holds a turn, or the lock on the log, must not wait
        for a turn whose holder may wait for that.

        Args:
            keys: What it is about.
            unit: The transaction that it is inside of.
            what: The command, for messages.

        Raises:
            InvalidOptionError: a turn around this one is about one of the keys.
        """
        locks = [self._lock(key) for key in sorted(set(keys))]  # all take them in this order
        outer = [turn for turn in _taken.get() if turn.locks]
        if any(lock in turn.locks for turn in outer for lock in locks):
            raise InvalidOptionError(
                f"{what} is executed inside of another command that is about the same, and would wait for that one. Call "
                "the function itself instead"
            )
        turn = _Turn(locks)
        token = _taken.set((*outer, turn))
        try:
            if outer or unit is not None:
                yield False
            else:
                async with AsyncExitStack() as stack:
                    for lock in locks:
                        await stack.enter_async_context(lock)
                    yield True
        finally:
            turn.locks = []
            _taken.reset(token)

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


_turns: WeakKeyDictionary[Database, Turns] = WeakKeyDictionary()
"""Shared by all repositories of a store: an application may make one for each request."""


def turns_of(event_store: Any) -> Turns:
    """The turns of a store's database."""
    parts = parts_of(event_store)
    return Turns() if parts is None else _turns.setdefault(parts.database, Turns())


def current_unit_of(event_store: Any) -> Unit | None:
    """The transaction of this store that the running task is inside of."""
    parts = parts_of(event_store)
    return None if parts is None else parts.database.current_unit()
