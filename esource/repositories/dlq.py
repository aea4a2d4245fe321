"""Events that a projection gave up on, with what went wrong."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Text, and_, bindparam, case, delete, func, literal_column, or_, select, update

from esource import schema
from esource.checks import (
    CEILING,
    LARGEST_AGE_DAYS,
    LARGEST_INTEGER,
    check_id,
    check_name,
    check_whole,
    json_text,
    shown,
    storable_text,
)
from esource.database.sources import Source
from esource.errors import InvalidEventError, InvalidOptionError, error_text
from esource.moments import utc_now
from esource.repositories.access import Access, count_of
from esource.repositories.dlq_entries import ENTRIES, DLQEntry, entry_of
from esource.repositories.foreign_rows import RowReader, moment, or_none
from esource.tables.constructs import iso_text, member_of, upsert
from esource.tables.model import dead_letter_queue
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

STATUSES = ("failed", "retrying", "resolved")

_table = dead_letter_queue.c
_id = _table.id == bindparam("id", type_=_table.id.type)
_now = bindparam("now", type_=Timestamp())
_row = upsert(dead_letter_queue).values(
    **{
        name: bindparam(name, type_=_table[name].type)
        for name in (
            "event_id",
            "projection_name",
            "event_type",
            "event_data",
            "error_message",
            "error_stacktrace",
            "retry_count",
        )
    },
    first_failed_at=_now,
    last_failed_at=_now,
    status=literal_column("'failed'"),
)
_ADD = Statement(
    _row.on_conflict_do_update(
        index_elements=[_table.event_id, _table.projection_name],
        set_={
            "error_message": _row.excluded.error_message,
            "error_stacktrace": _row.excluded.error_stacktrace,
            "retry_count": _row.excluded.retry_count,
            "last_failed_at": _row.excluded.last_failed_at,
            "status": literal_column("'failed'"),
            "resolved_at": literal_column("NULL"),
            "resolved_by": literal_column("NULL"),
        },
    ).returning(_table.id)
)
_GET = Statement(ENTRIES.where(_id))
_LIST = Statement(
    ENTRIES.where(
        or_(
            bindparam("of_projection", type_=Text()).is_(None),
            _table.projection_name == bindparam("of_projection", type_=Text()),
        ),
        member_of(_table.status, "statuses"),
    )
    .order_by(_table.first_failed_at, _table.id)
    .limit(bindparam("page"))
)
_RESOLVE = Statement(
    update(dead_letter_queue)
    .where(_id)
    .values(
        status=literal_column("'resolved'"),
        resolved_at=_now,
        resolved_by=bindparam("resolved_by", type_=_table.resolved_by.type),
    )
    .returning(_table.id)
)
_RETRY = Statement(
    update(dead_letter_queue)
    .where(_id, _table.status != literal_column("'resolved'"))
    .values(status=literal_column("'retrying'"), retry_count=_table.retry_count + literal_column("1"))
    .returning(_table.id)
)


_unresolved = _table.status != literal_column("'resolved'")
_STATS = Statement(
    select(
        count_of(_table.status, "failed"),
        count_of(_table.status, "retrying"),
        func.count(case((_unresolved, _table.projection_name)).distinct()),
        iso_text(func.min(case((_unresolved, _table.first_failed_at)), type_=Timestamp())),
    )
)
_COUNTS = Statement(
    select(
        _table.projection_name,
        func.count(),
        iso_text(func.min(_table.first_failed_at, type_=Timestamp())),
        iso_text(func.max(_table.last_failed_at, type_=Timestamp())),
    )
    .where(_unresolved)
    .group_by(_table.projection_name)
    .order_by(func.count().desc(), _table.projection_name)
)
_DELETE = Statement(
    delete(dead_letter_queue)
    .where(
        and_(
            _table.status == literal_column("'resolved'"),
            _table.resolved_at < bindparam("before", type_=Timestamp()),
        )
    )
    .returning(_table.id)
)


@dataclass(frozen=True, slots=True)
class DLQStats:
    """What is in the queue and not resolved."""

    total_failed: int = 0
    total_retrying: int = 0
    affected_projections: int = 0
    oldest_failure: str | None = None
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class ProjectionFailureCount:
    """How many unresolved events a projection has."""

    projection_name: str
    failure_count: int = 0
    oldest_failure: str | None = None
    most_recent_failure: str | None = None


class DLQRepository:
    """The dead-letter queue in the database of a store, an engine, a session factory, a URL, or an open
    transaction. An event is in it once per projection; failing again updates its entry.

    Of a store bound to a tenant, it holds the entries of that tenant's stored events only."""

    def __init__(self, database: Source) -> None:
        self._access = Access(database, "dead_letter_queue")

    async def add_failed_event(
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
        if not isinstance(event_data, dict):
            raise InvalidEventError("event_data", f"is {shown(event_data)}, which is no dict")
        if not isinstance(error, BaseException):
            raise InvalidOptionError(f"error must be an exception, not {shown(error)}")
        await self._access.require_own_event(check_id("event_id", event_id))
        rows = await self._access.insert(
            _ADD,
            event_id=event_id,
            projection_name=check_name("projection_name", projection_name),
            event_type=check_name("event_type", event_type),
            event_data=json_text("event_data", event_data, CEILING),
            error_message=storable_text(error_text(error)),
            error_stacktrace=storable_text("".join(traceback.format_exception(error))),
            retry_count=check_whole("retry_count", retry_count, most=LARGEST_INTEGER),
            now=utc_now(),
        )
        return int(rows[0][0])

    async def get_failed_events(
        self, projection_name: str | None = None, status: str | None = "failed", limit: int = 100
    ) -> list[DLQEntry]:
        """Entries, oldest first: of one projection or of all (None), of one status or of any (None).

        Raises:
            InvalidOptionError: no such status, or a limit below 1.
        """
        if status is not None and status not in STATUSES:
            raise InvalidOptionError(f"status must be one of {', '.join(STATUSES)}, not {shown(status)}")
        rows = await self._access.read(
            _LIST,
            of_projection=projection_name,
            statuses=self._access.database.backend.names([status] if status else STATUSES),
            page=check_whole("limit", limit, least=1),
        )
        return [entry_of(row) for row in rows]

    async def get_failed_event(self, dlq_id: int | str) -> DLQEntry | None:
        """One entry; None if there is none with this id.

        Raises:
            InvalidOptionError: an id that is no whole number.
        """
        rows = await self._access.read(_GET, id=_row_id(dlq_id))
        return entry_of(rows[0]) if rows else None

    async def mark_resolved(self, dlq_id: int | str, resolved_by: str | UUID) -> bool:
        """Close an entry; whether it exists.

        Raises:
            InvalidOptionError: an id that is no whole number.
            InvalidEventError: a name that cannot be stored.
        """
        return bool(
            await self._access.write(
                _RESOLVE,
                id=_row_id(dlq_id),
                resolved_by=check_name(
                    "resolved_by", str(resolved_by) if isinstance(resolved_by, UUID) else resolved_by
                ),
                now=utc_now(),
            )
        )

    async def mark_retrying(self, dlq_id: int | str) -> bool:
        """Count another attempt; False if there is no such unresolved entry."""
        return bool(await self._access.write(_RETRY, id=_row_id(dlq_id)))

    async def get_failure_stats(self) -> DLQStats:
        """Totals over all projections. One query."""
        [(failed, retrying, projections, oldest)] = await self._access.read(_STATS)
        return DLQStats(failed, retrying, projections, _iso(oldest))

    async def get_projection_failure_counts(self) -> list[ProjectionFailureCount]:
        """Unresolved entries by projection, most first. One query."""
        return [
            ProjectionFailureCount(name, count, _iso(oldest), _iso(newest))
            for name, count, oldest, newest in await self._access.read(_COUNTS)
        ]

    async def delete_resolved_events(self, older_than_days: int = 30) -> int:
        """Delete entries resolved more than this many days ago; how many there were."""
        days = check_whole("older_than_days", older_than_days, most=LARGEST_AGE_DAYS)
        before = utc_now() - timedelta(days=days)
        return len(await self._access.write(_DELETE, before=before))

    async def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        await self._access.close()


class SQLiteDLQRepository(DLQRepository):
    """The dead-letter queue in a SQLite database."""


class PostgreSQLDLQRepository(DLQRepository):
    """The dead-letter queue in a PostgreSQL database."""


def _row_id(dlq_id: int | str) -> int:
    try:
        number = int(dlq_id) if isinstance(dlq_id, str) else dlq_id
    except ValueError as error:
        raise InvalidOptionError(f"dlq_id must be a whole number, not {shown(dlq_id)}") from error
    return check_whole("dlq_id", number)


def _iso(stored: str | None) -> str | None:
    found = RowReader().read("a moment", or_none(moment), stored, None)
    return found.isoformat() if found else None


class InMemoryDLQRepository(DLQRepository):
    """Dead letters in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Source | None = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


__all__ = [
    "DLQEntry",
    "DLQRepository",
    "DLQStats",
    "InMemoryDLQRepository",
    "PostgreSQLDLQRepository",
    "ProjectionFailureCount",
    "SQLiteDLQRepository",
]
