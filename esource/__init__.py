"""esource: the event store for Python, on SQLite and PostgreSQL."""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# A name is imported when it is first asked for (PEP 562): together they cost nearly as much again as
# SQLAlchemy and pydantic (`python -m bench.imports`), and few programs need them all. Type checkers read the
# imports above; a test keeps the two alike.
_HOMES = {
    "aggregates": "AggregateRoot DeclarativeAggregate",
    "checkpoints": "CheckpointRepository PostgreSQLCheckpointRepository SQLiteCheckpointRepository",
    "dead_letters": "DLQRepository PostgreSQLDLQRepository SQLiteDLQRepository",
    "doors": "PostgreSQLEventStore SQLiteEventStore open_store",
    "errors": (
        "AggregateNotFoundError DuplicateEventError EventSourceError InvalidEventError "
        "InvalidOptionError OptimisticLockError ProjectionFailedError StreamClosedError "
        "TenantMismatchError"
    ),
    "events": "DomainEvent EventRegistry UntypedEvent default_registry register_event upcaster",
    "handlers": "ProjectionContext handles",
    "health": "Health",
    "leases": "Lease",
    "limits": "Limits",
    "memory": (
        "InMemoryCheckpointRepository InMemoryDLQRepository InMemoryEventStore "
        "InMemoryOutboxRepository InMemorySnapshotStore"
    ),
    "outbox": "OutboxRepository PostgreSQLOutboxRepository SQLiteOutboxRepository",
    "projections": "Every Projection ProjectionRunner Retry active_version",
    "publishers": "BatchPublisher FastStreamPublisher Publisher to_cloud_event",
    "relay": "OutboxRelay",
    "repository": "AggregateRepository EventPublisher",
    "snapshots": "PostgreSQLSnapshotStore Snapshot SnapshotStore SQLiteSnapshotStore",
    "store": "EventStore",
    "streams": "AppendResult EventStream ExpectedVersion ReadDirection ReadOptions StoredEvent",
    "subscriptions": "Subscription partition_of",
    "system_events": "StreamClosed",
    "transaction": "Transaction",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # else every misspelt name would have a type

    def __getattr__(name: str) -> object:
        """A public name, from its module; or a module of the package, without an import of its own."""
        if name in _HOME_OF:
            value = getattr(_import_module(f"{__name__}.{_HOME_OF[name]}"), name)
            globals()[name] = value
            return value
        if not name.startswith("_") and _find_spec(f"{__name__}.{name}") is not None:
            return _import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
