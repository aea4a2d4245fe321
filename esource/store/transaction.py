"""One unit of work over the log and the tables beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.database import Database
from esource.database.sources import SourceParts
from esource.database.unit_of_work import Unit
from esource.domain.events import DomainEvent
from esource.domain.queries import AppendCondition
from esource.log.streams import AppendResult, ExpectedVersion
from esource.log.writer import LogWriter
from esource.privacy.keys import KeyStore
from esource.repositories.checkpoint import CheckpointRepository
from esource.repositories.dlq import DLQRepository
from esource.repositories.outbox import OutboxRepository
from esource.repositories.snapshot import SnapshotStore
from esource.tables.rows import StreamId


class Transaction:
    """An open transaction of a store, yielded by `EventStore.transaction`."""

    def __init__(
        self,
        writer: LogWriter,
        unit: Unit,
        database: Database,
        tenant_id: UUID | None,
        key_store: KeyStore | None,
    ) -> None:
        self._writer = writer
        self._unit = unit
        self._opened = SourceParts(database, unit, tenant_id, key_store)

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the store is bound to; None for the whole store."""
        return self._opened.tenant_id

    @property
    def connection(self) -> AsyncConnection:
        """SQLAlchemy's connection inside the transaction: for a read model in the same database. What
        runs on it is your own SQL: no tenant restricts it. The transaction ends with its block, and only there.

        Raises:
            StoreClosedError: the transaction has ended.
            InvalidOptionError: the connection is asked to commit, to roll back, to begin or to close.
        """
        return self._unit.lent

    async def append_events(
        self,
        aggregate_id: UUID,
        aggregate_type: str,
        events: Sequence[DomainEvent],
        expected_version: int = ExpectedVersion.ANY,
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
    ) -> AppendResult:
        """`EventStore.append_events`, as part of this transaction."""
        self._unit.require_open()
        stream = StreamId(aggregate_id, aggregate_type)
        return await self._writer.append(stream, events, expected_version, self._unit, condition, tags)

    async def append(
        self,
        events: Sequence[DomainEvent],
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
    ) -> AppendResult:
        """`EventStore.append`, as part of this transaction."""
        self._unit.require_open()
        return await self._writer.append_named(events, condition, tags, self._unit)

    async def close_stream(
        self,
        aggregate_id: UUID,
        aggregate_type: str,
        expected_version: int = ExpectedVersion.STREAM_EXISTS,
        *,
        reason: str | None = None,
    ) -> AppendResult:
        """`EventStore.close_stream`, as part of this transaction."""
        self._unit.require_open()
        stream = StreamId(aggregate_id, aggregate_type)
        return await self._writer.close_stream(stream, expected_version, reason, self._unit)

    @cached_property
    def checkpoints(self) -> CheckpointRepository:
        """Checkpoints, saved as part of this transaction."""
        return CheckpointRepository(self)

    @cached_property
    def snapshots(self) -> SnapshotStore:
        """Snapshots, saved as part of this transaction."""
        return SnapshotStore(self)

    @cached_property
    def dead_letters(self) -> DLQRepository:
        """Dead letters, written as part of this transaction."""
        return DLQRepository(self)

    @cached_property
    def outbox(self) -> OutboxRepository:
        """The outbox, written as part of this transaction."""
        return OutboxRepository(self)
