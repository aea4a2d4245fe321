"""esource: the event store for Python, on SQLite and PostgreSQL."""

from importlib.util import find_spec as _find_spec

from esource.aggregates import AggregateRoot, DeclarativeAggregate, handles
from esource.checkpoints import (
    CheckpointRepository,
    PostgreSQLCheckpointRepository,
    SQLiteCheckpointRepository,
)
from esource.dead_letters import DLQRepository, PostgreSQLDLQRepository, SQLiteDLQRepository
from esource.errors import (
    AggregateNotFoundError,
    DuplicateEventError,
    EventSourceError,
    InvalidEventError,
    InvalidOptionError,
    OptimisticLockError,
    TenantMismatchError,
)
from esource.events import (
    DomainEvent,
    EventRegistry,
    UntypedEvent,
    default_registry,
    register_event,
    upcaster,
)
from esource.memory import (
    InMemoryCheckpointRepository,
    InMemoryDLQRepository,
    InMemoryEventStore,
    InMemoryOutboxRepository,
    InMemorySnapshotStore,
)
from esource.outbox import OutboxRepository, PostgreSQLOutboxRepository, SQLiteOutboxRepository
from esource.repository import AggregateRepository, EventPublisher
from esource.snapshots import PostgreSQLSnapshotStore, Snapshot, SnapshotStore, SQLiteSnapshotStore
from esource.store import EventStore, PostgreSQLEventStore, SQLiteEventStore, open_store
from esource.streams import (
    AppendResult,
    EventStream,
    ExpectedVersion,
    ReadDirection,
    ReadOptions,
    StoredEvent,
)
from esource.subscriptions import Subscription, partition_of
from esource.transaction import Transaction

SQLITE_AVAILABLE: bool = _find_spec("aiosqlite") is not None
"""Whether the SQLite driver is installed (``pip install esource[sqlite]``)."""

POSTGRESQL_AVAILABLE: bool = _find_spec("asyncpg") is not None
"""Whether the PostgreSQL driver is installed (``pip install esource[postgresql]``)."""

__version__ = "0.1.0"

__all__ = [
    "POSTGRESQL_AVAILABLE",
    "SQLITE_AVAILABLE",
    "AggregateNotFoundError",
    "AggregateRepository",
    "AggregateRoot",
    "AppendResult",
    "CheckpointRepository",
    "DLQRepository",
    "DeclarativeAggregate",
    "DomainEvent",
    "DuplicateEventError",
    "EventPublisher",
    "EventRegistry",
    "EventSourceError",
    "EventStore",
    "EventStream",
    "ExpectedVersion",
    "InMemoryCheckpointRepository",
    "InMemoryDLQRepository",
    "InMemoryEventStore",
    "InMemoryOutboxRepository",
    "InMemorySnapshotStore",
    "InvalidEventError",
    "InvalidOptionError",
    "OptimisticLockError",
    "OutboxRepository",
    "PostgreSQLCheckpointRepository",
    "PostgreSQLDLQRepository",
    "PostgreSQLEventStore",
    "PostgreSQLOutboxRepository",
    "PostgreSQLSnapshotStore",
    "ReadDirection",
    "ReadOptions",
    "SQLiteCheckpointRepository",
    "SQLiteDLQRepository",
    "SQLiteEventStore",
    "SQLiteOutboxRepository",
    "SQLiteSnapshotStore",
    "Snapshot",
    "SnapshotStore",
    "StoredEvent",
    "Subscription",
    "TenantMismatchError",
    "Transaction",
    "UntypedEvent",
    "default_registry",
    "handles",
    "open_store",
    "partition_of",
    "register_event",
    "upcaster",
]
