"""esource: the event store for Python, on SQLite and PostgreSQL."""

from importlib.util import find_spec as _find_spec

from esource.aggregates import AggregateRoot, DeclarativeAggregate
from esource.checkpoints import (
    CheckpointRepository,
    PostgreSQLCheckpointRepository,
    SQLiteCheckpointRepository,
)
from esource.dead_letters import DLQRepository, PostgreSQLDLQRepository, SQLiteDLQRepository
from esource.doors import PostgreSQLEventStore, SQLiteEventStore, open_store
from esource.errors import (
    AggregateNotFoundError,
    DuplicateEventError,
    EventSourceError,
    InvalidEventError,
    InvalidOptionError,
    OptimisticLockError,
    ProjectionFailedError,
    StreamClosedError,
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
from esource.handlers import ProjectionContext, handles
from esource.health import Health
from esource.leases import Lease
from esource.limits import Limits
from esource.memory import (
    InMemoryCheckpointRepository,
    InMemoryDLQRepository,
    InMemoryEventStore,
    InMemoryOutboxRepository,
    InMemorySnapshotStore,
)
from esource.outbox import OutboxRepository, PostgreSQLOutboxRepository, SQLiteOutboxRepository
from esource.projections import Every, Projection, ProjectionRunner, Retry, active_version
from esource.publishers import BatchPublisher, FastStreamPublisher, Publisher, to_cloud_event
from esource.relay import OutboxRelay
from esource.repository import AggregateRepository, EventPublisher
from esource.snapshots import PostgreSQLSnapshotStore, Snapshot, SnapshotStore, SQLiteSnapshotStore
from esource.store import EventStore
from esource.streams import (
    AppendResult,
    EventStream,
    ExpectedVersion,
    ReadDirection,
    ReadOptions,
    StoredEvent,
)
from esource.subscriptions import Subscription, partition_of
from esource.system_events import StreamClosed
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
    "BatchPublisher",
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
    "Every",
    "ExpectedVersion",
    "FastStreamPublisher",
    "Health",
    "InMemoryCheckpointRepository",
    "InMemoryDLQRepository",
    "InMemoryEventStore",
    "InMemoryOutboxRepository",
    "InMemorySnapshotStore",
    "InvalidEventError",
    "InvalidOptionError",
    "Lease",
    "Limits",
    "OptimisticLockError",
    "OutboxRelay",
    "OutboxRepository",
    "PostgreSQLCheckpointRepository",
    "PostgreSQLDLQRepository",
    "PostgreSQLEventStore",
    "PostgreSQLOutboxRepository",
    "PostgreSQLSnapshotStore",
    "Projection",
    "ProjectionContext",
    "ProjectionFailedError",
    "ProjectionRunner",
    "Publisher",
    "ReadDirection",
    "ReadOptions",
    "Retry",
    "SQLiteCheckpointRepository",
    "SQLiteDLQRepository",
    "SQLiteEventStore",
    "SQLiteOutboxRepository",
    "SQLiteSnapshotStore",
    "Snapshot",
    "SnapshotStore",
    "StoredEvent",
    "StreamClosed",
    "StreamClosedError",
    "Subscription",
    "TenantMismatchError",
    "Transaction",
    "UntypedEvent",
    "active_version",
    "default_registry",
    "handles",
    "open_store",
    "partition_of",
    "register_event",
    "to_cloud_event",
    "upcaster",
]
