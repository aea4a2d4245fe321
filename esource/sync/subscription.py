"""`esource.store.subscription` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from uuid import UUID

from typing_extensions import Self

from esource.database.wakeup import POLL_SECONDS
from esource.domain.events import DomainEvent
from esource.domain.queries import Query
from esource.log.reader import LogReader
from esource.log.streams import StoredEvent
from esource.store import subscription as asynchronous
from esource.sync.driven import Driven
from esource.telemetry import Health


class Subscription(Driven):
    """The events past a position, in order, without end; made by `EventStore.subscribe`.

    Iterate it with ``for``. The reader sets the pace: nothing is fetched ahead of it beyond a page.
    With a checkpoint's name it starts where that checkpoint is, and `save` moves it on.

    One task reads at a time. A read that was cancelled (by a timeout, for instance) or that failed can be
    repeated, and misses nothing. `stop` and `close` may be called from any thread.
    """

    _target: asynchronous.Subscription

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
        self._hold(
            asynchronous.Subscription,
            reader,
            from_position=from_position,
            checkpoint=checkpoint,
            event_types=event_types,
            aggregate_types=aggregate_types,
            query=query,
            tenant_id=tenant_id,
            partition=partition,
            live=live,
            poll_seconds=poll_seconds,
        )

    @property
    def checkpoint(self) -> str | None:
        """The name of the checkpoint in the database: ``mails``, and ``mails[0/2]`` of the first of two partitions;
        None without one. Code that saves it in its own transaction needs it."""
        return self._target.checkpoint

    @property
    def position(self) -> int:
        """The global position up to which everything has been handed over; 0 before the first."""
        return self._target.position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StoredEvent:
        try:
            return self._following(self._target)
        except StopAsyncIteration:
            raise StopIteration from None

    def save(self) -> None:
        """Move the checkpoint to the event handed over last: all up to it has been dealt with.

        At the end of the log the checkpoint moves past the events that the filters left out by itself, once all
        that was handed over is saved.

        Raises:
            InvalidOptionError: the subscription has no checkpoint.
        """
        self._call(self._target.save())

    def health(self) -> Health:
        """How far behind the log it is. One query, which knows of the subscription's filters only the
        event types: with others it is behind by so many events at most."""
        return self._call(self._target.health())

    def health_now(self) -> Health:
        """How it is doing, by what it has noted itself. No I/O."""
        return self._target.health_now()

    def stop(self) -> None:
        """End the iteration after the event at hand, from any thread. It stays ended."""
        self._target._stopping = True
        self._tell(self._target.stop)

    def close(self) -> None:
        """End the iteration, from any thread, and let go of what it holds.

        A task that waits for the next event gets the end of the iteration instead; a page that is being read
        is waited for, for 5 seconds at most. Afterwards every connection is back.
        """
        self._call(self._target.close())

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)
