"""Dead letters, under the path that eventsource-py had."""

from esource.dead_letters import (
    DLQEntry,
    DLQRepository,
    DLQStats,
    PostgreSQLDLQRepository,
    ProjectionFailureCount,
    SQLiteDLQRepository,
)
from esource.memory import InMemoryDLQRepository

__all__ = [
    "DLQEntry",
    "DLQRepository",
    "DLQStats",
    "InMemoryDLQRepository",
    "PostgreSQLDLQRepository",
    "ProjectionFailureCount",
    "SQLiteDLQRepository",
]
