"""Commands on aggregates: load, call, append, and again after a conflict.

Commands of one process on one stream wait for their turn, since all but one of them would conflict. An aggregate is kept
for the next command only when its events are stored: it is taken out of the cache before a command is called, and what a
command leaves that fails, is cancelled, or whose append ends in an error never comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, Generic
from uuid import UUID
from weakref import WeakKeyDictionary, WeakValueDictionary

from esource.checks import check_id, check_whole, shown
from esource.database.calls import answer_of
from esource.database.database import Database
from esource.database.patience import Retry
from esource.database.sources import parts_of
from esource.database.unit_of_work import Unit
from esource.domain.aggregates import AggregateRoot
from esource.errors import InvalidOptionError, OptimisticLockError
from esource.log.streams import AppendResult
from esource.store.saving import Saved, TAggregate
from esource.store.store import EventStore
from esource.tables.rows import StreamId

CACHE_SIZE = 256
"""Aggregates that a repository keeps in memory at most, for `AggregateRepository.execute`."""

RETRY = Retry(attempts=10, first_seconds=0.005, longest_seconds=0.5)
"""How often a command is tried when other processes come first."""


class Turns:
    """Commands on one stream of a database, one after the other within a process."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[StreamId, asyncio.Lock] = WeakValueDictionary()

    def of(self, stream: StreamId) -> asyncio.Lock:
        """The stream's lock; it is forgotten when no command holds it or waits for it."""
        lock = self._locks.get(stream)
        if lock is None:
            lock = self._locks[stream] = asyncio.Lock()
        return lock


_turns: WeakKeyDictionary[Database, Turns] = WeakKeyDictionary()
"""Shared by all repositories of a store: an application may make one for each request."""


class _Execution:
    """A command at work, as the commands that it calls see it."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self.lock: asyncio.Lock | None = lock
        """None when it is over: a task that the command has started may go on for longer."""


_outer: ContextVar[tuple[_Execution, ...]] = ContextVar("esource_executing", default=())


def current_unit_of(event_store: EventStore) -> Unit | None:
    """The transaction of this store that the running task is inside of."""
    parts = parts_of(event_store)
    return None if parts is None else parts.database.current_unit()


class Executor(Generic[TAggregate]):
    """Gives commands to one kind of aggregate, for its repository.

    Args:
        event_store: Where the events are.
        aggregate_type: The stored type.
        store: Appends what an aggregate recorded.
        cache_size: How many aggregates to keep.
        retry: How often to try.
    """

    def __init__(
        self,
        event_store: EventStore,
        aggregate_type: str,
        store: Callable[[TAggregate], Awaitable[Saved[TAggregate]]],
        cache_size: int,
        retry: Retry,
    ) -> None:
        parts = parts_of(event_store)
        check_whole("cache_size", cache_size)
        self._event_store = event_store
        self._aggregate_type = aggregate_type
        self._store = store
        self._retry = retry
        self._turns = Turns() if parts is None else _turns.setdefault(parts.database, Turns())
        # What a destroyed key makes unreadable in the log must not be readable in memory.
        self._cache_size = 0 if parts is not None and parts.key_store is not None else cache_size
        self._cache: dict[UUID, TAggregate] = {}
        """The one that was used last is the last one."""

    async def execute(
        self,
        aggregate_id: UUID,
        find: Callable[[UUID], Awaitable[TAggregate]],
        command: Callable[..., object],
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
    ) -> AppendResult:
        """See `AggregateRepository.execute`; ``find`` loads the aggregate."""
        check_id("aggregate_id", aggregate_id)
        _require_command(command)
        lock = self._turns.of(StreamId(aggregate_id, self._aggregate_type))
        execution = _Execution(lock)
        outer = [each for each in _outer.get() if each.lock is not None]
        if any(each.lock is lock for each in outer):
            raise InvalidOptionError(
                f"a command on {self._aggregate_type} {aggregate_id} executes another one on the same aggregate, which "
                "would wait for itself. Call the other method instead"
            )

        async def call(aggregate: TAggregate) -> None:
            await answer_of(partial(command, aggregate, *arguments, **keywords))

        token = _outer.set((*outer, execution))
        try:
            if outer or current_unit_of(self._event_store) is not None:
                # Who holds a turn, or the lock on the log, must not wait for a turn: its holder may wait for this one.
                saved = await self._decide(aggregate_id, find, call)
            else:
                async with lock:
                    saved = await self._in_turn(aggregate_id, find, call)
        finally:
            execution.lock = None
            _outer.reset(token)
        if saved.is_settled:
            await saved.follow()
        return saved.result

    async def _in_turn(
        self,
        aggregate_id: UUID,
        find: Callable[[UUID], Awaitable[TAggregate]],
        call: Callable[[TAggregate], Awaitable[None]],
    ) -> Saved[TAggregate]:
        cached = self._cache.pop(aggregate_id, None)
        saved = None if cached is None else await self._decide_on(cached, call)
        if saved is None:
            saved = await self._decide(aggregate_id, find, call)
        if saved.has_events and self._cache_size:
            self._cache[aggregate_id] = saved.part()
            if len(self._cache) > self._cache_size:
                del self._cache[next(iter(self._cache))]
        return saved

    async def _decide_on(
        self, cached: TAggregate, call: Callable[[TAggregate], Awaitable[None]]
    ) -> Saved[TAggregate] | None:
        """What comes of the command on an aggregate from the cache; None if another writer may have changed it since,
        so that this decides nothing."""
        try:
            await call(cached)
        except Exception:  # it is called again, on what is stored, and may raise it again
            return None
        if not cached.has_uncommitted_events:
            return None
        try:
            return await self._store(cached)
        except OptimisticLockError:
            return None

    async def _decide(
        self,
        aggregate_id: UUID,
        find: Callable[[UUID], Awaitable[TAggregate]],
        call: Callable[[TAggregate], Awaitable[None]],
    ) -> Saved[TAggregate]:
        """What comes of the command on the aggregate as it is stored."""
        attempt = 1
        while True:
            aggregate = await find(aggregate_id)
            await call(aggregate)
            try:
                return await self._store(aggregate)
            except OptimisticLockError:
                if attempt >= self._retry.attempts:
                    raise
            await asyncio.sleep(self._retry.pause_after(attempt))
            attempt += 1


def _require_command(command: object) -> None:
    if not callable(command):
        raise InvalidOptionError(
            f"the command must be a function of the aggregate, as Order.ship, not {shown(command)}"
        )
    if isinstance(getattr(command, "__self__", None), AggregateRoot):
        raise InvalidOptionError(
            f"the command must be the method of the class ({command.__qualname__}), not that of an object: it is called "  # type: ignore[attr-defined]
            "on the aggregate that is loaded"
        )
