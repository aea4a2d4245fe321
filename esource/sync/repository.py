"""`esource.store.repository` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Generic
from uuid import UUID

from esource.database.patience import Retry
from esource.log.streams import AppendResult
from esource.repositories.snapshot import Snapshot
from esource.store import repository as asynchronous
from esource.store.executing import CACHE_SIZE
from esource.store.repository import P
from esource.store.saving import EventPublisher, TAggregate
from esource.store.snapshotting import SnapshotMode
from esource.store.turns import RETRY
from esource.sync.connection import Joinable
from esource.sync.driven import Driven, unwrapped
from esource.sync.event_store import EventStore
from esource.sync.snapshot import SnapshotStore
from esource.telemetry import Tracer


class AggregateRepository(Driven, Generic[TAggregate]):
    """Loads and saves one kind of aggregate; the same on every database.

    Args:
        event_store: Where the events are.
        aggregate_factory: The aggregate class, or a function of the id.
        aggregate_type: The stored type; the class's own `aggregate_type` if left out.
        event_publisher: Told of the events after each save.
        snapshot_store: Where snapshots are; loading then replays only what came after.
        snapshot_threshold: Take a snapshot whenever the version passes a multiple of this many events.
        snapshot_mode: ``sync``: as part of `save`; ``background``: in a task of its own, awaited by
            `await_pending_snapshots`; ``manual``: only by `create_snapshot`. A snapshot that fails is
            logged, never an error of `save`: the events are stored.
        tracer: An OpenTelemetry tracer to use instead of our own.
        enable_tracing: OpenTelemetry spans, if it is installed.
        cache_size: How many aggregates `execute` keeps in memory at most, so that it need not load them again; 0 for none.
        retry: How often `execute` tries a command when other processes come first, and how long it waits in between.

    Raises:
        InvalidOptionError: no aggregate type, or options that contradict each other.
    """

    _target: asynchronous.AggregateRepository[TAggregate]

    def __init__(
        self,
        event_store: EventStore,
        aggregate_factory: type[TAggregate] | Callable[[UUID], TAggregate],
        aggregate_type: str | None = None,
        event_publisher: EventPublisher | None = None,
        snapshot_store: SnapshotStore | None = None,
        snapshot_threshold: int | None = None,
        snapshot_mode: SnapshotMode = "sync",
        tracer: Tracer | None = None,
        enable_tracing: bool = True,
        *,
        cache_size: int = CACHE_SIZE,
        retry: Retry = RETRY,
    ) -> None:
        self._hold(
            asynchronous.AggregateRepository,
            (event_store),
            aggregate_factory,
            aggregate_type,
            event_publisher,
            (snapshot_store),
            snapshot_threshold,
            snapshot_mode,
            tracer,
            enable_tracing,
            cache_size=cache_size,
            retry=retry,
        )

    @property
    def aggregate_type(self) -> str:
        return self._target.aggregate_type

    @property
    def event_store(self) -> EventStore:
        return EventStore._around(self._target.event_store, self)

    def create_new(self, aggregate_id: UUID) -> TAggregate:
        """A fresh aggregate at version 0. No I/O."""
        return self._target.create_new(aggregate_id)

    def load(self, aggregate_id: UUID) -> TAggregate:
        """The aggregate, rebuilt from its snapshot (if there is a fitting one) and its events.

        One whose stream was closed is loaded like any other; only saving it is refused.

        Raises:
            AggregateNotFoundError: it has no events.
            StreamClosedError: its stream was closed, and nothing but that is left of it (`esource.archive`).
        """
        return self._call(self._target.load(aggregate_id))

    def get_or_raise(self, aggregate_id: UUID) -> TAggregate:
        """The same as `load`, for readers of older code."""
        return self._call(self._target.get_or_raise(aggregate_id))

    def load_or_create(self, aggregate_id: UUID) -> TAggregate:
        """The aggregate, or a fresh one if it has no events.

        Raises:
            StreamClosedError: as `load` does.
        """
        return self._call(self._target.load_or_create(aggregate_id))

    def save(self, aggregate: TAggregate, *, connection: Joinable | None = None) -> AppendResult:
        """Append what the aggregate recorded, if the stream has not moved since it was loaded.

        The result has the position in the log, for what has to wait until others have read so far. If nothing was
        recorded it is the version that the stream had, with position 0. Inside a transaction the result is valid once
        that commits.

        Inside a transaction the aggregate gets its events back when that is rolled back, so that the whole
        block can be repeated; the publisher is told, and a snapshot is taken, after the commit. Then a publisher
        that fails is logged, because the events are stored. Outside of a transaction its error is raised. Saving
        the aggregate again tells it what it has missed.

        Args:
            aggregate: What has recorded events.
            connection: A transaction of the application's own, as for `EventStore.append_events`. How it ends is not
                known here: load the aggregate again after a rollback. No snapshot is taken.

        Raises:
            OptimisticLockError: another writer came first; the aggregate keeps its events.
            StreamClosedError: the stream was closed.
            InvalidEventError: an event may not be stored.
            InvalidOptionError: there is a snapshot store, and the events have personal fields; or it is no aggregate;
                or both ``connection`` and an ``event_publisher`` are given.
        """
        return self._call(self._target.save(aggregate, connection=unwrapped(connection)))

    def execute(
        self,
        aggregate_id: UUID,
        command: Callable[Concatenate[TAggregate, P], object],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> AppendResult:
        """Load an aggregate, give it a command, and save it: ``orders.execute(order_id, Order.ship, "TRACK-1")``.

        When another process has saved the aggregate meanwhile, the command is called again on the aggregate as it is
        then, so it may be called several times before it counts: what it does besides recording events should be safe to
        repeat. Commands of one process on one aggregate wait for each other instead; those that wait at the same time are
        stored by one append, whose position all of them get. The aggregate may come from a cache; its version is checked by
        the append, and what a command refuses, or leaves without an event, is decided on the aggregate as it is stored. A
        command that raises leaves nothing behind. What it returns is not used.

        Inside a transaction it belongs to that, as `save` does, and nothing waits or is cached. An ``event_publisher`` that
        fails is logged, because the events are stored.

        Args:
            aggregate_id: The aggregate, which must have events; see `execute_or_create` for one that need not.
            command: A method of the aggregate's class, or any function of the aggregate, plain or ``async``.
            arguments: Its arguments after the aggregate.
            keywords: Its keyword arguments.

        Raises:
            AggregateNotFoundError: it has no events.
            OptimisticLockError: other processes came first in every try (`retry`).
            InvalidOptionError: the command executes a command on the same aggregate, which would wait for itself.
            StreamClosedError, InvalidEventError: as `save` raises them; and whatever the command raises.
        """
        return self._call(self._target.execute(aggregate_id, command, *arguments, **keywords))

    def execute_or_create(
        self,
        aggregate_id: UUID,
        command: Callable[Concatenate[TAggregate, P], object],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> AppendResult:
        """The same as `execute`, on a fresh aggregate if it has no events:
        ``orders.execute_or_create(uuid4(), Order.place, "customer-123", 99.99)``.

        Raises:
            OptimisticLockError: as `execute` does, and so all others but `AggregateNotFoundError`.
        """
        return self._call(self._target.execute_or_create(aggregate_id, command, *arguments, **keywords))

    def create_snapshot(self, aggregate: TAggregate) -> Snapshot:
        """Take a snapshot of a saved aggregate now.

        Raises:
            InvalidOptionError: there is no snapshot store, or the aggregate has unsaved events.
            InvalidEventError: the state cannot be written as JSON.
        """
        return self._call(self._target.create_snapshot(aggregate))

    def await_pending_snapshots(self) -> int:
        """Wait for the snapshots being taken in the background; how many there were."""
        return self._call(self._target.await_pending_snapshots())

    @property
    def pending_snapshot_count(self) -> int:
        return self._target.pending_snapshot_count

    def exists(self, aggregate_id: UUID) -> bool:
        """Whether the aggregate has events, if only the one that closed it. One query, no events loaded."""
        return self._call(self._target.exists(aggregate_id))

    def get_version(self, aggregate_id: UUID) -> int:
        """The stored version; 0 if it has no events. One query, no events loaded."""
        return self._call(self._target.get_version(aggregate_id))
