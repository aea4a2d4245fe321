"""Loading aggregates from their streams and saving what they recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

from esource.domain.aggregates import AggregateRoot
from esource.domain.events import DomainEvent
from esource.errors import AggregateNotFoundError, InvalidOptionError, StreamClosedError
from esource.log.tenants import of_its_tenant
from esource.privacy.fields import personal_types
from esource.repositories.snapshot import Snapshot, SnapshotStore
from esource.store.store import EventStore
from esource.telemetry import Tracer, get_tracer, span

TAggregate = TypeVar("TAggregate", bound=AggregateRoot[Any])
SnapshotMode = Literal["sync", "background", "manual"]

logger = logging.getLogger("esource")


class EventPublisher(Protocol):
    """Told of events after they are stored. For delivery that survives a crash, use the outbox."""

    async def publish(self, events: list[DomainEvent]) -> None: ...


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
        if snapshot_threshold is not None and snapshot_threshold < 1:
            raise InvalidOptionError(f"snapshot_threshold must be 1 or more, not {snapshot_threshold}")
        if snapshot_threshold is not None and snapshot_store is None:
            raise InvalidOptionError("snapshot_threshold needs a snapshot_store")
        if snapshot_mode not in ("sync", "background", "manual"):
            raise InvalidOptionError(
                f"snapshot_mode must be 'sync', 'background' or 'manual', not {snapshot_mode!r}"
            )
        self._event_store = event_store
        self._factory = aggregate_factory
        self._publisher = event_publisher
        self._snapshots = snapshot_store
        self._threshold = snapshot_threshold
        self._snapshot_mode: SnapshotMode = snapshot_mode
        self._tracer = tracer if tracer is not None else get_tracer(enabled=enable_tracing)
        self._pending: set[asyncio.Task[Any]] = set()

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
            aggregate = self._factory(aggregate_id)
            if self._snapshots is not None and not await self._restore(aggregate):
                aggregate = self._factory(aggregate_id)  # a failed restore may have left something
            stream = await self._event_store.get_events(
                aggregate_id, self._aggregate_type, from_version=aggregate.version
            )
            if stream.version < aggregate.version:
                logger.warning(
                    "snapshot of %s %s is newer than its events (version %d, stored %d); ignoring it",
                    self._aggregate_type,
                    aggregate_id,
                    aggregate.version,
                    stream.version,
                )
                aggregate = self._factory(aggregate_id)
                stream = await self._event_store.get_events(aggregate_id, self._aggregate_type)
            if stream.version == 0:
                return None
            events = stream.events
            if stream.is_closed:
                if len(events) == 1 and aggregate.version == 0:
                    raise StreamClosedError(self._aggregate_type, aggregate_id)
                events = events[:-1]  # the end of a stream is nothing that its aggregate knows of
            self._require_impersonal(aggregate, events)
            aggregate.load_from_history(events)
            aggregate._version = stream.version  # also past events that the store skips as unknown
            return aggregate

    async def _restore(self, aggregate: TAggregate) -> bool:
        """Start from the snapshot, unless it was taken of another form of the state; False if that failed."""
        assert self._snapshots is not None
        try:
            snapshot = await self._snapshots.get_snapshot(aggregate.aggregate_id, self._aggregate_type)
            if snapshot is not None and snapshot.schema_version == aggregate.schema_version:
                aggregate._restore_from_snapshot(snapshot.state, snapshot.version)
        except Exception:
            logger.warning(
                "snapshot of %s %s cannot be used; replaying all events",
                self._aggregate_type,
                aggregate.aggregate_id,
                exc_info=True,
            )
            return False
        return True

    async def save(self, aggregate: TAggregate) -> None:
        """Append what the aggregate recorded, if the stream has not moved since it was loaded.

        Raises:
            OptimisticLockError: another writer came first; the aggregate keeps its events.
            StreamClosedError: the stream was closed.
            InvalidEventError: an event may not be stored.
            InvalidOptionError: there is a snapshot store, and the events have personal fields.
        """
        events = aggregate.uncommitted_events
        if not events:
            return
        self._require_impersonal(aggregate, events)
        with span(
            self._tracer,
            "repository.save",
            aggregate_type=self._aggregate_type,
            aggregate_id=aggregate.aggregate_id,
            event_count=len(events),
        ):
            before = aggregate.version - len(events)
            await self._event_store.append_events(
                aggregate.aggregate_id, self._aggregate_type, events, expected_version=before
            )
            aggregate.mark_events_as_committed()
            if self._publisher is not None:
                tenant_id = self._event_store.tenant_id
                await self._publisher.publish(
                    events if tenant_id is None else [of_its_tenant(event, tenant_id) for event in events]
                )
            if (
                self._threshold is not None
                and aggregate.version // self._threshold > before // self._threshold
            ):
                await self._take_snapshot(aggregate)

    def _require_impersonal(self, aggregate: TAggregate, events: list[DomainEvent]) -> None:
        """
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

    async def _take_snapshot(self, aggregate: TAggregate) -> None:
        if self._snapshot_mode == "manual":
            return
        try:
            snapshot = self._snapshot_of(aggregate)  # now: the aggregate may change before a task runs
        except Exception as error:
            self._warn_of_failure(aggregate.aggregate_id, error)
            return
        if self._snapshot_mode == "sync":
            await self._save_snapshot(snapshot)
            return
        task = asyncio.create_task(self._save_snapshot(snapshot))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _save_snapshot(self, snapshot: Snapshot) -> None:
        assert self._snapshots is not None
        try:
            await self._snapshots.save_snapshot(snapshot)
        except Exception as error:
            self._warn_of_failure(snapshot.aggregate_id, error)

    def _warn_of_failure(self, aggregate_id: UUID, error: Exception) -> None:
        logger.warning("snapshot of %s %s failed", self._aggregate_type, aggregate_id, exc_info=error)

    def _snapshot_of(self, aggregate: TAggregate) -> Snapshot:
        return Snapshot(
            aggregate_id=aggregate.aggregate_id,
            aggregate_type=self._aggregate_type,
            version=aggregate.version,
            state=aggregate._serialize_state(),
            schema_version=aggregate.schema_version,
        )

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
        snapshot = self._snapshot_of(aggregate)
        await self._snapshots.save_snapshot(snapshot)
        return snapshot

    async def await_pending_snapshots(self) -> int:
        """Wait for the snapshots being taken in the background; how many there were."""
        pending = list(self._pending)
        await asyncio.gather(*pending)
        return len(pending)

    @property
    def pending_snapshot_count(self) -> int:
        return len(self._pending)

    async def exists(self, aggregate_id: UUID) -> bool:
        """Whether the aggregate has events, if only the one that closed it. One query, no events loaded."""
        return await self.get_version(aggregate_id) > 0

    async def get_version(self, aggregate_id: UUID) -> int:
        """The stored version; 0 if it has no events. One query, no events loaded."""
        return await self._event_store.get_stream_version(aggregate_id, self._aggregate_type)


__all__ = ["AggregateRepository", "EventPublisher", "SnapshotMode"]
