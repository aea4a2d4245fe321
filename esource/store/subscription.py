"""Following the log: catch up from a position, then live, without a gap or a duplicate at the seam.

A subscription reads pages past its position until there are no more, and then sleeps until something wakes
it: an append of this process, LISTEN/NOTIFY on PostgreSQL, a changed ``PRAGMA data_version`` on SQLite (which
sees other processes), and in any case a slow poll. A wake-up only says "look again"; the position alone
decides what comes next, so a lost or a superfluous one does no harm.

The position also decides after an interruption. A reader that was cancelled, or that got an error of the
database, can ask for the next event again: it continues behind the last one that was handed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import length_hint
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from typing_extensions import Self

from esource.checks import check_id, check_names, check_seconds, check_whole, shown
from esource.database.cancellation import cancellations, uncancel
from esource.database.wakeup import POLL_SECONDS, Waiter
from esource.domain.events import DomainEvent
from esource.domain.queries import Query
from esource.domain.registry import check_event_types
from esource.errors import AsyncRequiredError, InvalidOptionError
from esource.log.pages import last_position
from esource.log.reader import EventReader, LogReader
from esource.log.streams import ReadOptions, StoredEvent, partition_of
from esource.repositories.checkpoint import CheckpointRepository
from esource.store.progress import Progress
from esource.tables.rows import AGGREGATE_ID, STORED_AT, EventRow
from esource.telemetry import FollowerStats, Health


class Subscription:
    """The events past a position, in order, without end; made by `EventStore.subscribe`.

    Iterate it with ``async for``. The reader sets the pace: nothing is fetched ahead of it beyond a page.
    With a checkpoint's name it starts where that checkpoint is, and `save` moves it on.

    One task reads at a time. A read that was cancelled (by a timeout, for instance) or that failed can be
    repeated, and misses nothing. `stop` and `close` may be called from any task of the loop.
    """

    def __init__(
        self,
        reader: LogReader,
        *,
        from_position: int | None = None,
        checkpoint: str | None = None,
        event_types: Iterable[str | type[DomainEvent]] | None = None,
        aggregate_types: Iterable[str] | None = None,
        query: Query | None = None,
        tenant_id: UUID | None = None,
        partition: tuple[int, int] | None = None,
        live: bool = True,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        if from_position is not None and checkpoint is not None:
            raise InvalidOptionError("from_position and checkpoint exclude each other")
        if from_position is not None:
            check_whole("from_position", from_position, most=None)
        if partition is not None and not _is_share(partition):
            raise InvalidOptionError(f"partition must be (number from 0, how many), not {shown(partition)}")
        if tenant_id is not None:
            check_id("tenant_id", tenant_id)
        check_seconds("poll_seconds", poll_seconds)
        self._reader = reader
        self._database = reader.database
        self._progress = None if checkpoint is None else Progress(reader, checkpoint, partition)
        wanted = check_event_types(event_types)
        self._wanted = wanted
        self._aggregate_types = check_names("aggregate_types", aggregate_types)
        self._query = query
        self._tenant_id = tenant_id
        self._partition = partition
        self._live = live
        self._poll_seconds = poll_seconds
        self._position = from_position
        self._head = 0
        """The end of the log when the pages at hand were begun."""
        self._pages: EventReader | None = None
        """The events up to the end of the log; None where the end has to be looked for first."""
        self._last: StoredEvent | None = None
        self._kept: StoredEvent | None = None
        """Fetched for `esource.sync`, and not handed over yet."""
        self._sifted: Iterator[EventRow] | None = None
        """What is left of a page without the events of other partitions."""
        self._stopping = False
        self._is_read = False
        """Whether a task is waiting for the next event."""
        self._read_ended: asyncio.Future[None] | None = None
        """What `close` waits for while a task reads."""
        self._looking: asyncio.Task[Any] | None = None
        """The task that looks for the end of the log, or waits there."""
        self._cuts = 0
        """How often `close` has cancelled the task that reads."""
        self._waiter: Waiter | None = None
        self._held = ExitStack()
        """What is let go at the end: the wake-ups, and the place among the followers that run."""
        self._options()  # says what contradicts itself
        self._stats = FollowerStats(
            "subscription",
            "" if self._progress is None else self._progress.name,
            lambda: self._database.outage.reason,
        )

    @property
    def checkpoint(self) -> str | None:
        """The name of the checkpoint in the database: ``mails``, and ``mails[0/2]`` of the first of two partitions;
        None without one. Code that saves it in its own transaction needs it."""
        return None if self._progress is None else self._progress.name

    @property
    def _event_types(self) -> frozenset[str] | None:
        """The stored types that are wanted, with those of classes that were registered meanwhile."""
        return None if self._wanted is None else self._reader.codec.registry.types_of(self._wanted)

    @property
    def position(self) -> int:
        """The global position up to which everything has been handed over; 0 before the first."""
        return self._position or 0

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __iter__(self) -> NoReturn:
            raise AsyncRequiredError("a subscription", "async for stored in store.subscribe(...)")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        if self._is_read:
            raise InvalidOptionError(
                "another task is reading this subscription: make one for each, or read in one task"
            )
        self._is_read = True
        try:
            try:
                while not self._stopping:
                    event = await self._next()
                    if event is not None:
                        self._last = event
                        return event
            except asyncio.CancelledError:
                if not self._is_cut():
                    raise
            await self._let_go()
            raise StopAsyncIteration
        finally:
            self._is_read = False
            if self._read_ended is not None:
                self._read_ended.set_result(None)
                self._read_ended = None

    async def _keep(self, *, at_hand: bool = False) -> None:
        """Fetch the next event for `esource.sync`, and keep it until it is handed over: Ctrl-C may come in between.

        Args:
            at_hand: Only if it was fetched already: that never waits, and needs no hop to the loop's thread.
        """
        if self._stopping:
            self._kept = None
        if self._kept is not None:
            return
        if at_hand:
            pages = None if self._stopping else self._pages
            if pages is not None and self._partition is not None and pages.rows is not self._sifted:
                pages.rows = self._sifted = iter([row for row in pages.rows if self._belongs(row)])
            if pages is None or not length_hint(pages.rows):
                return
        last = self._last
        event = await self.__anext__()
        self._last, self._position, self._kept = last, event.global_position - 1, event

    async def _next(self) -> StoredEvent | None:
        """The next event; None if there is none yet, or if it was left out."""
        if self._pages is None:
            self._looking = asyncio.current_task()
            try:
                await self._look()
            finally:
                self._looking = None
            return None
        try:
            event = await self._pages.__anext__()
        except StopAsyncIteration:
            self._pages = None
            # Past events that the filter left out, so that they are not read again.
            self._position = max(self.position, self._head)
            self._stats.advance(self._position, 0)
            return None
        except BaseException:
            # The pages have ended themselves and given their connection back. They begin anew at the position.
            self._pages = None
            raise
        if self._stopping or not self._belongs(event.row):
            return None
        self._position = event.global_position
        self._stats.advance(event.global_position, 1)
        self._stats.oldest = event.row[STORED_AT]
        return event

    async def _look(self) -> None:
        """Begin to read what is past the position; at the end of the log, wait for more, or stop."""
        if self._position is None:
            self._position = 0 if self._progress is None else await self._progress.begin()
        waiter = self._begin()
        if waiter is not None:
            waiter.clear()
        # Read before the events: whatever is at or below it is visible to the query that follows.
        self._head = self._stats.head = await last_position(self._database)
        if self._head > self.position:
            self._pages = self._reader.read_all(self._options())
            return
        self._stats.advance(self.position, 0)
        pause = await self._move_past()
        if waiter is None:
            self._stopping = True
        elif not self._stopping:
            await waiter.wait(min(pause, self._poll_seconds))

    async def _move_past(self) -> float:
        """Let the checkpoint move past what the filters left out; the seconds until that is due."""
        if self._progress is None:
            return self._poll_seconds
        handed = 0 if self._last is None else self._last.global_position
        return await self._progress.advance(handed, self.position, at_once=not self._live)

    def _begin(self) -> Waiter | None:
        """Be counted among the followers that run; what is woken up by appends, if they are waited for."""
        if not self._stats.is_running:
            self._held.enter_context(self._stats.running(metrics=self._reader.tracer is not None))
            if self._live:
                self._waiter = self._held.enter_context(self._database.wake_up.listening())
        return self._waiter

    def _options(self) -> ReadOptions:
        return ReadOptions(
            from_position=self.position,
            event_types=self._event_types,
            aggregate_types=self._aggregate_types,
            query=self._query,
            tenant_id=self._tenant_id,
        )

    def _belongs(self, row: EventRow) -> bool:
        if self._partition is None:
            return True
        number, partitions = self._partition
        return partition_of(row[AGGREGATE_ID], partitions) == number

    async def save(self) -> None:
        """Move the checkpoint to the event handed over last: all up to it has been dealt with.

        At the end of the log the checkpoint moves past the events that the filters left out by itself, once all
        that was handed over is saved.

        Raises:
            InvalidOptionError: the subscription has no checkpoint.
        """
        if self._progress is None:
            raise InvalidOptionError("save() needs a subscription with checkpoint=")
        if self._last is not None:
            await self._progress.save(self._last)

    async def health(self) -> Health:
        """How far behind the log it is. One query, which knows of the subscription's filters only the
        event types: with others it is behind by so many events at most."""
        return await self._stats.ask(self._lag())

    def health_now(self) -> Health:
        """How it is doing, by what it has noted itself. No I/O."""
        return self._stats.noted()

    async def _lag(self) -> tuple[int, int, float]:
        position = self.position
        return position, *await CheckpointRepository(self._reader).get_lag(position, self._event_types)

    def stop(self) -> None:
        """End the iteration after the event at hand, from any task of the loop. It stays ended."""
        self._stopping = True
        if self._waiter is not None:
            self._waiter.call()

    async def close(self) -> None:
        """End the iteration, from any task of the loop, and let go of what it holds.

        A task that waits for the next event gets the end of the iteration instead; a page that is being read
        is waited for, for 5 seconds at most. Afterwards every connection is back.
        """
        self.stop()
        while self._is_read:
            if self._read_ended is None:
                self._read_ended = asyncio.get_running_loop().create_future()
            _, late = await asyncio.wait([self._read_ended], timeout=self._database.close_seconds)
            if late:
                self._cut()
        await self._let_go()
        await self._database.wake_up.settle()

    def _cut(self) -> None:
        """Cancel the task that reads, while it waits for the database: a network that is gone may never answer."""
        reading = self._looking if self._pages is None else self._pages.fetching
        if reading is not None:
            self._cuts += 1
            reading.cancel()

    def _is_cut(self) -> bool:
        """Whether `close` has cancelled the task that reads, and nobody else has."""
        task = asyncio.current_task()
        if not self._cuts or task is None:
            return False
        for _ in range(self._cuts):
            uncancel(task)
        self._cuts = 0
        return not cancellations(task)

    async def _let_go(self) -> None:
        pages, self._pages = self._pages, None
        self._waiter = None
        self._held.close()
        if pages is not None:
            await pages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._stats.failed(error)  # of the application, at the event that was handed over last
        await self.close()


def _is_share(partition: object) -> bool:
    """Whether it is one of several partitions: ``(number, of)``."""
    if not isinstance(partition, tuple) or len(partition) != 2:
        return False
    number, of = partition
    return type(number) is type(of) is int and 0 <= number < of
