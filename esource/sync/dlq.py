"""`esource.repositories.dlq` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from typing import Any
from uuid import UUID

from esource.repositories import dlq as asynchronous
from esource.repositories.dlq import DLQStats, ProjectionFailureCount
from esource.repositories.dlq_entries import DLQEntry
from esource.sync.driven import Driven, Source


class DLQRepository(Driven):
    """The dead-letter queue in the database of a store, an engine, a session factory, a URL, or an open
    transaction. An event is in it once per projection; failing again updates its entry.

    Of a store bound to a tenant, it holds the entries of that tenant's stored events only."""

    _target: asynchronous.DLQRepository

    def __init__(self, database: Source) -> None:
        self._hold(asynchronous.DLQRepository, (database))

    def add_failed_event(
        self,
        event_id: UUID,
        projection_name: str,
        event_type: str,
        event_data: dict[str, Any],
        error: BaseException,
        retry_count: int = 0,
    ) -> int:
        """Record a failure with the error's own traceback; the entry's id.

        Raises:
            InvalidEventError: the data is no dict, or cannot be stored as JSON.
            InvalidOptionError: a negative retry_count, an event id that is not a UUID, or no exception.
            TenantMismatchError: the event is not stored as one of the tenant bound to.
        """
        return self._call(
            self._target.add_failed_event(
                event_id, projection_name, event_type, event_data, error, retry_count
            )
        )

    def get_failed_events(
        self, projection_name: str | None = None, status: str | None = "failed", limit: int = 100
    ) -> list[DLQEntry]:
        """Entries, oldest first: of one projection or of all (None), of one status or of any (None).

        Raises:
            InvalidOptionError: no such status, or a limit below 1.
        """
        return self._call(self._target.get_failed_events(projection_name, status, limit))

    def get_failed_event(self, dlq_id: int | str) -> DLQEntry | None:
        """One entry; None if there is none with this id.

        Raises:
            InvalidOptionError: an id that is no whole number.
        """
        return self._call(self._target.get_failed_event(dlq_id))

    def mark_resolved(self, dlq_id: int | str, resolved_by: str | UUID) -> bool:
        """Close an entry; whether it exists.

        Raises:
            InvalidOptionError: an id that is no whole number.
            InvalidEventError: a name that cannot be stored.
        """
        return self._call(self._target.mark_resolved(dlq_id, resolved_by))

    def mark_retrying(self, dlq_id: int | str) -> bool:
        """Count another attempt; False if there is no such unresolved entry."""
        return self._call(self._target.mark_retrying(dlq_id))

    def get_failure_stats(self) -> DLQStats:
        """Totals over all projections. One query."""
        return self._call(self._target.get_failure_stats())

    def get_projection_failure_counts(self) -> list[ProjectionFailureCount]:
        """Unresolved entries by projection, most first. One query."""
        return self._call(self._target.get_projection_failure_counts())

    def delete_resolved_events(self, older_than_days: int = 30) -> int:
        """Delete entries resolved more than this many days ago; how many there were."""
        return self._call(self._target.delete_resolved_events(older_than_days))

    def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        self._call(self._target.close())


class SQLiteDLQRepository(DLQRepository):
    """The dead-letter queue in a SQLite database."""

    _target: asynchronous.SQLiteDLQRepository


class PostgreSQLDLQRepository(DLQRepository):
    """The dead-letter queue in a PostgreSQL database."""

    _target: asynchronous.PostgreSQLDLQRepository


class InMemoryDLQRepository(DLQRepository):
    """Dead letters in a private in-memory database, or in that of the store given."""

    _target: asynchronous.InMemoryDLQRepository

    def __init__(self, database: Source | None = None) -> None:
        self._hold(asynchronous.InMemoryDLQRepository, (database))
