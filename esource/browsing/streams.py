"""The streams, by what was appended last or by id, and the names of types."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Select, bindparam, func, select, tuple_

from esource.browsing.pages import PAGE_ROWS, Page
from esource.checks import LARGEST_POSITION
from esource.database.database import Database
from esource.errors import InvalidOptionError
from esource.tables.model import events
from esource.tables.statement import Statement
from esource.tables.types import Identifier, as_text

SMALLEST_WINDOW, LARGEST_WINDOW = 1_000, 32_000
"""Events of the log that one query for the newest streams goes through; more where few of them are looked for."""

PAGE_SECONDS = 0.2
"""How long a page of the newest streams is looked for, before it is handed over as it is."""

MOST_TYPES = 200
"""Names of types that are listed at most."""


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """A stream, without its events."""

    stream_id: str
    """As `EventStore.read_stream` takes it."""
    aggregate_type: str
    version: int
    global_position: int
    """Of its last event."""
    newest: datetime
    """When that was stored."""


_position = events.c.global_position
_SUMMARY = (
    as_text(events.c.aggregate_id),
    events.c.aggregate_type,
    events.c.version,
    _position,
    events.c.created_at,
)
_before = bindparam("before", type_=_position.type)
_window = (
    select(_position)
    .where(_position < _before)
    .order_by(_position.desc())
    .limit(bindparam("window"))
    .subquery()
)
_WINDOW = Statement(select(func.min(_window.c.global_position)))
_others = events.alias("others")
_last_version = (
    # A subquery for a value, which PostgreSQL cannot turn into a join with the whole table.
    select(func.max(_others.c.version))
    .where(
        _others.c.aggregate_id == events.c.aggregate_id, _others.c.aggregate_type == events.c.aggregate_type
    )
    .scalar_subquery()
)
_of_type = events.c.aggregate_type == bindparam("aggregate_type", type_=events.c.aggregate_type.type)
_newest = (
    select(*_SUMMARY)
    .where(
        _position < _before,
        _position >= bindparam("floor", type_=_position.type),
        events.c.version == _last_version,
    )
    .order_by(_position.desc())
    .limit(bindparam("page"))
)
_NEWEST = Statement(_newest)
_NEWEST_OF_TYPE = Statement(_newest.where(_of_type))


async def newest_streams(
    database: Database, *, aggregate_type: str | None = None, after: int | None = None, size: int = PAGE_ROWS
) -> Page[StreamSummary]:
    """The streams that were appended to last, the newest first: goes back through the log, part by part."""
    before = LARGEST_POSITION if after is None else after
    values = {} if aggregate_type is None else {"aggregate_type": aggregate_type}
    statement = _NEWEST if aggregate_type is None else _NEWEST_OF_TYPE
    found: list[StreamSummary] = []
    window = SMALLEST_WINDOW
    until = time.monotonic() + PAGE_SECONDS
    while True:
        [(floor,)] = await database.rows(_WINDOW, {"before": before, "window": window})
        if floor is None:
            return Page(found, None)
        left = size - len(found)
        rows = await database.read(statement, {**values, "before": before, "floor": floor, "page": left})
        found += map(_stream, rows)
        if len(rows) == left:
            return Page(found, found[-1].global_position)
        before = floor
        if time.monotonic() > until:
            return Page(found, before)
        window = min(2 * window, LARGEST_WINDOW)


_listed = (
    select(events.c.aggregate_id, events.c.aggregate_type, func.max(events.c.version).label("version"))
    .where(
        tuple_(events.c.aggregate_id, events.c.aggregate_type)
        > tuple_(
            bindparam("after_id", type_=Identifier()),
            bindparam("after_type", type_=events.c.aggregate_type.type),
        ),
        events.c.aggregate_id <= bindparam("last_id", type_=Identifier()),
    )
    .group_by(events.c.aggregate_id, events.c.aggregate_type)
    .order_by(events.c.aggregate_id, events.c.aggregate_type)
    .limit(bindparam("page"))
)


def _by_id(listed: Select[Any]) -> Statement:
    page = listed.subquery("page")
    return Statement(
        select(*_SUMMARY)
        .join_from(
            page,
            events,
            (events.c.aggregate_id == page.c.aggregate_id)
            & (events.c.aggregate_type == page.c.aggregate_type)
            & (events.c.version == page.c.version),
        )
        .order_by(page.c.aggregate_id, page.c.aggregate_type)
    )


_BY_ID = _by_id(_listed)
_BY_ID_OF_TYPE = _by_id(_listed.where(_of_type))


async def streams_by_id(
    database: Database,
    prefix: str,
    *,
    aggregate_type: str | None = None,
    after: tuple[UUID, str] | None = None,
    size: int = PAGE_ROWS,
) -> Page[StreamSummary]:
    """The streams whose aggregate id begins with a prefix, in the order of their ids. One query.

    Raises:
        InvalidOptionError: no id begins with this prefix.
    """
    digits = prefix.replace("-", "").lower()
    if len(digits) > 32 or not set(digits) <= set("0123456789abcdef"):
        raise InvalidOptionError(f"an aggregate id is a UUID, and none begins with {prefix!r}")
    first, last = after or (UUID(digits.ljust(32, "0")), ""), UUID(digits.ljust(32, "f"))
    values = {"after_id": first[0], "after_type": first[1], "last_id": last, "page": size}
    if aggregate_type is not None:
        values["aggregate_type"] = aggregate_type
    rows = await database.read(_BY_ID if aggregate_type is None else _BY_ID_OF_TYPE, values)
    more = (UUID(rows[-1][0]), rows[-1][1]) if len(rows) == size else None
    return Page([_stream(row) for row in rows], more)


def _stream(row: tuple[Any, ...]) -> StreamSummary:
    return StreamSummary(f"{row[0]}:{row[1]}", *row[1:])


def _next_name(column: Column[str]) -> Statement:
    return Statement(select(func.min(column)).where(column > bindparam("after", type_=column.type)))


_NEXT_AGGREGATE_TYPE = _next_name(events.c.aggregate_type)
_NEXT_EVENT_TYPE = _next_name(events.c.event_type)


async def aggregate_types(database: Database) -> list[str]:
    """The aggregate types in the log, by name. One query a type, each a look at an index."""
    return await _names(database, _NEXT_AGGREGATE_TYPE)


async def event_types(database: Database) -> list[str]:
    """The event types in the log, by name. One query a type, each a look at an index."""
    return await _names(database, _NEXT_EVENT_TYPE)


async def _names(database: Database, following: Statement) -> list[str]:
    found: list[str] = []
    name = ""
    while len(found) < MOST_TYPES:
        [(name,)] = await database.rows(following, {"after": name})
        if name is None:
            break
        found.append(name)
    return found
