"""`esource.repositories.checkpoint` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from esource.repositories import checkpoint as asynchronous
from esource.repositories.checkpoint import CheckpointData, LagMetrics
from esource.sync.driven import Driven, Source


class CheckpointRepository(Driven):
    """Checkpoints in the database of a store, an engine, a session factory, a URL, an open
    `aiosqlite.Connection`, or an open transaction.

    A checkpoint moves only forward: saving the same position again, or an older one, changes nothing
    and counts nothing; `reset_checkpoint` is the one way back.

    A store bound to a tenant has checkpoints of its own: the same name is another checkpoint for each
    tenant (stored as ``<tenant id>:<name>``), and counts only that tenant's events.
    """

    _target: asynchronous.CheckpointRepository

    def __init__(self, database: Source) -> None:
        self._hold(asynchronous.CheckpointRepository, (database))

    def get_checkpoint(self, projection_name: str) -> UUID | None:
        """The id of the last event that was processed; None if there is no checkpoint."""
        return self._call(self._target.get_checkpoint(projection_name))

    def get_checkpoint_data(self, projection_name: str) -> CheckpointData | None:
        """The whole checkpoint; None if there is none."""
        return self._call(self._target.get_checkpoint_data(projection_name))

    def get_position(self, subscription_id: str) -> int | None:
        """The global position reached; None if there is no checkpoint."""
        return self._call(self._target.get_position(subscription_id))

    def save_position(self, subscription_id: str, position: int, event_id: UUID, event_type: str) -> bool:
        """Record that everything up to this position has been processed; whether that was news.

        Raises:
            InvalidOptionError: a negative position, or an event id that is not a UUID.
            InvalidEventError: a name that cannot be stored.
        """
        return self._call(self._target.save_position(subscription_id, position, event_id, event_type))

    def move_past(self, subscription_id: str, dealt: int, position: int, *, create: bool = False) -> bool:
        """Record that nothing is left to do up to a position, because no event between is wanted; whether that
        was news. Counts no event, and does nothing to a checkpoint that was set back meanwhile.

        Args:
            subscription_id: The checkpoint's name.
            dealt: Where the checkpoint is at least: the last event that was wanted.
            position: Where it is to be.
            create: Make a checkpoint that does not exist.

        Raises:
            InvalidOptionError: a negative position.
            InvalidEventError: a name that cannot be stored.
        """
        return self._call(self._target.move_past(subscription_id, dealt, position, create=create))

    def update_checkpoint(self, projection_name: str, event_id: UUID, event_type: str) -> bool:
        """Record that this event has been processed, at its own position in the log; whether that was
        news."""
        return self._call(self._target.update_checkpoint(projection_name, event_id, event_type))

    def get_lag_metrics(
        self, projection_name: str, event_types: list[str] | None = None
    ) -> LagMetrics | None:
        """How far the projection is behind, counting only these event types if given; None if it has no
        checkpoint. Three queries."""
        return self._call(self._target.get_lag_metrics(projection_name, event_types))

    def get_lag(self, position: int, event_types: Iterable[str] | None = None) -> tuple[int, float]:
        """How many events are past a position, and the age of the first of them in seconds; only of
        these event types if given. One query."""
        return self._call(self._target.get_lag(position, event_types))

    def reset_checkpoint(self, projection_name: str) -> None:
        """Forget the checkpoint: the projection starts from the beginning."""
        self._call(self._target.reset_checkpoint(projection_name))

    def get_all_checkpoints(self) -> list[CheckpointData]:
        """Every checkpoint, by name."""
        return self._call(self._target.get_all_checkpoints())

    def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        self._call(self._target.close())


class SQLiteCheckpointRepository(CheckpointRepository):
    """Checkpoints in a SQLite database, for instance on an open `aiosqlite.Connection`."""

    _target: asynchronous.SQLiteCheckpointRepository


class PostgreSQLCheckpointRepository(CheckpointRepository):
    """Checkpoints in a PostgreSQL database."""

    _target: asynchronous.PostgreSQLCheckpointRepository


class InMemoryCheckpointRepository(CheckpointRepository):
    """Checkpoints in a private in-memory database, or in that of the store given."""

    _target: asynchronous.InMemoryCheckpointRepository

    def __init__(self, database: Source | None = None) -> None:
        self._hold(asynchronous.InMemoryCheckpointRepository, (database))
