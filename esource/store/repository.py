"""Loading aggregates from their streams and saving what they recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec
from uuid import UUID

from esource.checks import check_choice, check_whole, shown
from esource.database.patience import Retry
from esource.database.transactions import Connection
from esource.domain.aggregates import AggregateRoot, require_restorable
from esource.domain.events import DomainEvent
from esource.errors import AggregateNotFoundError, InvalidOptionError, StreamClosedError
from esource.log.streams import AppendResult, EventStream
from esource.privacy.fields import personal_types
from esource.repositories.snapshot import Snapshot, SnapshotStore
from esource.store.executing import CACHE_SIZE, Executor
from esource.store.saving import EventPublisher, Saved, TAggregate
from esource.store.snapshotting import SnapshotMode, Snapshotting
from esource.store.store import EventStore
from esource.store.turns import RETRY, current_unit_of
from esource.telemetry import Tracer, get_tracer, span

P = ParamSpec("P")


class AggregateRepository(Generic[TAggregate]):
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
        if isinstance(event_store, type) or not hasattr(event_store, "append_events"):
            found = event_store.__name__ if isinstance(event_store, type) else type(event_store).__name__
            raise InvalidOptionError(f"event_store must be a store, as open_store(url) makes it, not {found}")
        if not callable(aggregate_factory):
            raise InvalidOptionError(
                f"aggregate_factory must be the class of an aggregate, not {aggregate_factory!r}"
            )
        inferred = getattr(aggregate_factory, "aggregate_type", "")
        self._aggregate_type: str = aggregate_type or inferred
        if not self._aggregate_type:
            raise InvalidOptionError("aggregate_factory is no aggregate class: pass aggregate_type as well")
        if snapshot_threshold is not None:
            check_whole("snapshot_threshold", snapshot_threshold, least=1)
            if snapshot_store is None:
                raise InvalidOptionError("snapshot_threshold needs a snapshot_store")
        if snapshot_store is not None:
            require_restorable(aggregate_factory)
        check_choice("snapshot_mode", snapshot_mode, ("sync", "background", "manual"))
        self._event_store = event_store
        self._factory = aggregate_factory
        self._publisher = event_publisher
        self._snapshots = (
            None
            if snapshot_store is None
            else Snapshotting(
                event_store,
                aggregate_factory,
                self._aggregate_type,
                snapshot_store,
                snapshot_threshold,
                snapshot_mode,
            )
        )
        self._tracer = tracer if tracer is not None else get_tracer(enabled=enable_tracing)
        self._executor: Executor[TAggregate] = Executor(
            event_store, self._aggregate_type, self._store, cache_size, retry
        )

    @property
    def aggregate_type(self) -> str:
        return self._aggregate_type

    @property
    def event_store(self) -> EventStore:
        return self._event_store

    def create_new(self, aggregate_id: UUID) -> TAggregate:
        """A fresh aggregate at version 0. No I/O."""
        return self._factory(aggregate_id)

    async def load(self, aggregate_id: UUID) -> TAggregate:
        """The aggregate, rebuilt from its snapshot (if there is a fitting one) and its events.

        One whose stream was closed is loaded like any other; only saving it is refused.

        Raises:
            AggregateNotFoundError: it has no events.
            StreamClosedError: its stream was closed, and nothing but that is left of it (`esource.archive`).
        """
        aggregate = await self._find(aggregate_id)
        if aggregate is None:
            raise AggregateNotFoundError(self._aggregate_type, aggregate_id)
        return aggregate

    async def get_or_raise(self, aggregate_id: UUID) -> TAggregate:
        """The same as `load`, for readers of older code."""
        return await self.load(aggregate_id)

    async def load_or_create(self, aggregate_id: UUID) -> TAggregate:
        """The aggregate, or a fresh one if it has no events.

        Raises:
            StreamClosedError: as `load` does.
        """
        aggregate = await self._find(aggregate_id)
        return self.create_new(aggregate_id) if aggregate is None else aggregate

    async def _find(self, aggregate_id: UUID) -> TAggregate | None:
        with span(
            self._tracer, "repository.load", aggregate_type=self._aggregate_type, aggregate_id=aggregate_id
        ):
            aggregate, stream = await self._read(aggregate_id)
            if stream.version == 0:
                return None
            events = stream.events
            if aggregate.version:  # from a snapshot on, whose own event was read as its proof
                events = [event for event in events if event.aggregate_version > aggregate.version]
            if stream.is_closed:
                if len(events) == 1 and aggregate.version == 0:
                    raise StreamClosedError(self._aggregate_type, aggregate_id)
                events = events[:-1]  # the end of a stream is nothing that its aggregate knows of
            self._require_impersonal(aggregate, events)
            aggregate.load_from_history(events)
            aggregate._version = stream.version  # also past events that the store skips as unknown
            last = stream.latest_event
            is_known = last is not None and last.aggregate_version == stream.version
            aggregate._stored_event_id = last.event_id if last is not None and is_known else None
            return aggregate

    async def _read(self, aggregate_id: UUID) -> tuple[TAggregate, EventStream]:
        """An aggregate as its snapshot has it, and its events from the snapshot's own event on; else a fresh one,
        and all of its events."""
        aggregate = self._factory(aggregate_id)
        if self._snapshots is not None:
            snapshot = await self._snapshots.restore(aggregate)
            if snapshot is not None:
                stream = await self._event_store.get_events(
                    aggregate_id, self._aggregate_type, from_version=snapshot.version - 1
                )
                if await self._snapshots.is_proved(snapshot, stream):
                    return aggregate, stream
            aggregate = self._factory(aggregate_id)  # without what a snapshot has left in it
        return aggregate, await self._event_store.get_events(aggregate_id, self._aggregate_type)

    async def save(self, aggregate: TAggregate, *, connection: Connection | None = None) -> AppendResult:
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
        if not isinstance(aggregate, AggregateRoot):
            raise InvalidOptionError(f"save takes an aggregate, not {shown(aggregate)}")
        saved = await self._store(aggregate, connection)
        if saved.is_settled:
            await saved.tell()
            await saved.take_snapshot()
        return saved.result

    async def _store(self, aggregate: TAggregate, connection: Connection | None = None) -> Saved[TAggregate]:
        """Append what the aggregate recorded. Inside a transaction, what follows from it is done after the commit."""
        if connection is not None and self._publisher is not None:
            raise InvalidOptionError(
                "event_publisher is told after a commit, and that of connection= is the application's: use the outbox"
            )
        events = aggregate.uncommitted_events
        if not events:
            nothing = AppendResult(True, aggregate.version)
            return Saved(aggregate, nothing, self._publisher, self._snapshots, self._event_store.tenant_id)
        self._require_impersonal(aggregate, events)
        joined: dict[str, Any] = {} if connection is None else {"connection": connection}
        with span(
            self._tracer,
            "repository.save",
            aggregate_type=self._aggregate_type,
            aggregate_id=aggregate.aggregate_id,
            event_count=len(events),
        ):
            result = await self._event_store.append_events(
                aggregate.aggregate_id,
                self._aggregate_type,
                events,
                expected_version=aggregate.version - len(events),
                **joined,
            )
        snapshots, unit = (None, None) if joined else (self._snapshots, current_unit_of(self._event_store))
        saved = Saved(aggregate, result, self._publisher, snapshots, self._event_store.tenant_id)
        if unit is None:
            saved.settle(True)
        else:
            unit.effects.add(saved.settle, saved.follow)
        return saved

    def _require_impersonal(self, aggregate: TAggregate, events: list[DomainEvent]) -> None:
        """Refuse personal data where snapshots are taken.

        Raises:
            InvalidOptionError: a snapshot would keep in clear what these events keep under a key.
        """
        if self._snapshots is None or aggregate.snapshot_is_impersonal:
            return
        kinds = personal_types(events)
        if kinds:
            raise InvalidOptionError(
                f"{', '.join(sorted(kinds))}: a snapshot of {self._aggregate_type} would keep their personal "
                "fields in clear, and no key destroys it. Use a repository without snapshot_store, or set "
                "snapshot_is_impersonal on the aggregate's class if its state holds none of them"
            )

    async def execute(
        self,
        aggregate_id: UUID,
        command: Callable[Concatenate[TAggregate, P], object],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> AppendResult:
        """Load an aggregate, give it a command, and save it: ``await orders.execute(order_id, Order.ship, "TRACK-1")``.

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
        return await self._executor.execute(aggregate_id, self.load, command, arguments, keywords)

    async def execute_or_create(
        self,
        aggregate_id: UUID,
        command: Callable[Concatenate[TAggregate, P], object],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> AppendResult:
        """The same as `execute`, on a fresh aggregate if it has no events:
        ``await orders.execute_or_create(uuid4(), Order.place, "customer-123", 99.99)``.

        Raises:
            OptimisticLockError: as `execute` does, and so all others but `AggregateNotFoundError`.
        """
        return await self._executor.execute(aggregate_id, self.load_or_create, command, arguments, keywords)

    async def create_snapshot(self, aggregate: TAggregate) -> Snapshot:
        """Take a snapshot of a saved aggregate now.

        Raises:
            InvalidOptionError: there is no snapshot store, or the aggregate has unsaved events.
            InvalidEventError: the state cannot be written as JSON.
        """
        if self._snapshots is None:
            raise InvalidOptionError("create_snapshot needs a snapshot_store")
        if aggregate.has_uncommitted_events:
            raise InvalidOptionError("save the aggregate before its snapshot: it has uncommitted events")
        if aggregate.version == 0:
            raise InvalidOptionError("an aggregate without events has no snapshot")
        await self._snapshots.prove(aggregate)
        snapshot = self._snapshots.of(aggregate)
        await self._snapshots.save(snapshot)
        return snapshot

    async def await_pending_snapshots(self) -> int:
        """Wait for the snapshots being taken in the background; how many there were."""
        pending = [] if self._snapshots is None else list(self._snapshots.pending)
        # One that a shutdown has cancelled is no cancellation of the caller.
        await asyncio.gather(*pending, return_exceptions=True)
        return len(pending)

    @property
    def pending_snapshot_count(self) -> int:
        return 0 if self._snapshots is None else len(self._snapshots.pending)

    async def exists(self, aggregate_id: UUID) -> bool:
        """Whether the aggregate has events, if only the one that closed it. One query, no events loaded."""
        return await self.get_version(aggregate_id) > 0

    async def get_version(self, aggregate_id: UUID) -> int:
        """The stored version; 0 if it has no events. One query, no events loaded."""
        return await self._event_store.get_stream_version(aggregate_id, self._aggregate_type)


__all__ = ["AggregateRepository", "EventPublisher", "SnapshotMode"]
