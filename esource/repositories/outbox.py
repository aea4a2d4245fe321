"""Events waiting to be published, written in the same transaction as the events themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from esource import schema
from esource.checks import (
    CEILING,
    LARGEST_AGE_DAYS,
    check_id,
    check_name,
    check_whole,
    json_text,
    shown,
    storable_text,
)
from esource.codec.encoding import encode
from esource.database.sources import Source, parts_of
from esource.domain.events import UNASSIGNED, DomainEvent
from esource.errors import InvalidEventError, InvalidOptionError
from esource.log.pages import NEWEST_OUTBOX_ROW
from esource.log.tenants import owned
from esource.moments import to_iso, utc_now
from esource.privacy.keys import KeyStore
from esource.repositories.access import Access, count_of
from esource.repositories.foreign_rows import RowReader, moment, or_none
from esource.repositories.outbox_entries import (
    ENTRIES,
    OutboxEntry,
    OutboxId,
    entry_of,
    event_of,
    free_of_locks,
    whole_event,
)
from esource.tables.constructs import iso_text
from esource.tables.model import event_outbox, events
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

_table = event_outbox.c
_id = _table.id == bindparam("id", type_=_table.id.type)
_now = bindparam("now", type_=Timestamp())
_error = bindparam("error", type_=Text())
_PENDING: ColumnElement[str] = literal_column("'pending'")
_given = SimpleNamespace(
    **{
        name: bindparam(name, type_=_table[name].type)
        for name in ("event_id", "event_type", "aggregate_id", "aggregate_type", "tenant_id", "event_data")
    }
)
_added = {
    **vars(_given),
    "created_at": _now,
    # Its place in its stream, if the event is in the log as well. Of another's event nothing is told.
    "global_position": select(events.c.global_position).where(event_of(_given)).scalar_subquery(),
}
_ADD = Statement(
    # Citus has no subqueries in VALUES.
    insert(event_outbox).from_select(list(_added), select(*_added.values())).returning(_table.id)
)
_LIST = Statement(
    ENTRIES.where(_table.status == _PENDING)
    .order_by(
        func.coalesce(_table.global_position, events.c.global_position).asc().nulls_last(),
        _table.created_at,
        _table.id,
    )
    .limit(bindparam("page"))
)
_LIST_FAILED = Statement(
    ENTRIES.where(_table.status == literal_column("'failed'"))
    .order_by(_table.created_at, _table.id)
    .limit(bindparam("page"))
)
_PUBLISHED = Statement(
    update(event_outbox)
    .where(_id)
    .values(status=literal_column("'published'"), published_at=_now)
    .returning(_table.id)
)
_FAILED = Statement(
    update(event_outbox)
    .where(_id)
    .values(status=literal_column("'failed'"), last_error=_error)
    .returning(_table.id)
)
_RETRY = Statement(
    update(event_outbox)
    .where(_id)
    .values(
        retry_count=_table.retry_count + literal_column("1"),
        last_error=func.coalesce(_error, _table.last_error),
    )
    .returning(_table.retry_count)
)
_REQUEUE = Statement(
    update(event_outbox)
    .where(_table.status == literal_column("'failed'"))
    .values(
        status=_PENDING,
        retry_count=literal_column("0"),
        available_at=literal_column("NULL"),
        claimed_by=literal_column("NULL"),
        claimed_until=literal_column("NULL"),
    )
    .returning(_table.id)
)
_CLEAN = Statement(
    delete(event_outbox)
    .where(
        free_of_locks(
            and_(
                _table.status == literal_column("'published'"),
                _table.published_at < bindparam("before", type_=Timestamp()),
                # By this row a store knows that there is an outbox.
                or_(
                    bindparam("all", type_=_table.retry_count.type) == literal_column("1"),
                    _table.id.not_in(NEWEST_OUTBOX_ROW),
                ),
            )
        )
    )
    .returning(_table.id)
)


_STATS = Statement(
    select(
        count_of(_table.status, "pending"),
        count_of(_table.status, "published"),
        count_of(_table.status, "failed"),
        iso_text(func.min(case((_table.status == _PENDING, _table.created_at)), type_=Timestamp())),
        func.coalesce(func.sum(case((_table.status == _PENDING, _table.retry_count))), literal_column("0")),
    )
)


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How the outbox stands."""

    pending_count: int = 0
    published_count: int = 0
    failed_count: int = 0
    oldest_pending: datetime | None = None
    avg_retries: float = 0.0
    """Attempts per pending row."""


class OutboxRepository:
    """The outbox in the database of a store, an engine, a session factory, a URL, or an open transaction.

    A store with ``outbox_enabled=True`` writes a row with every event, and so does from then on every store of which
    nothing else was said; `add_event` adds one by hand. Of a
    store bound to a tenant, it holds that tenant's rows only.
    """

    def __init__(self, database: Source) -> None:
        self._access = Access(database, "event_outbox")
        parts = parts_of(database)
        self._key_store: KeyStore | None = None if parts is None else parts.key_store

    async def add_event(self, event: DomainEvent) -> OutboxId:
        """Add an event with its whole content; the row's id.

        Raises:
            InvalidEventError: the event may not be stored, or names no aggregate.
            TenantMismatchError: it is another tenant's than the one bound to, or names a stream of another's.
            KeyStoreMissingError: it has personal fields, and this was made of no store with a key store.
        """
        if not isinstance(event, DomainEvent):
            raise InvalidEventError("event", f"is {shown(event)}, not a DomainEvent")
        if event.aggregate_id == UNASSIGNED:
            raise InvalidEventError("aggregate_id", "is not given", remedy="Name the aggregate in the event")
        keys = None if self._key_store is None else await self._key_store.keys_to_seal([event])
        encoded = encode(event, keys, self._access.database.limits)
        if self._access.tenant_id is not None:
            encoded = owned(encoded, self._access.tenant_id)
            await self._access.require_own_stream(event.aggregate_id, event.aggregate_type, or_new=True)
        rows = await self._access.insert(
            _ADD,
            event_id=check_id("event_id", event.event_id),
            event_type=event.event_type,
            aggregate_id=check_id("aggregate_id", event.aggregate_id),
            aggregate_type=check_name("aggregate_type", event.aggregate_type),
            tenant_id=encoded.tenant_id,
            event_data=json_text(
                "event_data",
                whole_event(
                    encoded.payload,
                    event.event_id,
                    event.event_type,
                    event.aggregate_id,
                    event.aggregate_type,
                    encoded.tenant_id,
                    event.aggregate_version,
                    event.actor_id,
                    to_iso(encoded.timestamp),
                ),
                CEILING,  # its payload was measured before
            ),
            now=utc_now(),
        )
        return rows[0][0]  # type: ignore[no-any-return]

    async def get_pending_events(self, limit: int = 100) -> list[OutboxEntry]:
        """What waits to be published, in the order of the log. One query.

        Raises:
            InvalidOptionError: a limit below 1.
        """
        page = check_whole("limit", limit, least=1)
        return [entry_of(row) for row in await self._access.read(_LIST, page=page)]

    async def get_failed_events(self, limit: int = 100) -> list[OutboxEntry]:
        """The rows that were given up, oldest first, at most ``limit``; ``last_error`` says why.

        Raises:
            InvalidOptionError: a limit below 1.
        """
        rows = await self._access.read(_LIST_FAILED, page=check_whole("limit", limit, least=1))
        return [entry_of(row) for row in rows]

    async def mark_published(self, outbox_id: OutboxId) -> bool:
        """Record a publication; whether the row exists.

        Raises:
            InvalidOptionError: an id of another database's kind.
        """
        return bool(await self._access.write(_PUBLISHED, id=self._row_id(outbox_id), now=utc_now()))

    async def mark_failed(self, outbox_id: OutboxId, error: str) -> bool:
        """Give a row up; whether it exists."""
        return bool(await self._access.write(_FAILED, id=self._row_id(outbox_id), error=storable_text(error)))

    async def increment_retry(self, outbox_id: OutboxId, error: str | None = None) -> int:
        """Count a failed attempt; the number of attempts so far, 0 if there is no such row."""
        text = None if error is None else storable_text(error)
        rows = await self._access.write(_RETRY, id=self._row_id(outbox_id), error=text)
        return rows[0][0] if rows else 0

    async def retry_failed(self) -> int:
        """Let the rows that were given up be tried again, as if for the first time; how many there were."""
        return len(await self._access.write(_REQUEUE))

    async def cleanup_published(self, days: int = 7) -> int:
        """Delete rows published more than this many days ago; how many there were.

        The last row that was written with an event stays, because by it every store knows that events have to be
        published; 0 days deletes it, too.
        """
        age = timedelta(days=check_whole("days", days, most=LARGEST_AGE_DAYS))
        return len(await self._access.write(_CLEAN, before=utc_now() - age, all=0 if days else 1))

    async def get_stats(self) -> OutboxStats:
        """Counts by status, and how old the oldest pending row is. One query."""
        [(pending, published, failed, oldest, retries)] = await self._access.read(_STATS)
        since = RowReader().read("created_at", or_none(moment), oldest, None)
        return OutboxStats(pending, published, failed, since, retries / pending if pending else 0.0)

    def _row_id(self, value: OutboxId | str) -> OutboxId:
        """A row's id as this database has it: a number or a UUID, or the text of one."""
        kind = _table.id.type.dialect_impl(self._access.database.backend.sqlalchemy_dialect).python_type
        if isinstance(value, str):
            try:
                return kind(value)  # type: ignore[no-any-return]
            except ValueError:
                pass
        elif isinstance(value, kind) and not isinstance(value, bool):
            return check_whole("outbox_id", value) if isinstance(value, int) else value
        raise InvalidOptionError(f"an outbox row's id is of type {kind.__name__} here, not {shown(value)}")

    async def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        await self._access.close()


class SQLiteOutboxRepository(OutboxRepository):
    """The outbox in a SQLite database."""


class PostgreSQLOutboxRepository(OutboxRepository):
    """The outbox in a PostgreSQL database."""


class InMemoryOutboxRepository(OutboxRepository):
    """An outbox in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Source | None = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


__all__ = [
    "InMemoryOutboxRepository",
    "OutboxEntry",
    "OutboxRepository",
    "OutboxStats",
    "PostgreSQLOutboxRepository",
    "SQLiteOutboxRepository",
]
