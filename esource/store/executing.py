"""Commands on aggregates: load, call, append, and again after a conflict.

Commands of one process on one stream take turns, since all but one of them would conflict. Those that wait at the same
time are called one after the other on the same object, and form a group: one append stores what all of them have recorded, or
none of it. Nothing is sent before the append of the group before it has ended. Until the append has succeeded, no command of
the group has an outcome, not even a refusal, because the one before it may come to nothing.

An aggregate is kept for the next command only when its events are stored: it is taken out of the cache before a command is
called, and what a command leaves that is cancelled, or whose append ends in an error, never comes back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Generic
from uuid import UUID

from esource.checks import check_id, check_whole
from esource.database.calls import answer_of
from esource.database.cancellation import uninterrupted
from esource.database.patience import Retry, pause_or_raise
from esource.database.sources import parts_of
from esource.errors import (
    DuplicateEventError,
    InvalidEventError,
    InvalidOptionError,
    OptimisticLockError,
    PrivacyError,
    TenantMismatchError,
)
from esource.log.streams import AppendResult
from esource.store.commands import require_command
from esource.store.groups import Group, Part, Target
from esource.store.saving import Saved, TAggregate
from esource.store.store import EventStore
from esource.store.turns import current_unit_of, turns_of

CACHE_SIZE = 256
"""Aggregates that a repository keeps in memory at most, for `AggregateRepository.execute`."""


_OF_ONE = (InvalidEventError, InvalidOptionError, DuplicateEventError, TenantMismatchError, PrivacyError)
"""Errors of one command's events, raised before anything is written: the other commands of its group are called again."""


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
        self._turns = turns_of(event_store)
        # What a destroyed key makes unreadable in the log must not be readable in memory.
        self._cache_size = 0 if parts is not None and parts.key_store is not None else cache_size
        self._cache: dict[UUID, TAggregate] = {}
        """The one that was used last is the last one."""
        self._waiting: Counter[UUID] = Counter()
        """How many commands wait for their turn on an aggregate."""

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
        require_command(command)

        async def call(aggregate: TAggregate) -> None:
            await answer_of(partial(command, aggregate, *arguments, **keywords))

        target = Target(aggregate_id, find, call)
        is_alone = iscoroutinefunction(command)  # others would wait for what it awaits
        attempt = 1
        while True:
            part = await self._take_part(target, is_alone)
            group = part.group
            if group.error is not None:
                raise group.error
            if group.saved is not None:
                if part.refusal is not None:
                    raise part.refusal
                result = group.saved.result
                if group.commands == 1:
                    return result
                return AppendResult(True, part.version, result.global_position if part.has_events else 0)
            if group.conflict is not None and group.is_proved:
                await pause_or_raise(self._retry, attempt, group.conflict)
                attempt += 1
            is_alone = is_alone or group.is_divided

    async def _take_part(self, target: Target[TAggregate], is_alone: bool) -> Part[TAggregate]:
        """Call the command in its turn, and wait until it is known what became of its group.

        The last one that waits for its turn stores the group. The first one does what follows from that.
        """
        key = target.aggregate_id
        async with self._turn(key) as is_taken:
            before = self._turns.groups.get(self._stream(key)) if is_taken else None
            if before is not None and (is_alone or before.send != self.send):
                await before.send(key, before)
            part = (
                await self._join(target)
                if is_taken and not is_alone
                else await self._begin(target, is_kept=is_taken)
            )
            group = part.group
            is_open = self._turns.groups.get(self._stream(key)) is group
            if not is_open or key not in self._waiting or group.is_full:
                await self.send(key, group, is_kept=is_taken, is_mine=group.commands == 1)
        if not part.leads:
            await group.done.wait()
            return part
        try:
            await group.wake.wait()
            if not group.is_sent:
                async with self._turn(key):
                    await self.send(key, group)
            await group.settled.wait()
        except asyncio.CancelledError:
            if group.is_sent:  # the events are those of others, too
                await uninterrupted(group.follow())
            raise
        else:
            await group.follow()
        finally:
            self._give_up(key, group)  # if it was cancelled; else nothing is left to give up
        return part

    @asynccontextmanager
    async def _turn(self, aggregate_id: UUID) -> AsyncIterator[bool]:
        """A turn on an aggregate; whether it was waited for (see `Turns.taken`)."""
        stream = self._stream(aggregate_id)
        waiting = self._waiting
        waiting[aggregate_id] += 1

        def waits_no_more() -> None:
            waiting[aggregate_id] -= 1
            if not waiting[aggregate_id]:
                del waiting[aggregate_id]

        def is_cancelled() -> None:
            waits_no_more()
            group = self._turns.groups.get(stream)
            if group is not None and aggregate_id not in waiting:
                group.wake.set()  # it was the one that would have stored the group

        with ExitStack() as stack:
            stack.callback(is_cancelled)
            unit = current_unit_of(self._event_store)
            async with self._turns.taken([stream], unit, f"a command on {stream}") as is_taken:
                stack.pop_all()
                waits_no_more()
                yield is_taken

    def _stream(self, aggregate_id: UUID) -> str:
        return f"{self._aggregate_type} {aggregate_id}"

    async def _begin(self, target: Target[TAggregate], *, is_kept: bool) -> Part[TAggregate]:
        """Call the command on the aggregate as it was kept; if that decides nothing, as it is stored."""
        aggregate = self._cache.pop(target.aggregate_id, None) if is_kept else None
        is_proved = aggregate is None or not await _is_decided_on(aggregate, target.call)
        if aggregate is None or is_proved:
            aggregate = await target.find(target.aggregate_id)
            await target.call(aggregate)
        group = Group(self.send, aggregate, is_proved=is_proved)
        return Part(group, True, aggregate.version, aggregate.has_uncommitted_events, None)

    async def _join(self, target: Target[TAggregate]) -> Part[TAggregate]:
        """Call the command on what the group before it has made of the aggregate; without a group, begin one."""
        key = target.aggregate_id
        group: Group[TAggregate] | None = self._turns.groups.get(self._stream(key))
        if group is None:
            part = await self._begin(target, is_kept=True)
            if part.has_events:
                self._turns.groups[self._stream(key)] = part.group
            return part
        before = group.aggregate.version
        refusal: Exception | None = None
        try:
            await target.call(group.aggregate)
        except Exception as error:
            refusal = error
            await self._restore(target, group, before)
        except BaseException:
            self._give_up(key, group)
            raise
        group.commands += 1
        version = group.aggregate.version
        return Part(group, False, version, version > before, refusal)

    async def _restore(self, target: Target[TAggregate], group: Group[TAggregate], version: int) -> None:
        """Take back what a command that raised has left in the aggregate of its group."""
        key, events = target.aggregate_id, group.aggregate.uncommitted_events[: version - group.base]
        try:
            fresh = await target.find(key)
            if fresh.version != group.base:
                group.conflict = OptimisticLockError(self._aggregate_type, key, group.base, fresh.version)
                self._give_up(key, group)
                return
            for event in events:
                fresh.apply_event(event)
        except BaseException as error:
            group.is_divided = True  # else all would begin anew, together again
            self._give_up(key, group)
            if not isinstance(error, Exception):
                raise
        else:
            group.aggregate, group.is_proved = fresh, True

    async def send(
        self, aggregate_id: UUID, group: Group[TAggregate], *, is_kept: bool = True, is_mine: bool = False
    ) -> None:
        """Store what the commands of a group have recorded, once; to the end, unless it is the caller's own command alone."""
        if group.is_sent:
            return
        self._forget(aggregate_id, group)
        group.is_sent = True
        work = self._settle(aggregate_id, group, is_kept)
        await (work if is_mine else uninterrupted(work))

    async def _settle(self, aggregate_id: UUID, group: Group[TAggregate], is_kept: bool) -> None:
        try:
            saved = await self._store(group.aggregate)
        except OptimisticLockError as conflict:
            group.conflict = conflict
        except Exception as error:
            if group.commands > 1 and isinstance(error, _OF_ONE):
                group.is_divided = True
            else:
                group.error = error
        else:
            group.saved = saved
            if is_kept and saved.has_events and self._cache_size:
                self._cache[aggregate_id] = saved.part()
                if len(self._cache) > self._cache_size:
                    del self._cache[next(iter(self._cache))]
        finally:
            group.wake.set()
            group.settled.set()

    def _give_up(self, aggregate_id: UUID, group: Group[TAggregate]) -> None:
        """Let the commands of a group go on: if nothing of it was sent, they begin anew."""
        self._forget(aggregate_id, group)
        group.is_sent = True
        group.wake.set()
        group.settled.set()
        group.done.set()

    def _forget(self, aggregate_id: UUID, group: Group[TAggregate]) -> None:
        """Let no others join a group."""
        stream = self._stream(aggregate_id)
        if self._turns.groups.get(stream) is group:
            del self._turns.groups[stream]


async def _is_decided_on(cached: TAggregate, call: Callable[[TAggregate], Awaitable[None]]) -> bool:
    """Whether the command has recorded anything on an aggregate from the cache. A refusal decides nothing: another writer
    may have changed the aggregate since."""
    try:
        await call(cached)
    except Exception:  # it is called again, on what is stored, and may raise it again
        return False
    return cached.has_uncommitted_events
