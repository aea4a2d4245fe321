"""Reading by query: the events that a decision needs, and the head of the log that it is based on."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import func, literal_column, select, true

from esource.checks import check_whole
from esource.database.database import Database
from esource.domain.queries import AppendCondition, Query, check_query
from esource.errors import DatabaseError
from esource.log.filling import require_filled
from esource.log.pages import EVENT_COLUMNS, PAGE_EVENTS, Selection, next_size, pages
from esource.log.reader import LogReader
from esource.log.streams import ReadOptions, StoredEvent
from esource.tables.constructs import hides_tags
from esource.tables.model import events as log_table
from esource.tables.model import tag_fillings
from esource.tables.rows import POSITION, EventRow
from esource.tables.statement import Statement

_head = select(
    select(func.max(log_table.c.global_position)).scalar_subquery().label("head"),
    select(tag_fillings.c.tag_name)
    .where(tag_fillings.c.completed_at.is_(None))
    .limit(literal_column("1"))
    .scalar_subquery()
    .label("filling"),
    hides_tags().label("is_hidden"),
).subquery("head")
"""The head of the log, whether there are tags that stored events are still being given, and whether tags may be hidden."""


_is_hidden: WeakKeyDictionary[Database, bool] = WeakKeyDictionary()
"""What each database has said last: a page that looks up hidden tags is another statement. Not while tags are being filled."""


@lru_cache(maxsize=512)
def _with_head(page: Statement) -> Statement:
    """A page whose rows all end in the head, as of the same moment; where the page is empty, one row has nothing else."""
    found = page.construct.subquery("found")  # type: ignore[attr-defined]
    return Statement(
        select(found, _head).select_from(_head.outerjoin(found, true())).order_by(found.c.global_position)
    )


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query has found, and up to where."""

    query: Query
    events: list[StoredEvent]
    """In the order of the log."""
    head: int
    """The position of the last event in the log when it was read: no event up to there is missing."""

    @property
    def condition(self) -> AppendCondition:
        """For the append that is decided with this: nothing that the query selects may have come past `head`."""
        return AppendCondition(self.query, self.head)


async def read_query(reader: LogReader, query: Query, after: int | None) -> QueryResult:
    """See `EventStore.read_query`."""
    check_query(query)
    position = check_whole("after", after or 0)
    wanted, rows = await _first_page(reader, query.named(reader.codec.registry), position)
    # Positions become visible in their order, so that everything up to the head is there, and for good.
    head = rows[0][len(EVENT_COLUMNS)]
    if rows[0][POSITION] is None:
        return QueryResult(query, [], head or 0)
    events = await _decoded(reader, [row[: len(EVENT_COLUMNS)] for row in rows])
    if len(rows) == PAGE_EVENTS:
        wanted.move_past(rows[-1], len(rows))
        wanted.end_at(head)
        async with aclosing(pages(reader.database, wanted, next_size(rows, PAGE_EVENTS))) as found:
            async for more in found:
                events += await _decoded(reader, more)
    return QueryResult(query, events, head)


async def _first_page(reader: LogReader, query: Query, after: int) -> tuple[Selection, list[Any]]:
    """The first page of a query, whose rows end in the head; and what has selected it."""
    database = reader.database
    while True:
        is_hidden = _is_hidden.get(database)
        was_asked = is_hidden is None
        if was_asked:
            is_hidden = await require_filled(database, query)
        wanted = reader.selection(ReadOptions(query=query, from_position=after))
        if is_hidden:
            wanted.hide_tags()
        page, values = wanted.page(wanted.start, PAGE_EVENTS)
        try:
            rows = await database.rows(_with_head(page), values)
        except DatabaseError:
            # Row-level security may have been switched off meanwhile: the function that a page of hidden tags calls is gone.
            _is_hidden.pop(database, None)
            if was_asked or not is_hidden or database.current_unit() is not None:
                raise
            continue
        filling, is_hidden = rows[0][-2:]
        if filling is None:
            _is_hidden[database] = is_hidden
        else:
            _is_hidden.pop(database, None)
        if filling is None or was_asked:
            return wanted, rows


async def _decoded(reader: LogReader, rows: list[EventRow]) -> list[StoredEvent]:
    decode = await reader.decoder(rows)
    return [StoredEvent(row, decode) for row in reader.known(rows)]
