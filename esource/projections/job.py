"""What the parts of a runner share: the projection at work on a log, and what it may call an outage."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from esource.database.calls import answer_of, called, wait_after_stop
from esource.database.cancellation import drop, uninterrupted
from esource.database.patience import retry
from esource.domain.events import DomainEvent
from esource.domain.queries import Query, narrowed
from esource.errors import (
    DatabaseBusyError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    StoreMovedError,
    error_text,
)
from esource.log.filling import require_filled
from esource.log.pages import Selection
from esource.log.reader import LogReader
from esource.log.streams import ReadOptions, StoredEvent, partition_of
from esource.projections.checkpoints import CheckpointState, Fence
from esource.projections.context import ProjectionContext, Writes
from esource.projections.names import Doing
from esource.projections.projection import Every, Handle, Projection
from esource.repositories.lease import Leases, new_owner
from esource.tables.rows import AGGREGATE_ID, PAYLOAD, EventRow
from esource.telemetry import FollowerStats

if TYPE_CHECKING:
    from esource.database.unit_of_work import Unit

T = TypeVar("T")

logger = logging.getLogger("esource")

_OUTAGES = (DatabaseBusyError, DatabaseFullError, DatabaseReadOnlyError, DatabaseUnavailableError)


class LostCheckpoint(Exception):  # noqa: N818 - a turn of events, not an error
    """The checkpoint is no longer where we began: another worker holds it, or it was set back."""


class Stopping(Exception):  # noqa: N818
    """The runner was told to stop."""


class StopSignal:
    """Tells everything that works for a runner to stop.

    Waiting for it takes no task: a shutdown that cancels every task of the loop would end that one, and whatever
    waits for it would wake up for nothing, again and again.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    @contextmanager
    def future(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done once the signal is set, for as long as the block runs."""
        future = asyncio.get_running_loop().create_future()
        if self._is_set:
            future.set_result(None)
        self._waiting.add(future)
        try:
            yield future
        finally:
            self._waiting.discard(future)
            future.cancel()


class Job:
    """A projection at work on a log, by one worker. No I/O to make it."""

    def __init__(
        self,
        reader: LogReader,
        projection: Projection,
        *,
        owner: str | None,
        partitions: int,
        lease_seconds: float,
        poll_seconds: float,
        handler_seconds: float | None = None,
    ) -> None:
        self.reader = reader
        self.database = reader.database
        self.place = self.database.name
        """Where the log was when the run began."""
        self.projection = projection
        self.partitions = partitions
        self.poll_seconds = poll_seconds
        self.doing = Doing.of(projection, projection.event_types(reader.codec.registry))
        self.leases = Leases(
            self.database, new_owner(str(self.doing)) if owner is None else owner, lease_seconds
        )
        self.stats = FollowerStats(
            "projection", projection.checkpoint_name, lambda: self.database.outage.reason
        )
        self.stopping = StopSignal()
        self.is_building = False
        """Whether an older version is the active one."""
        self._positions: dict[int, int] = {}
        self._decode = reader.codec.decode
        self._key_store = reader.key_store
        self._handlers: dict[type, Handle | None] = {}
        progress = projection.progress
        self._handler_seconds = projection.handler_seconds if handler_seconds is None else handler_seconds
        self.in_transaction = progress == "in_transaction"
        self.every = progress if isinstance(progress, Every) else Every(events=1, seconds=1.0)

    def checkpoint(self, number: int) -> str:
        """The name of a partition's checkpoint."""
        name = self.projection.checkpoint_name
        return name if self.partitions == 1 else f"{name}[{number}/{self.partitions}]"

    def checkpoint_of(self, row: EventRow) -> str:
        """The name of the checkpoint that an event belongs to."""
        return self.checkpoint(partition_of(row[AGGREGATE_ID], self.partitions))

    @property
    def checkpoints(self) -> list[str]:
        return [self.checkpoint(number) for number in range(self.partitions)]

    def own(self, states: dict[str, CheckpointState]) -> dict[str, CheckpointState]:
        """Of all checkpoints, those of this version in its partitions."""
        return {name: states[name] for name in self.checkpoints if name in states}

    def otherwise_divided(self, states: dict[str, CheckpointState]) -> list[str]:
        """Checkpoints of this version that another number of partitions has left behind."""
        pattern = re.compile(re.escape(self.projection.checkpoint_name) + r"(\[\d+/\d+\])?")
        own = set(self.checkpoints)
        return [
            name
            for name, state in states.items()
            if pattern.fullmatch(name) and name not in own and state.has_started
        ]

    def fence(self, number: int) -> Fence:
        projection = self.projection
        return Fence(
            self.checkpoint(number),
            self.leases.owner,
            self.leases.seconds,
            projection.name,
            projection.version,
        )

    def selection(self, types: frozenset[str] | None) -> Selection:
        """The events of the types that the projection handles, as the pages are to be read."""
        query = self._query(types)
        return Selection(
            self.database, ReadOptions(event_types=types) if query is None else ReadOptions(query=query)
        )

    async def require_filled(self) -> None:
        """Refuse to begin while stored events are still being given tags that the projection selects by: they would be
        passed over.

        Raises:
            TagsIncompleteError: they are.
        """
        query = self._query(self.projection.event_types(self.reader.codec.registry))
        if query is not None:
            await self.read(lambda: require_filled(self.database, query))

    def _query(self, types: frozenset[str] | None) -> Query | None:
        selects = self.projection.selects
        return None if selects is None else narrowed(selects, types, self.reader.codec.registry)

    async def handle(self, row: EventRow, unit: Unit | None) -> None:
        """Decode an event, give it to its handler, if it has one, and write what that wants written."""
        writes = Writes()
        await self.gather(row, unit, writes)
        if unit is not None:
            await self.execute(writes, unit)

    async def execute(self, writes: Writes, unit: Unit) -> None:
        """Write what handlers want written: it may wait for locks of others, and is the handlers' doing."""
        await self.call(
            writes.execute(unit.connection), "writing what the handlers have given to context.write()"
        )

    async def gather(self, row: EventRow, unit: Unit | None, writes: Writes) -> None:
        """The same, but what it wants written is only gathered."""
        decode: Callable[[EventRow], DomainEvent] = self._decode
        if self._key_store is not None:
            decode = await self.call(self.reader.decoder((row,)), "the key store")
        stored = StoredEvent(row, decode)
        event = stored.event
        kind = type(event)
        try:
            handler = self._handlers[kind]
        except KeyError:
            handler = self._handlers[kind] = self.projection.handler(kind)
        if handler is not None:
            await self.call(handler(event, ProjectionContext(stored, unit, writes)), "the handler")

    async def call(self, work: Awaitable[T], what: str) -> T:
        """Await code of the application for as long as the projection lets it."""
        return await called(work, what, self._handler_seconds, "handler_seconds", self.stats.note)

    async def reset(self, unit: Unit) -> None:
        """Empty the read model, however long that takes."""
        await called(answer_of(self.projection.reset, unit.lent), "reset()", None, "handler_seconds")

    async def fetch_keys(self, rows: list[EventRow]) -> None:
        """Have the keys of a page's personal fields at hand, with one query instead of one for each event."""
        if self._key_store is not None:
            # What fails here fails again where an event is decoded, and is an attempt at that event there.
            with suppress(Exception):
                await self.call(self._key_store.keys_to_open(row[PAYLOAD] for row in rows), "the key store")

    def known(self, rows: list[EventRow], number: int) -> list[EventRow]:
        """Of a page, the rows of a partition, without those that the policy for unknown types skips."""
        if self.partitions > 1:
            rows = [row for row in rows if partition_of(row[AGGREGATE_ID], self.partitions) == number]
        return self.reader.known(rows)

    def advance(self, number: int, position: int, events: int) -> None:
        """Note that so many events more are dealt with, in a partition that is now at a position."""
        self._positions[number] = position
        self.stats.advance(min(self._positions.values()), events)

    def leave(self, number: int) -> None:
        """Note that another worker has a partition."""
        self._positions.pop(number, None)

    def is_outage(self, error: BaseException) -> bool:
        """Whether the database is the cause, not the event: it is away, locked, full or read-only, or
        asks to try again. Errors of other kinds are the handler's, an `OSError` of its own included."""
        if isinstance(error, SQLAlchemyError):
            error = self.database.backend.explain(error, self.database.name) or error
        return isinstance(error, _OUTAGES)

    def is_moved(self, error: BaseException) -> bool:
        """Whether the cause is that the log has moved, and not the event."""
        return isinstance(error, StoreMovedError) and error.database == self.place

    @property
    def has_moved(self) -> bool:
        """Whether the database leads to another place by now than when the run began."""
        return self.database.name != self.place

    def require_place(self) -> None:
        """Refuse to go on in another place than that where the run began: the leases, and perhaps the checkpoint, are not
        there.

        Raises:
            StoreMovedError: the log has moved.
        """
        if self.has_moved:
            raise StoreMovedError(self.place, self.database.name)

    def failed(self, error: BaseException, what: str) -> None:
        """Count an attempt that failed, and say what comes of it."""
        self.stats.failed(error)
        logger.warning("projection %s: %s: %s", self.stats.name, what, error_text(error), exc_info=error)

    async def unless_stopped(self, work: Coroutine[Any, Any, T], what: str, later: str) -> T:
        """What the work returns. After `ProjectionRunner.stop` it has some seconds left, and is cancelled then.

        Args:
            work: Runs in a task of its own.
            what: Code of the application that it calls, for the message: "its reset()".
            later: What comes of it, for the message.

        Raises:
            Stopping: it was cancelled for that.
        """
        task = asyncio.ensure_future(work)
        try:
            with self.stopping.future() as stopped:
                either: set[asyncio.Future[Any]] = {task, stopped}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await wait_after_stop([task], self.stats.title, what, later)
        finally:
            if not task.done():
                await uninterrupted(drop([task]))
        if not task.cancelled():
            return task.result()
        if self.stopping.is_set():
            raise Stopping
        raise RuntimeError("its task was cancelled by other code")

    async def retry_outages(
        self,
        operation: Callable[[], Awaitable[T]],
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> T:
        """Run what can be repeated; again, with growing pauses, during an outage.

        Raises the last error when the database's `retry_seconds` are over.
        """

        def is_outage(error: BaseException) -> bool:
            found = self.is_outage(error)
            if found:
                self.failed(error, "The database is away; it is tried again")
            return found

        return await retry(
            operation, while_=is_outage, seconds=self.database.retry_seconds, sleep=pause or self.pause
        )

    async def read(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run what only reads; again, with growing pauses, while a lock refuses it. Of what else may pass, the
        database itself waits for the end.

        Raises the last error when the database's `retry_seconds` are over.
        """

        def is_busy(error: BaseException) -> bool:
            if not isinstance(error, DatabaseBusyError):
                return False
            self.failed(error, "The log is locked; it is tried again")
            return True

        return await retry(operation, while_=is_busy, seconds=self.database.retry_seconds, sleep=self.pause)

    async def pause(self, seconds: float) -> None:
        """Wait, unless told to stop.

        Raises:
            Stopping: the runner was told to stop.
        """
        with self.stopping.future() as stopped:
            await asyncio.wait({stopped}, timeout=seconds)
        if self.stopping.is_set():
            raise Stopping
