"""`esource.store.transaction` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.domain.events import DomainEvent
from esource.domain.queries import AppendCondition
from esource.log.streams import AppendResult, ExpectedVersion
from esource.log.writer import LogWriter
from esource.privacy.keys import KeyStore
from esource.store import transaction as asynchronous
from esource.sync.checkpoint import CheckpointRepository
from esource.sync.connection import Connection
from esource.sync.dlq import DLQRepository
from esource.sync.driven import Driven
from esource.sync.outbox import OutboxRepository
from esource.sync.snapshot import SnapshotStore


class Transaction(Driven):
    """An open transaction of a store, yielded by `EventStore.transaction`."""

    _target: asynchronous.Transaction

    def __init__(
        self,
        writer: LogWriter,
        unit: Unit,
        database: Database,
        tenant_id: UUID | None,
        key_store: KeyStore | None,
    ) -> None:
        self._hold(asynchronous.Transaction, writer, unit, (database), tenant_id, key_store)

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the store is bound to; None for the whole store."""
        return self._target.tenant_id

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection inside the transaction: for a read model in the same database. What
        runs on it is your own SQL: no tenant restricts it. The transaction ends with its block, and only there.

        Raises:
            StoreClosedError: the transaction has ended.
            InvalidOptionError: the connection is asked to commit, to roll back, to begin or to close.
        """
        return Connection._around(self._target.connection, self)

    def append_events(
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
        return self._call(
            self._target.append_events(
                aggregate_id, aggregate_type, events, expected_version, condition=condition, tags=tags
            )
        )

    def append(
        self,
        events: Sequence[DomainEvent],
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
    ) -> AppendResult:
        """`EventStore.append`, as part of this transaction."""
        return self._call(self._target.append(events, condition=condition, tags=tags))

    def close_stream(
        self,
        aggregate_id: UUID,
        aggregate_type: str,
        expected_version: int = ExpectedVersion.STREAM_EXISTS,
        *,
        reason: str | None = None,
    ) -> AppendResult:
        """`EventStore.close_stream`, as part of this transaction."""
        return self._call(
            self._target.close_stream(aggregate_id, aggregate_type, expected_version, reason=reason)
        )

    @property
    def checkpoints(self) -> CheckpointRepository:
        """Checkpoints, saved as part of this transaction."""
        return CheckpointRepository._around(self._target.checkpoints, self)

    @property
    def snapshots(self) -> SnapshotStore:
        """Snapshots, saved as part of this transaction."""
        return SnapshotStore._around(self._target.snapshots, self)

    @property
    def dead_letters(self) -> DLQRepository:
        """Dead letters, written as part of this transaction."""
        return DLQRepository._around(self._target.dead_letters, self)

    @property
    def outbox(self) -> OutboxRepository:
        """The outbox, written as part of this transaction."""
        return OutboxRepository._around(self._target.outbox, self)
