"""The outbox, under the path that eventsource-py had."""

from esource.memory import InMemoryOutboxRepository
from esource.outbox import (
    OutboxEntry,
    OutboxRepository,
    OutboxStats,
    PostgreSQLOutboxRepository,
    SQLiteOutboxRepository,
)

__all__ = [
    "InMemoryOutboxRepository",
    "OutboxEntry",
    "OutboxRepository",
    "OutboxStats",
    "PostgreSQLOutboxRepository",
    "SQLiteOutboxRepository",
]
