"""Checkpoints, under the path that eventsource-py had."""

from esource.checkpoints import (
    CheckpointData,
    CheckpointRepository,
    LagMetrics,
    PostgreSQLCheckpointRepository,
    SQLiteCheckpointRepository,
)
from esource.memory import InMemoryCheckpointRepository

__all__ = [
    "CheckpointData",
    "CheckpointRepository",
    "InMemoryCheckpointRepository",
    "LagMetrics",
    "PostgreSQLCheckpointRepository",
    "SQLiteCheckpointRepository",
]
