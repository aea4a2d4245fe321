"""Reading the log: the statements of every read, compiled once, and the pages they come in.

A page is a short query by key; no cursor and no transaction stays open between pages, so a slow reader
holds nothing up. Rows are handed over one by one and decoded when asked for: memory is bounded by the
page, whatever the size of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, func, literal_column, select

from esource.database.database import Database
from esource.log.streams import ReadDirection, ReadOptions
from esource.tables.constructs import iso_text, member_of
from esource.tables.model import events
from esource.tables.rows import (
    ACTOR_ID,
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    EVENT_TYPE,
    PAYLOAD,
    POSITION,
    STORED_AT,
    TENANT_ID,
    TIMESTAMP,
    VERSION,
    EventRow,
)
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Timestamp, as_text

PAGE_EVENTS = 1024
"""Events in a page at most."""

PAGE_BYTES = 2 * 1024 * 1024
"""Payload characters that a page aims to stay below, by the size of the events in the page before."""

FIRST_PAGE_EVENTS = 250
"""The first page is smaller: the reader's first event comes sooner, and large events are noticed."""

_COLUMNS: dict[int, ColumnElement[Any]] = {
    POSITION: events.c.global_position,
    EVENT_ID: as_text(events.c.event_id),
    AGGREGATE_ID: as_text(events.c.aggregate_id),
    AGGREGATE_TYPE: events.c.aggregate_type,
    EVENT_TYPE: events.c.event_type,
    TENANT_ID: as_text(events.c.tenant_id),
    ACTOR_ID: events.c.actor_id,
    VERSION: events.c.version,
    TIMESTAMP: iso_text(events.c.timestamp),
    PAYLOAD: events.c.payload,
    STORED_AT: iso_text(events.c.created_at),
}

EVENT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(_COLUMNS[place] for place in range(len(_COLUMNS)))
"""The columns of an `EventRow`: text for ids and moments on both databases, ready to be spliced."""

_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "aggregate_id": events.c.aggregate_id == bindparam("aggregate_id"),
    "aggregate_type": events.c.aggregate_type == bindparam("aggregate_type"),
    "tenant_id": events.c.tenant_id == bindparam("tenant_id"),
    "from_timestamp": events.c.timestamp >= bindparam("from_timestamp", type_=Timestamp()),
    "to_timestamp": events.c.timestamp <= bindparam("to_timestamp", type_=Timestamp()),
    "event_types": member_of(events.c.event_type, "event_types"),
    "aggregate_types": member_of(events.c.aggregate_type, "aggregate_types"),
}


@lru_cache(maxsize=512)
def _page(key: str, backward: bool, conditions: tuple[str, ...]) -> Statement:
    """The statement of one page: past a key (a version or a global position), in its order."""
    column = events.c[key]
    after = bindparam("after", type_=column.type)
    return Statement(
        select(*EVENT_COLUMNS)
        .where(column < after if backward else column > after, *(_CONDITIONS[name] for name in conditions))
        .order_by(column.desc() if backward else column)
        .limit(bindparam("page"))
    )


EVENT_EXISTS = Statement(select(events.c.global_position).where(events.c.event_id == bindparam("event_id")))
EVENT = Statement(select(*EVENT_COLUMNS).where(events.c.event_id == bindparam("event_id")))
EVENTS_OF_IDS = Statement(select(*EVENT_COLUMNS).where(member_of(events.c.event_id, "event_ids")))
STREAM_VERSION = Statement(
    select(func.max(events.c.version)).where(_CONDITIONS["aggregate_id"], _CONDITIONS["aggregate_type"])
)
LAST_EVENT = Statement(
    select(events.c.global_position, events.c.event_type, events.c.version)
    .where(_CONDITIONS["aggregate_id"], _CONDITIONS["aggregate_type"])
    .order_by(events.c.version.desc())
    .limit(literal_column("1"))
)
LAST_POSITION = Statement(select(func.max(events.c.global_position)))
TYPES_OF_ID = Statement(
    select(events.c.aggregate_type)
    .where(events.c.aggregate_id == bindparam("aggregate_id", type_=Identifier()))
    .group_by(events.c.aggregate_type)
)

_END = 2**62
"""Past every position: where reading backward starts."""


class Selection:
    """Which rows a read wants: the conditions as statement text and as values."""

    __slots__ = ("backward", "conditions", "key", "limit", "start", "values")

    def __init__(self, database: Database, options: ReadOptions, **stream: Any) -> None:
        self.key = "version" if stream else "global_position"
        self.backward = options.direction is ReadDirection.BACKWARD
        # Where the next page begins: past this key.
        self.start = min(options.from_position, _END) or (_END if self.backward else 0)
        if self.key == "version":  # an INTEGER column: 32 bits on PostgreSQL
            self.start = min(self.start, 2**31 - 1)
        self.limit = options.limit
        values: dict[str, Any] = dict(stream)
        for name in ("tenant_id", "from_timestamp", "to_timestamp"):
            value = getattr(options, name)
            if value is not None:
                values[name] = value
        for name in ("event_types", "aggregate_types"):
            names = getattr(options, name)
            if names is not None:
                values[name] = database.backend.names(sorted(names))
        self.values = values
        self.conditions = tuple(values)


async def event_by_id(database: Database, event_id: UUID) -> EventRow | None:
    """The row of one event; None if it is not stored."""
    rows = await database.rows(EVENT, {"event_id": event_id})
    return tuple(rows[0]) if rows else None


async def page_after(database: Database, wanted: Selection, after: int, size: int) -> list[EventRow]:
    """One page past a key. One query."""
    statement = _page(wanted.key, wanted.backward, wanted.conditions)
    return await database.rows(statement, {**wanted.values, "after": after, "page": size})


async def pages(
    database: Database, wanted: Selection, first_page: int = FIRST_PAGE_EVENTS
) -> AsyncGenerator[list[EventRow], None]:
    """Pages of rows; where it pays, the next is fetched while the caller works on the current one."""
    left = wanted.limit
    size = first_page if left is None or left > first_page else left
    if size == 0:
        return
    ahead: asyncio.Task[list[EventRow]] | None = None
    rows = await page_after(database, wanted, wanted.start, size)
    try:
        while rows:
            last = rows[-1][VERSION] if wanted.key == "version" else rows[-1][POSITION]
            if left is not None:
                left -= len(rows)
            more = len(rows) == size and left != 0
            if more:
                average = max(1, sum(len(row[PAYLOAD]) for row in rows) // len(rows))
                size = max(1, min(PAGE_EVENTS, PAGE_BYTES // average))
                size = size if left is None else min(size, left)
                if database.backend.reads_ahead and database.current_unit() is None:
                    ahead = asyncio.ensure_future(page_after(database, wanted, last, size))
                    yield rows
                    rows = await ahead
                    ahead = None
                else:
                    yield rows
                    rows = await page_after(database, wanted, last, size)
            else:
                yield rows
                return
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)  # its connection is back after this
