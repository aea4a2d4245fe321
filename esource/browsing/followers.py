"""Pages of the tables beside the log: checkpoints, dead letters and the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, Select, bindparam, case, func, literal_column, select, tuple_

from esource.browsing.pages import PAGE_ROWS, Page
from esource.checks import LARGEST_POSITION
from esource.database.database import Database
from esource.log.pages import last_position
from esource.moments import utc_now
from esource.repositories import dlq_entries, outbox_entries
from esource.repositories.dlq import DLQEntry
from esource.repositories.outbox_entries import OutboxEntry
from esource.tables.constructs import member_of, moment_after
from esource.tables.model import dead_letter_queue, event_outbox, events, projection_checkpoints
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

MOST_CHECKPOINTS = 1_000
"""Checkpoints that are listed at most."""

MOST_COUNTED = 1_000
"""What waits is counted up to here."""

OutboxStatus = Literal["pending", "failed", "published"]


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """A projection's checkpoint, seen from the end of the log."""

    name: str
    position: int | None
    """None: only says which version of its read model is in use."""
    behind: int
    """Positions between there and the end of the log. There are at most as many events, of all types."""
    lag_seconds: float
    """Age of the first event past it; 0 when there is none."""
    events_processed: int
    last_event_type: str | None
    last_processed_at: datetime | None
    worker: str | None
    """The worker that holds its lease now; None if there is none."""
    active_version: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """How much waits, counted up to ``MOST_COUNTED`` (1,000)."""

    dead_letters: int
    """Not resolved."""
    pending: int
    """Outbox rows to be published."""
    failed: int
    """Outbox rows that were given up."""


_position = events.c.global_position
_checkpoint = projection_checkpoints.c
_CHECKPOINTS = Statement(
    select(
        _checkpoint.projection_name,
        _checkpoint.global_position,
        select(events.c.created_at)
        .where(_position > _checkpoint.global_position)
        .order_by(_position)
        .limit(literal_column("1"))
        .scalar_subquery(),
        _checkpoint.events_processed,
        _checkpoint.last_event_type,
        _checkpoint.last_processed_at,
        case((_checkpoint.lease_until > moment_after("seconds"), _checkpoint.lease_owner)),
        _checkpoint.active_version,
    )
    .order_by(_checkpoint.projection_name)
    .limit(bindparam("page"))
)


async def checkpoint_states(database: Database) -> list[CheckpointState]:
    """Every checkpoint, by name, with how far it is behind. Two queries; no events are counted."""
    head = await last_position(database)
    rows = await database.read(_CHECKPOINTS, {"seconds": 0.0, "page": MOST_CHECKPOINTS})
    now = utc_now()
    return [
        CheckpointState(
            name,
            position,
            0 if position is None else max(0, head - position),
            max(0.0, (now - oldest).total_seconds()) if oldest else 0.0,
            *others,
        )
        for name, position, oldest, *others in rows
    ]


_letter_id = dead_letter_queue.c.id
_LETTERS = Statement(
    dlq_entries.ENTRIES.where(
        _letter_id < bindparam("before", type_=_letter_id.type),
        member_of(dead_letter_queue.c.status, "statuses"),
    )
    .order_by(_letter_id.desc())
    .limit(bindparam("page"))
)


async def dead_letters_page(
    database: Database, *, resolved: bool = False, after: int | None = None, size: int = PAGE_ROWS
) -> Page[DLQEntry]:
    """Dead letters, the newest first: those that wait, or those that were resolved. One query."""
    statuses = ["resolved"] if resolved else ["failed", "retrying"]
    values = {"before": LARGEST_POSITION if after is None else after, "page": size}
    rows = await database.read(_LETTERS, {**values, "statuses": database.backend.names(statuses)})
    found = [dlq_entries.entry_of(row) for row in rows]
    return Page(found, found[-1].id if len(found) == size else None)


def _outbox(status: str, since: Column[datetime], *, newest: bool = False) -> tuple[Statement, Statement]:
    """The first page of one status, and the one past a key: by a moment that an index has for that status."""
    row = tuple_(since, event_outbox.c.id)
    key = tuple_(bindparam("moment", type_=Timestamp()), bindparam("id", type_=event_outbox.c.id.type))
    order: list[ColumnElement[Any]] = [since, event_outbox.c.id]
    first = (
        outbox_entries.ENTRIES.where(event_outbox.c.status == literal_column(f"'{status}'"))
        .order_by(*(column.desc() if newest else column for column in order))
        .limit(bindparam("page"))
    )
    return Statement(first), Statement(first.where(row < key if newest else row > key))


_OUTBOX = {
    "pending": _outbox("pending", event_outbox.c.created_at),
    "failed": _outbox("failed", event_outbox.c.created_at),
    "published": _outbox("published", event_outbox.c.published_at, newest=True),
}


async def outbox_page(
    database: Database, status: OutboxStatus, *, after: Any = None, size: int = PAGE_ROWS
) -> Page[OutboxEntry]:
    """Rows of the outbox: what waits or was given up, the oldest first; what is published, the newest first.
    One query."""
    first, further = _OUTBOX[status]
    if after is None:
        rows = await database.read(first, {"page": size})
    else:
        rows = await database.read(further, {"page": size, "moment": after[0], "id": after[1]})
    found = [outbox_entries.entry_of(row) for row in rows]
    if len(found) < size or found[-1].unreadable:  # whose key may be unreadable, too
        return Page(found, None)
    moment = found[-1].published_at if status == "published" else found[-1].created_at
    return Page(found, (moment, found[-1].id))


def _counted(table: Any, status: ColumnElement[bool]) -> Any:
    some: Select[Any] = (
        select(literal_column("1").label("one")).select_from(table).where(status).limit(bindparam("most"))
    )
    return select(func.count()).select_from(some.subquery()).scalar_subquery()


def _is(status: str) -> ColumnElement[bool]:
    return event_outbox.c.status == literal_column(f"'{status}'")


_PENDING = Statement(
    select(
        _counted(
            dead_letter_queue,
            dead_letter_queue.c.status.in_([literal_column("'failed'"), literal_column("'retrying'")]),
        ),
        _counted(event_outbox, _is("pending")),
        _counted(event_outbox, _is("failed")),
    )
)


async def pending(database: Database) -> Pending:
    """How many dead letters and outbox rows wait, up to a bound. One query."""
    [row] = await database.rows(_PENDING, {"most": MOST_COUNTED})
    return Pending(*row)
