"""Rows of the outbox, read together with the events that they refer to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, and_, select, type_coerce

from esource.repositories.foreign_rows import (
    NO_ID,
    NO_MOMENT,
    RowReader,
    identifier,
    members,
    moment,
    or_none,
    text,
    whole,
)
from esource.tables.constructs import iso_text
from esource.tables.model import event_outbox, events

OutboxId = int | UUID
"""A row number on SQLite, a UUID on PostgreSQL."""

_table = event_outbox.c


def event_of(row: Any) -> ColumnElement[bool]:
    """Whether an event of the log is the one that a row of the outbox names. A row that names an event of another tenant or
    of another stream must neither publish that event nor learn anything of it."""
    return and_(
        events.c.event_id == row.event_id,
        events.c.aggregate_id == row.aggregate_id,
        events.c.aggregate_type == row.aggregate_type,
        events.c.tenant_id.is_not_distinct_from(row.tenant_id),
    )


def free_of_locks(condition: ColumnElement[bool], name: str = "unlocked") -> ColumnElement[bool]:
    """Of the rows with a condition, those that no transaction has locked, locked by this statement.

    A tenant's role may lock its own rows for as long as it likes; a worker on the rows of all tenants does not
    wait for them.
    """
    rows = select(_table.id).where(condition).with_for_update(skip_locked=True).cte(name)
    return _table.id.in_(select(rows.c.id))


# As the driver gives them: what does not fit its type must not end the reading of the other rows.
ENTRIES = select(
    _table.id,
    type_coerce(_table.event_id, Text()),
    _table.event_type,
    type_coerce(_table.aggregate_id, Text()),
    _table.aggregate_type,
    type_coerce(_table.tenant_id, Text()),
    _table.event_data,
    iso_text(_table.created_at),
    _table.status,
    iso_text(_table.published_at),
    _table.retry_count,
    _table.last_error,
    _table.global_position,
    events.c.payload,
    events.c.version,
    events.c.actor_id,
    iso_text(events.c.timestamp),
).select_from(event_outbox.outerjoin(events, event_of(_table)))
"""Rows of the outbox with the event they refer to, in the order of `entry_of`."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One event to publish."""

    id: OutboxId
    event_id: UUID
    event_type: str
    aggregate_id: UUID
    aggregate_type: str
    tenant_id: UUID | None
    event_data: dict[str, Any]
    """The whole event as JSON values, read from the log where the row only refers to it. Personal fields
    stay sealed; see `esource.publishing.open_personal_data`."""
    created_at: datetime
    status: str = "pending"
    """``pending``, ``published`` or ``failed``."""
    published_at: datetime | None = None
    retry_count: int = 0
    last_error: str | None = None
    global_position: int | None = None
    """The event's place in the log; None for rows added by hand."""
    is_in_log: bool = False
    """Whether the log has this event, in this stream and of this tenant."""
    unreadable: str | None = None
    """What of the row cannot be read, and why; ``event_data`` is empty then, and a field that cannot be read is the nil
    UUID, an empty text, 1970 or None."""


def entry_of(row: tuple[Any, ...]) -> OutboxEntry:
    """An entry from a row of `ENTRIES`."""
    row_id, event_id, event_type, aggregate_id, aggregate_type, tenant_id, data, *others = row
    created_at, status, published_at, retry_count, last_error, position, payload, *of_event = others
    reader = RowReader()
    read = reader.read
    names = (
        read("event_id", identifier, event_id, NO_ID),
        read("event_type", text, event_type, ""),
        read("aggregate_id", identifier, aggregate_id, NO_ID),
        read("aggregate_type", text, aggregate_type, ""),
        read("tenant_id", or_none(identifier), tenant_id, None),
    )
    moments = (
        read("created_at", moment, created_at, NO_MOMENT),
        read("published_at", or_none(moment), published_at, None),
    )
    attempts = read("retry_count", whole, retry_count, 0)
    place = read("global_position", or_none(whole), position, None)
    event: dict[str, Any] = {}  # the event was deleted from the log
    if data is not None:
        event = read("event_data", members, data, {})
    elif payload is not None:
        event = read("the event's payload", lambda value: whole_event(value, *names, *of_event), payload, {})
    return OutboxEntry(
        row_id,
        *names,
        {} if reader.problem else event,
        moments[0],
        status,
        moments[1],
        attempts,
        read("last_error", or_none(text), last_error, None),
        place,
        payload is not None,
        reader.problem,
    )


def whole_event(
    payload: str,
    event_id: UUID,
    event_type: str,
    aggregate_id: UUID,
    aggregate_type: str,
    tenant_id: UUID | None,
    version: int,
    actor_id: str | None,
    occurred_at: str,
) -> dict[str, Any]:
    return {
        **members(payload),
        "event_id": str(event_id),
        "event_type": event_type,
        "aggregate_id": str(aggregate_id),
        "aggregate_type": aggregate_type,
        "aggregate_version": version,
        "tenant_id": None if tenant_id is None else str(tenant_id),
        "actor_id": actor_id,
        "occurred_at": occurred_at,
    }
