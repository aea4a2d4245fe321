"""`esource.repositories.snapshot` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from uuid import UUID

from esource.repositories import snapshot as asynchronous
from esource.repositories.snapshot import Snapshot
from esource.sync.driven import Driven, Source


class SnapshotStore(Driven):
    """Snapshots in the database of a store, an engine, a session factory, a URL, or an open transaction.

    One snapshot per aggregate. An older one never overwrites a newer one. Of a store bound to a tenant, it
    holds the snapshots of that tenant's streams only.
    """

    _target: asynchronous.SnapshotStore

    def __init__(self, database: Source) -> None:
        self._hold(asynchronous.SnapshotStore, (database))

    def save_snapshot(self, snapshot: Snapshot) -> bool:
        """Save a snapshot; False if a newer one is there, which then stays.

        Raises:
            InvalidEventError: the state cannot be stored as JSON.
            InvalidOptionError: a version below 1, an id that is not a UUID, a moment without a time zone.
            TenantMismatchError: the stream is not one of the tenant bound to.
        """
        return self._call(self._target.save_snapshot(snapshot))

    def get_snapshot(self, aggregate_id: UUID, aggregate_type: str) -> Snapshot | None:
        """The aggregate's snapshot; None if there is none. One query."""
        return self._call(self._target.get_snapshot(aggregate_id, aggregate_type))

    def delete_snapshot(self, aggregate_id: UUID, aggregate_type: str) -> bool:
        """Delete the aggregate's snapshot; whether there was one."""
        return self._call(self._target.delete_snapshot(aggregate_id, aggregate_type))

    def snapshot_exists(self, aggregate_id: UUID, aggregate_type: str) -> bool:
        return self._call(self._target.snapshot_exists(aggregate_id, aggregate_type))

    def delete_snapshots_by_type(self, aggregate_type: str, schema_version_below: int | None = None) -> int:
        """Delete the snapshots of a type, all or those of older schema versions; how many there were."""
        return self._call(self._target.delete_snapshots_by_type(aggregate_type, schema_version_below))

    def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        self._call(self._target.close())


class SQLiteSnapshotStore(SnapshotStore):
    """Snapshots in a SQLite database."""

    _target: asynchronous.SQLiteSnapshotStore


class PostgreSQLSnapshotStore(SnapshotStore):
    """Snapshots in a PostgreSQL database."""

    _target: asynchronous.PostgreSQLSnapshotStore


class InMemorySnapshotStore(SnapshotStore):
    """Snapshots in a private in-memory database, or in that of the store given."""

    _target: asynchronous.InMemorySnapshotStore

    def __init__(self, database: Source | None = None) -> None:
        self._hold(asynchronous.InMemorySnapshotStore, (database))
