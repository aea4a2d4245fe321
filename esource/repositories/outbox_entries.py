"""Rows of the outbox, read together with the events that they refer to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

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


ENTRIES = select(
    _table.id,
    _table.event_id,
    _table.event_type,
    _table.aggregate_id,
    _table.aggregate_type,
    _table.tenant_id,
    _table.event_data,
    _table.created_at,
    _table.status,
    _table.published_at,
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


def entry_of(row: tuple[Any, ...]) -> OutboxEntry:
    """An entry from a row of `ENTRIES`."""
    payload, version, actor_id, occurred_at = row[13:]
    if row[6] is not None:
        data = json.loads(row[6])
    elif payload is None:
        data = {}  # the event was deleted from the log
    else:
        event_id, event_type, aggregate_id, aggregate_type, tenant_id = row[1:6]
        data = whole_event(
            payload,
            event_id,
            event_type,
            aggregate_id,
            aggregate_type,
            tenant_id,
            version,
            actor_id,
            occurred_at,
        )
    values: list[Any] = [*row[:6], data, *row[7:13], payload is not None]
    return OutboxEntry(*values)


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
        **json.loads(payload),
        "event_id": str(event_id),
        "event_type": event_type,
        "aggregate_id": str(aggregate_id),
        "aggregate_type": aggregate_type,
        "aggregate_version": version,
        "tenant_id": None if tenant_id is None else str(tenant_id),
        "actor_id": actor_id,
        "occurred_at": occurred_at,
    }
