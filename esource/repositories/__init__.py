"""Import paths of the tutorial's library; everything is implemented in the modules above."""

from esource.repositories.checkpoint import (
    CheckpointData,
    CheckpointRepository,
    InMemoryCheckpointRepository,
    LagMetrics,
    PostgreSQLCheckpointRepository,
    SQLiteCheckpointRepository,
)
from esource.repositories.dlq import (
    DLQEntry,
    DLQRepository,
    DLQStats,
    InMemoryDLQRepository,
    PostgreSQLDLQRepository,
    ProjectionFailureCount,
    SQLiteDLQRepository,
)
from esource.repositories.outbox import (
    InMemoryOutboxRepository,
    OutboxEntry,
    OutboxRepository,
    OutboxStats,
    PostgreSQLOutboxRepository,
    SQLiteOutboxRepository,
)

__all__ = [
    "CheckpointData",
    "CheckpointRepository",
    "DLQEntry",
    "DLQRepository",
    "DLQStats",
    "InMemoryCheckpointRepository",
    "InMemoryDLQRepository",
    "InMemoryOutboxRepository",
    "LagMetrics",
    "OutboxEntry",
    "OutboxRepository",
    "OutboxStats",
    "PostgreSQLCheckpointRepository",
    "PostgreSQLDLQRepository",
    "PostgreSQLOutboxRepository",
    "ProjectionFailureCount",
    "SQLiteCheckpointRepository",
    "SQLiteDLQRepository",
    "SQLiteOutboxRepository",
]
