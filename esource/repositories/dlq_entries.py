"""Rows of the dead-letter queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, select, type_coerce

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
from esource.tables.model import dead_letter_queue

_table = dead_letter_queue.c
# As the driver gives them: what does not fit its type must not end the reading of the other rows.
ENTRIES = select(
    _table.id,
    type_coerce(_table.event_id, Text()),
    _table.projection_name,
    _table.event_type,
    _table.event_data,
    _table.error_message,
    _table.error_stacktrace,
    _table.retry_count,
    iso_text(_table.first_failed_at),
    iso_text(_table.last_failed_at),
    _table.status,
    iso_text(_table.resolved_at),
    _table.resolved_by,
)
"""Rows of the queue, in the order of `entry_of`."""


@dataclass(frozen=True, slots=True)
class DLQEntry:
    """One event that one projection failed on."""

    id: int
    event_id: UUID
    projection_name: str
    event_type: str
    event_data: dict[str, Any]
    error_message: str
    error_stacktrace: str | None
    retry_count: int
    first_failed_at: datetime
    last_failed_at: datetime
    status: str
    """``failed``, ``retrying`` or ``resolved``."""
    resolved_at: datetime | None
    resolved_by: str | None
    unreadable: str | None = None
    """What of the row cannot be read, and why; a field that cannot be read is empty, the nil UUID, or 1970."""


def entry_of(row: tuple[Any, ...]) -> DLQEntry:
    """An entry from a row of `ENTRIES`."""
    letter_id, event_id, name, event_type, data, message, stacktrace, attempts, first, last, *resolved = row
    status, resolved_at, resolved_by = resolved
    reader = RowReader()
    read = reader.read
    return DLQEntry(
        letter_id,
        read("event_id", identifier, event_id, NO_ID),
        read("projection_name", text, name, ""),
        read("event_type", text, event_type, ""),
        read("event_data", members, data, dict[str, Any]()),
        read("error_message", text, message, ""),
        read("error_stacktrace", or_none(text), stacktrace, None),
        read("retry_count", whole, attempts, 0),
        read("first_failed_at", moment, first, NO_MOMENT),
        read("last_failed_at", moment, last, NO_MOMENT),
        status,
        read("resolved_at", or_none(moment), resolved_at, None),
        read("resolved_by", or_none(text), resolved_by, None),
        unreadable=reader.problem,
    )
