"""What a save means for its aggregate, its publisher and its snapshot, once its transaction has ended."""

from __future__ import annotations

import logging
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from esource.database.calls import answer_of
from esource.domain.aggregates import AggregateRoot
from esource.domain.events import DomainEvent
from esource.log.streams import AppendResult
from esource.log.tenants import of_its_tenant
from esource.store.snapshotting import Snapshotting

TAggregate = TypeVar("TAggregate", bound=AggregateRoot[Any])

logger = logging.getLogger("esource")


class EventPublisher(Protocol):
    """Told of events after they are stored: inside a transaction, after its commit. One that failed is told again by
    the next `AggregateRepository.save` of the same aggregate. For delivery that survives a crash, use the outbox."""

    async def publish(self, events: list[DomainEvent]) -> None: ...


class Saved(Generic[TAggregate]):
    """One save: the aggregate has given up its events, and gets them back if they are not stored."""

    def __init__(
        self,
        aggregate: TAggregate,
        result: AppendResult,
        publisher: EventPublisher | None,
        snapshots: Snapshotting | None,
        tenant_id: UUID | None,
    ) -> None:
        self.aggregate = aggregate
        self.result = result
        self._publisher = publisher
        self._snapshots = snapshots
        self._tenant_id = tenant_id
        self._events = events = aggregate.uncommitted_events
        self._untold = aggregate._untold
        self._before = aggregate._stored_event_id
        self.is_settled = not events
        """Whether it is known what became of the events."""
        aggregate.mark_events_as_committed()
        if events:
            aggregate._stored_event_id = events[-1].event_id
        self._snapshot = (
            None if snapshots is None else snapshots.due(aggregate, aggregate.version - len(events))
        )

    @property
    def has_events(self) -> bool:
        """Whether anything was recorded, and so stored."""
        return bool(self._events)

    def settle(self, is_stored: bool) -> None:
        aggregate = self.aggregate
        self.is_settled = True
        if not is_stored:
            aggregate._uncommitted[:0] = self._events
            aggregate._stored_event_id = self._before
        elif self._publisher is not None and self._events:
            tenant_id = self._tenant_id
            self._untold.append(
                self._events
                if tenant_id is None
                else [of_its_tenant(event, tenant_id) for event in self._events]
            )

    def part(self) -> TAggregate:
        """The aggregate, for others to go on with: what its publisher was not told yet stays here."""
        self.aggregate._untold = []
        return self.aggregate

    async def tell(self) -> None:
        """Tell the publisher what is stored, and what it has not been told of because it failed."""
        while self._untold:
            assert self._publisher is not None
            await answer_of(self._publisher.publish, list(self._untold[0]))
            del self._untold[0]

    async def follow(self) -> None:
        """What comes after a commit, which no failure of it can undo."""
        try:
            await self.tell()
        except Exception:
            logger.warning(
                "the events of %r are stored, but their publisher failed: save it again to tell the publisher again",
                self.aggregate,
                exc_info=True,
            )
        await self.take_snapshot()

    async def take_snapshot(self) -> None:
        if self._snapshots is not None and self._snapshot is not None:
            await self._snapshots.take(self._snapshot)
