"""esource: the event store for Python, on SQLite and PostgreSQL."""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esource.checks import Limits
    from esource.database.patience import Retry
    from esource.domain.aggregates import AggregateRoot
    from esource.domain.declarative import DeclarativeAggregate
    from esource.domain.events import DomainEvent, UntypedEvent, correlated, upcaster
    from esource.domain.handles import handles
    from esource.domain.queries import AppendCondition, Query, QueryItem
    from esource.domain.registry import EventRegistry, default_registry, register_event
    from esource.domain.stream_closed import StreamClosed
    from esource.domain.tags import Tag
    from esource.domain.views import View
    from esource.errors import (
        AggregateNotFoundError,
        AppendConditionError,
        DuplicateEventError,
        EventSourceError,
        InvalidEventError,
        InvalidOptionError,
        OptimisticLockError,
        ProjectionFailedError,
        StreamClosedError,
        TenantMismatchError,
    )
    from esource.log.querying import QueryResult
    from esource.log.streams import (
        AppendResult,
        EventStream,
        ExpectedVersion,
        ReadDirection,
        ReadOptions,
        StoredEvent,
        partition_of,
    )
    from esource.projections.context import ProjectionContext
    from esource.projections.projection import Every, Projection
    from esource.projections.runner import ProjectionRunner
    from esource.projections.versions import active_version
    from esource.publishing.publishers import BatchPublisher, FastStreamPublisher, Publisher, to_cloud_event
    from esource.publishing.relay import OutboxRelay
    from esource.repositories.checkpoint import (
        CheckpointRepository,
        InMemoryCheckpointRepository,
        PostgreSQLCheckpointRepository,
        SQLiteCheckpointRepository,
    )
    from esource.repositories.dlq import (
        DLQRepository,
        InMemoryDLQRepository,
        PostgreSQLDLQRepository,
        SQLiteDLQRepository,
    )
    from esource.repositories.lease import Lease
    from esource.repositories.outbox import (
        InMemoryOutboxRepository,
        OutboxRepository,
        PostgreSQLOutboxRepository,
        SQLiteOutboxRepository,
    )
    from esource.repositories.snapshot import (
        InMemorySnapshotStore,
        PostgreSQLSnapshotStore,
        Snapshot,
        SnapshotStore,
        SQLiteSnapshotStore,
    )
    from esource.store.doors import PostgreSQLEventStore, SQLiteEventStore, open_store
    from esource.store.memory import InMemoryEventStore
    from esource.store.repository import AggregateRepository, EventPublisher
    from esource.store.store import EventStore
    from esource.store.subscription import Subscription
    from esource.store.transaction import Transaction
    from esource.telemetry import Health

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
    "AppendCondition",
    "AppendConditionError",
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
    "checks": "Limits",
    "database.patience": "Retry",
    "domain.aggregates": "AggregateRoot",
    "domain.declarative": "DeclarativeAggregate",
    "domain.events": "DomainEvent UntypedEvent correlated upcaster",
    "domain.handles": "handles",
    "domain.queries": "AppendCondition Query QueryItem",
    "domain.registry": "EventRegistry default_registry register_event",
    "domain.stream_closed": "StreamClosed",
    "domain.tags": "Tag",
    "domain.views": "View",
    "errors": (
        "AggregateNotFoundError AppendConditionError DuplicateEventError EventSourceError InvalidEventError "
        "InvalidOptionError OptimisticLockError ProjectionFailedError StreamClosedError "
        "TenantMismatchError"
    ),
    "log.querying": "QueryResult",
    "log.streams": (
        "AppendResult EventStream ExpectedVersion ReadDirection ReadOptions StoredEvent partition_of"
    ),
    "projections.context": "ProjectionContext",
    "projections.projection": "Every Projection",
    "projections.runner": "ProjectionRunner",
    "projections.versions": "active_version",
    "publishing.publishers": "BatchPublisher FastStreamPublisher Publisher to_cloud_event",
    "publishing.relay": "OutboxRelay",
    "repositories.checkpoint": (
        "CheckpointRepository InMemoryCheckpointRepository PostgreSQLCheckpointRepository "
        "SQLiteCheckpointRepository"
    ),
    "repositories.dlq": ("DLQRepository InMemoryDLQRepository PostgreSQLDLQRepository SQLiteDLQRepository"),
    "repositories.lease": "Lease",
    "repositories.outbox": (
        "InMemoryOutboxRepository OutboxRepository PostgreSQLOutboxRepository SQLiteOutboxRepository"
    ),
    "repositories.snapshot": (
        "InMemorySnapshotStore PostgreSQLSnapshotStore SQLiteSnapshotStore Snapshot SnapshotStore"
    ),
    "store.doors": "PostgreSQLEventStore SQLiteEventStore open_store",
    "store.memory": "InMemoryEventStore",
    "store.repository": "AggregateRepository EventPublisher",
    "store.store": "EventStore",
    "store.subscription": "Subscription",
    "store.transaction": "Transaction",
    "telemetry": "Health",
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
