"""esource for programs without an event loop: the same names, without `async` and `await`.

    from esource.sync import AggregateRepository, SQLiteEventStore

    with SQLiteEventStore("events.db") as store:
        store.initialize()
        orders = AggregateRepository(store, Order)

Everything here drives the asynchronous code. A store may be shared between threads. What is no store, repository,
runner, relay or subscription is the same object as in `esource`. `esource.sync.directory` has many logs under one name, and
`fill_tags` is the one of `esource.copying`.
"""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from esource import (
    POSTGRESQL_AVAILABLE,
    SQLITE_AVAILABLE,
    AggregateNotFoundError,
    AggregateRoot,
    AppendCondition,
    AppendConditionError,
    AppendResult,
    BatchPublisher,
    DeclarativeAggregate,
    DomainEvent,
    DuplicateEventError,
    EventPublisher,
    EventRegistry,
    EventSourceError,
    EventStream,
    Every,
    ExpectedVersion,
    FastStreamPublisher,
    Health,
    InvalidEventError,
    InvalidOptionError,
    Limits,
    OptimisticLockError,
    ProjectionFailedError,
    Publisher,
    Query,
    QueryItem,
    QueryResult,
    ReadDirection,
    ReadOptions,
    Retry,
    Snapshot,
    StoredEvent,
    StreamClosed,
    StreamClosedError,
    Tag,
    TenantMismatchError,
    UntypedEvent,
    View,
    active_version,
    correlated,
    default_registry,
    handles,
    partition_of,
    register_event,
    to_cloud_event,
    upcaster,
)
from esource.sync.checkpoint import (
    CheckpointRepository,
    InMemoryCheckpointRepository,
    PostgreSQLCheckpointRepository,
    SQLiteCheckpointRepository,
)
from esource.sync.connection import Connection
from esource.sync.dlq import (
    DLQRepository,
    InMemoryDLQRepository,
    PostgreSQLDLQRepository,
    SQLiteDLQRepository,
)
from esource.sync.doors import PostgreSQLEventStore, SQLiteEventStore
from esource.sync.event_store import EventStore
from esource.sync.filling import fill_tags
from esource.sync.lease import Lease
from esource.sync.memory import InMemoryEventStore
from esource.sync.opening import open_store
from esource.sync.outbox import (
    InMemoryOutboxRepository,
    OutboxRepository,
    PostgreSQLOutboxRepository,
    SQLiteOutboxRepository,
)
from esource.sync.projection import Projection, ProjectionContext
from esource.sync.relay import OutboxRelay
from esource.sync.repository import AggregateRepository
from esource.sync.runner import ProjectionRunner
from esource.sync.snapshot import (
    InMemorySnapshotStore,
    PostgreSQLSnapshotStore,
    SnapshotStore,
    SQLiteSnapshotStore,
)
from esource.sync.subscription import Subscription
from esource.sync.transaction import Transaction

__all__ = [
    "POSTGRESQL_AVAILABLE",
    "SQLITE_AVAILABLE",
    "AggregateNotFoundError",
    "AggregateRepository",
    "AggregateRoot",
    "AppendCondition",
    "AppendConditionError",
    "AppendResult",
    "BatchPublisher",
    "CheckpointRepository",
    "Connection",
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
    "Query",
    "QueryItem",
    "QueryResult",
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
    "Tag",
    "TenantMismatchError",
    "Transaction",
    "UntypedEvent",
    "View",
    "active_version",
    "correlated",
    "default_registry",
    "fill_tags",
    "handles",
    "open_store",
    "partition_of",
    "register_event",
    "to_cloud_event",
    "upcaster",
]
