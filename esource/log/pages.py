"""Reading the log: the statements of every read, compiled once, and the pages they come in.

A page is a short query by key; no cursor and no transaction stays open between pages, so a slow reader
holds nothing up. Rows are handed over one by one and decoded when asked for: memory is bounded by the
page, whatever the size of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, bindparam, func, literal_column, select

from esource.checks import LARGEST_POSITION
from esource.database.cancellation import uninterrupted, unseen
from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.domain.queries import Query
from esource.log.streams import EVERYTHING, ReadDirection, ReadOptions
from esource.tables.constructs import among, iso_text, member_of
from esource.tables.model import event_outbox, events
from esource.tables.rows import (
    PAYLOAD,
    POSITION,
    STORED_AT,
    VERSION,
    EventRow,
    StreamId,
)
from esource.tables.selecting import ItemShape, first_places, item_values, shape_of
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Timestamp, as_text

PAGE_EVENTS = 1024
"""Events in a page at most."""

PAGE_BYTES = 2 * 1024 * 1024
"""Payload characters that a page aims to stay below, by the size of the events in the page before."""

FIRST_PAGE_EVENTS = 250
"""The first page is smaller: the reader's first event comes sooner, and large events are noticed."""


def _as_read(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Text for ids and moments on both databases, ready to be spliced."""
    if isinstance(column.type, Identifier):
        return as_text(column)
    return iso_text(column) if isinstance(column.type, Timestamp) else column


EVENT_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(map(_as_read, events.c))
"""The columns of an `EventRow`: those of the table, in its order."""

_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "aggregate_id": events.c.aggregate_id == bindparam("aggregate_id"),
    "aggregate_type": events.c.aggregate_type == bindparam("aggregate_type"),
    "tenant_id": events.c.tenant_id == bindparam("tenant_id"),
    "from_timestamp": events.c.timestamp >= bindparam("from_timestamp", type_=Timestamp()),
    "to_timestamp": events.c.timestamp <= bindparam("to_timestamp", type_=Timestamp()),
    "event_types": member_of(events.c.event_type, "event_types"),
    "aggregate_types": member_of(events.c.aggregate_type, "aggregate_types"),
    "upto": events.c.global_position <= bindparam("upto", type_=events.c.global_position.type),
}


@lru_cache(maxsize=512)
def _page(
    key: str,
    backward: bool,
    from_end: bool,
    conditions: tuple[str, ...],
    shapes: tuple[ItemShape, ...] = (),
    only_events: bool = False,
) -> Statement:
    """The statement of one page: past a key (a version or a global position), or from the end, in its order.

    Of a query, each item brings its own first places: the page is among them. ``only_events`` leaves out the last columns,
    which decoding does not need.
    """
    column = events.c[key]
    after = bindparam("after", type_=column.type)
    past = () if from_end else (column < after if backward else column > after,)
    page = bindparam("page", type_=Integer())
    chosen = [among(events.c.global_position, first_places(shapes, page))] if shapes else past
    return Statement(
        select(*EVENT_COLUMNS[: STORED_AT if only_events else None])
        .where(*chosen, *(_CONDITIONS[name] for name in conditions))
        .order_by(column.desc() if backward else column)
        .limit(page)
        .offset(literal_column("0"))  # else SQLAlchemy says it to SQLite with a parameter
    )


_STREAM = _page("version", False, False, ("aggregate_id", "aggregate_type"), only_events=True)
EVENT_EXISTS = Statement(select(events.c.global_position).where(events.c.event_id == bindparam("event_id")))
EVENT = Statement(select(*EVENT_COLUMNS).where(events.c.event_id == bindparam("event_id")))
OUTBOX_OF_THE_LOG = Statement(
    # A row that was written with its event refers to it; one that was added by hand has the whole event.
    select(literal_column("1"))
    .select_from(event_outbox)
    .where(event_outbox.c.event_data.is_(None))
    .limit(literal_column("1"))
)
"""Whether outbox rows are written with the events: finds one of them."""
_of_log = event_outbox.alias("of_log")
NEWEST_OUTBOX_ROW = (
    select(_of_log.c.id)
    .where(_of_log.c.event_data.is_(None))
    .order_by(_of_log.c.global_position.desc())
    .limit(literal_column("1"))
)
"""The last row that was written with its event: it is never cleaned up, because `OUTBOX_OF_THE_LOG` has to find one."""
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

TRow = TypeVar("TRow")
Fetch: TypeAlias = Callable[[], Awaitable[list[TRow]]]
"""Fetches one page."""

_LAST = {"global_position": LARGEST_POSITION, "version": 2**31 - 1}
"""The greatest value of a key: that of BIGINT, and that of INTEGER on PostgreSQL."""


class Selection:
    """Which rows a read wants: the conditions as statement text and as values."""

    __slots__ = ("backward", "conditions", "key", "limit", "only_events", "shapes", "start", "values")

    def __init__(
        self,
        database: Database,
        options: ReadOptions,
        stream: StreamId | None = None,
        only_events: bool = False,
    ) -> None:
        self.key = "global_position" if stream is None else "version"
        self.backward = options.direction is ReadDirection.BACKWARD
        self.start: int | None = min(options.from_position, _LAST[self.key])
        """Where the next page begins: past this key; None for the end of the log or stream, read backward."""
        if self.backward and not 0 < options.from_position <= _LAST[self.key]:
            self.start = None
        self.limit = options.limit
        self.only_events = only_events
        """Whether the rows are decoded and nothing else."""
        values: dict[str, Any] = {} if stream is None else stream._asdict()
        if options is not EVERYTHING:  # as most often
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
        self.shapes: tuple[ItemShape, ...] = ()
        if options.query is not None:
            self._take_query(options.query, options.tenant_id, database.backend.names)

    def end_at(self, position: int) -> None:
        """Want nothing past a global position."""
        self.values["upto"] = position
        self.conditions = (*self.conditions, "upto")

    def hide_tags(self) -> None:
        """Row-level security may hide how often others have the tags of the query: look among the events of the role's own
        tenant, if they are few."""
        self.shapes = tuple(shape._replace(is_hidden=True) for shape in self.shapes)

    def _take_query(self, query: Query, tenant_id: UUID | None, names: Callable[[Any], Any]) -> None:
        """Want the events of a query, whose types are names."""
        # In one order, so that alike queries share a statement.
        items = sorted(query.items, key=lambda item: (len(item.tags), bool(item.types)))
        self.shapes = tuple(shape_of(item.types, item.tags, tenant_id) for item in items)
        for number, item in enumerate(items):
            self.values |= item_values(number, item.types, item.tags, names)

    def page(self, after: int | None, size: int) -> tuple[Statement, dict[str, Any]]:
        """What reads one page past a key, and its values; None: from the end, backward."""
        place = (self.key, self.backward, after is None)
        statement = _page(*place, self.conditions, self.shapes, self.only_events)
        return statement, {**self.values, "after": after, "page": size}

    def key_of(self, row: EventRow) -> int:
        """The key by which this row is past another one."""
        return row[POSITION] if self.key == "global_position" else row[VERSION]

    def move_past(self, row: EventRow, count: int) -> None:
        """Want only what follows this row, the last of so many that were wanted first."""
        self.start = self.key_of(row)
        if self.limit is not None:
            self.limit -= count


async def event_by_id(database: Database, event_id: UUID) -> EventRow | None:
    """The row of one event; None if it is not stored."""
    rows = await database.rows(EVENT, {"event_id": event_id})
    return tuple(rows[0]) if rows else None


def page_after(
    database: Database, wanted: Selection, after: int | None, size: int
) -> Awaitable[list[EventRow]]:
    """One page past a key; None: from the end, backward. One query."""
    return database.rows(*wanted.page(after, size))


def first_page(database: Database, stream: StreamId, wanted: Selection | None) -> Awaitable[list[EventRow]]:
    """The first page of a stream; None: of the whole stream, as most loads want it. One query."""
    if wanted is not None:
        return page_after(database, wanted, wanted.start, PAGE_EVENTS)
    aggregate_id, aggregate_type = stream
    values = {
        "aggregate_id": aggregate_id,
        "aggregate_type": aggregate_type,
        "after": 0,
        "page": PAGE_EVENTS,
    }
    return database.rows(_STREAM, values)


async def last_position(database: Database, unit: Unit | None = None) -> int:
    """The position of the last event in the whole log; 0 if there is none. One query."""
    return (await database.rows(LAST_POSITION, {}, unit))[0][0] or 0


def next_size(rows: Sequence[Any], most: int, *, size: int = PAGE_BYTES, place: int = PAYLOAD) -> int:
    """How many rows the next page takes, so that it has about ``size`` characters, if they are as long as these.

    Args:
        rows: The page before; not empty.
        most: The most rows that a page takes.
        size: Characters that a page aims to stay below.
        place: Where a row's text is.
    """
    average = max(1, sum(len(row[place]) for row in rows) // len(rows))
    return max(1, min(most, size // average))


async def _await(fetch: Fetch[TRow]) -> list[TRow]:
    return await fetch()


async def ahead(
    fetch: Fetch[TRow], follow: Callable[[list[TRow]], Fetch[TRow] | None], is_wanted: Callable[[], bool]
) -> AsyncGenerator[list[TRow], None]:
    """Pages, each fetched while the caller works on the one before; an empty page ends them.

    Args:
        fetch: Fetches the first page.
        follow: Says before a page is handed over what will fetch the one after it; None if it is the last.
        is_wanted: Whether to begin early. If not, a page is fetched when the caller asks for it.
    """
    early: asyncio.Task[list[TRow]] | None = None
    rows = await fetch()
    try:
        while rows:
            following = follow(rows)
            if following is None:
                yield rows
                return
            if is_wanted():
                early = unseen(_await(following))
                yield rows
                rows = await early
                early = None
            else:
                yield rows
                rows = await following()
    finally:
        if early is not None:
            early.cancel()
            # Its connection is back after this, even if the reader is cancelled a second time.
            await uninterrupted(asyncio.wait([early]))
            if not early.cancelled():
                early.exception()  # its error was seen; the reader no longer needs that page


def reads_ahead(database: Database) -> bool:
    """Whether the next page is to be fetched early: where it is faster, and outside of a transaction."""
    return database.backend.reads_ahead and database.current_unit() is None


def pages(
    database: Database, wanted: Selection, first_page: int = FIRST_PAGE_EVENTS
) -> AsyncGenerator[list[EventRow], None]:
    """Pages of rows, as many as are wanted; where it pays, read ahead."""
    left = wanted.limit
    size = first_page if left is None else min(first_page, left)

    def follow(rows: list[EventRow]) -> Fetch[EventRow] | None:
        nonlocal left, size
        if left is not None:
            left -= len(rows)
        if len(rows) < size or left == 0:
            return None
        size = next_size(rows, PAGE_EVENTS if left is None else min(PAGE_EVENTS, left))
        return partial(page_after, database, wanted, wanted.key_of(rows[-1]), size)

    first = partial(page_after, database, wanted, wanted.start, size)
    return ahead(first if size else _none, follow, partial(reads_ahead, database))


async def _none() -> list[EventRow]:
    return []
