"""Following the log: catch up from a position, then live, without a gap or a duplicate at the seam.

A subscription reads pages past its position until there are no more, and then sleeps until something wakes
it: an append of this process, LISTEN/NOTIFY on PostgreSQL, a changed ``PRAGMA data_version`` on SQLite (which
sees other processes), and in any case a slow poll. A wake-up only says "look again"; the position alone
decides what comes next, so a lost or a superfluous one does no harm.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from typing_extensions import Self

from esource.database.wakeup import POLL_SECONDS
from esource.errors import AsyncRequiredError, InvalidOptionError
from esource.log.pages import last_position
from esource.log.reader import LogReader
from esource.log.streams import ReadOptions, StoredEvent, partition_of
from esource.repositories.checkpoint import CheckpointRepository
from esource.tables.rows import AGGREGATE_ID, STORED_AT
from esource.telemetry import FollowerStats, Health


class Subscription:
    """The events past a position, in order, without end; made by `EventStore.subscribe`.

    Iterate it with ``async for``. The reader sets the pace: nothing is fetched ahead of it beyond a page.
    With a checkpoint's name it starts where that checkpoint is, and `save` moves it on.
    """

    def __init__(
        self,
        reader: LogReader,
        *,
        from_position: int | None = None,
        checkpoint: str | None = None,
        event_types: Iterable[str] | None = None,
        aggregate_types: Iterable[str] | None = None,
        tenant_id: UUID | None = None,
        partition: tuple[int, int] | None = None,
        live: bool = True,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        if from_position is not None and checkpoint is not None:
            raise InvalidOptionError("from_position and checkpoint exclude each other")
        if partition is not None and not 0 <= partition[0] < partition[1]:
            raise InvalidOptionError(f"partition must be (number from 0, how many), not {partition}")
        if poll_seconds <= 0:
            raise InvalidOptionError(f"poll_seconds must be more than 0, not {poll_seconds}")
        self._reader = reader
        self._database = reader.database
        self._checkpoint = checkpoint
        self._event_types = None if event_types is None else frozenset(event_types)
        self._aggregate_types = None if aggregate_types is None else frozenset(aggregate_types)
        self._tenant_id = tenant_id
        self._partition = partition
        self._live = live
        self._poll_seconds = poll_seconds
        self._position = from_position
        self._events: AsyncIterator[StoredEvent] | None = None
        self._last: StoredEvent | None = None
        self._stopping = False
        self._stats = FollowerStats("subscription", checkpoint or "")

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
        if self._events is None:
            self._events = self._follow()
        self._last = await self._events.__anext__()
        return self._last

    async def _follow(self) -> AsyncIterator[StoredEvent]:
        if self._position is None:
            self._position = await self._saved_position()
        with self._stats.running(metrics=self._reader.tracer is not None):
            if not self._live:
                async for event in self._catch_up():
                    yield event
                return
            with self._database.wake_up.listening() as waiter:
                while not self._stopping:
                    waiter.clear()
                    before = self._position
                    async for event in self._catch_up():
                        yield event
                    if self._position == before and not self._stopping:
                        await waiter.wait(self._poll_seconds)

    async def _catch_up(self) -> AsyncIterator[StoredEvent]:
        """What is past the position now."""
        # Read before the events: whatever is at or below it is visible to the query that follows.
        head = await last_position(self._database)
        self._stats.head = head
        if head <= self.position:
            self._stats.advance(self.position, 0)
            return
        async for event in self._reader.read_all(self._options()):
            if self._belongs(event):
                self._position = event.global_position
                self._stats.advance(event.global_position, 1)
                self._stats.oldest = event.row[STORED_AT]
                yield event
                if self._stopping:
                    return
        # Past events that the filter left out, so that they are not read again.
        self._position = max(self.position, head)
        self._stats.advance(self._position, 0)

    def _options(self) -> ReadOptions:
        return ReadOptions(
            from_position=self.position,
            event_types=self._event_types,
            aggregate_types=self._aggregate_types,
            tenant_id=self._tenant_id,
        )

    def _belongs(self, event: StoredEvent) -> bool:
        if self._partition is None:
            return True
        number, partitions = self._partition
        return partition_of(event.row[AGGREGATE_ID], partitions) == number

    async def _saved_position(self) -> int:
        if self._checkpoint is None:
            return 0
        return await CheckpointRepository(self._reader).get_position(self._checkpoint) or 0

    async def save(self) -> None:
        """Move the checkpoint to the event handed over last: all up to it has been dealt with.

        Raises:
            InvalidOptionError: the subscription has no checkpoint.
        """
        if self._checkpoint is None:
            raise InvalidOptionError("save() needs a subscription with checkpoint=")
        if self._last is not None:
            await CheckpointRepository(self._reader).save_position(
                self._checkpoint, self._last.global_position, self._last.event_id, self._last.event_type
            )

    async def health(self) -> Health:
        """How far behind the log it is. One query, which knows of the subscription's filters only the
        event types: with others it is behind by so many events at most."""
        types = self._event_types
        events, seconds = await CheckpointRepository(self._reader).get_lag(self.position, types)
        return self._stats.health(position=self.position, lag_events=events, lag_seconds=seconds)

    def stop(self) -> None:
        """End the iteration after the event at hand, from any task of the loop."""
        self._stopping = True
        self._database.wake_up.set()

    async def close(self) -> None:
        """End the iteration and let go of what it holds."""
        self._stopping = True
        events: Any = self._events
        if events is not None:
            await events.aclose()
        await self._database.wake_up.settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
