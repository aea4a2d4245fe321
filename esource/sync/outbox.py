"""`esource.repositories.outbox` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from esource.domain.events import DomainEvent
from esource.repositories import outbox as asynchronous
from esource.repositories.outbox import OutboxStats
from esource.repositories.outbox_entries import OutboxEntry, OutboxId
from esource.sync.driven import Driven, Source


class OutboxRepository(Driven):
    """The outbox in the database of a store, an engine, a session factory, a URL, or an open transaction.

    A store with ``outbox_enabled=True`` writes a row with every event, and so does from then on every store of which
    nothing else was said; `add_event` adds one by hand. Of a
    store bound to a tenant, it holds that tenant's rows only.
    """

    _target: asynchronous.OutboxRepository

    def __init__(self, database: Source) -> None:
        self._hold(asynchronous.OutboxRepository, (database))

    def add_event(self, event: DomainEvent) -> OutboxId:
        """Add an event with its whole content; the row's id.

        Raises:
            InvalidEventError: the event may not be stored, or names no aggregate.
            TenantMismatchError: it is another tenant's than the one bound to, or names a stream of another's.
            KeyStoreMissingError: it has personal fields, and this was made of no store with a key store.
        """
        return self._call(self._target.add_event(event))

    def get_pending_events(self, limit: int = 100) -> list[OutboxEntry]:
        """What waits to be published, in the order of the log. One query.

        Raises:
            InvalidOptionError: a limit below 1.
        """
        return self._call(self._target.get_pending_events(limit))

    def get_failed_events(self, limit: int = 100) -> list[OutboxEntry]:
        """The rows that were given up, oldest first, at most ``limit``; ``last_error`` says why.

        Raises:
            InvalidOptionError: a limit below 1.
        """
        return self._call(self._target.get_failed_events(limit))

    def mark_published(self, outbox_id: OutboxId) -> bool:
        """Record a publication; whether the row exists.

        Raises:
            InvalidOptionError: an id of another database's kind.
        """
        return self._call(self._target.mark_published(outbox_id))

    def mark_failed(self, outbox_id: OutboxId, error: str) -> bool:
        """Give a row up; whether it exists."""
        return self._call(self._target.mark_failed(outbox_id, error))

    def increment_retry(self, outbox_id: OutboxId, error: str | None = None) -> int:
        """Count a failed attempt; the number of attempts so far, 0 if there is no such row."""
        return self._call(self._target.increment_retry(outbox_id, error))

    def retry_failed(self) -> int:
        """Let the rows that were given up be tried again, as if for the first time; how many there were."""
        return self._call(self._target.retry_failed())

    def cleanup_published(self, days: int = 7) -> int:
        """Delete rows published more than this many days ago; how many there were.

        The last row that was written with an event stays, because by it every store knows that events have to be
        published; 0 days deletes it, too.
        """
        return self._call(self._target.cleanup_published(days))

    def get_stats(self) -> OutboxStats:
        """Counts by status, and how old the oldest pending row is. One query."""
        return self._call(self._target.get_stats())

    def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        self._call(self._target.close())


class SQLiteOutboxRepository(OutboxRepository):
    """The outbox in a SQLite database."""

    _target: asynchronous.SQLiteOutboxRepository


class PostgreSQLOutboxRepository(OutboxRepository):
    """The outbox in a PostgreSQL database."""

    _target: asynchronous.PostgreSQLOutboxRepository


class InMemoryOutboxRepository(OutboxRepository):
    """An outbox in a private in-memory database, or in that of the store given."""

    _target: asynchronous.InMemoryOutboxRepository

    def __init__(self, database: Source | None = None) -> None:
        self._hold(asynchronous.InMemoryOutboxRepository, (database))
