"""Reading by query: the events that a decision needs, and the head of the log that it is based on."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy import func, literal_column, select

from esource.checks import check_whole
from esource.domain.queries import AppendCondition, Query, check_query
from esource.log.filling import require_filled
from esource.log.pages import PAGE_EVENTS, pages
from esource.log.reader import LogReader
from esource.log.streams import ReadOptions, StoredEvent
from esource.tables.constructs import hides_tags
from esource.tables.model import events as log_table
from esource.tables.model import tag_fillings
from esource.tables.statement import Statement

_HEAD = Statement(
    select(
        select(func.max(log_table.c.global_position)).scalar_subquery(),
        select(tag_fillings.c.tag_name)
        .where(tag_fillings.c.completed_at.is_(None))
        .limit(literal_column("1"))
        .scalar_subquery(),
        hides_tags(),
    )
)
"""The head of the log, whether there are tags that stored events are still being given, and whether tags may be hidden."""


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
    # First the head: positions become visible in their order, so that everything up to there is there for good.
    [(head, is_filling, is_hidden)] = await reader.database.rows(_HEAD, {})
    head = head or 0
    if is_filling:
        await require_filled(reader.database, query.named(reader.codec.registry))
    wanted = reader.selection(ReadOptions(query=query, from_position=position))
    if is_hidden:
        wanted.hide_tags()
    wanted.end_at(head)
    events: list[StoredEvent] = []
    async with aclosing(pages(reader.database, wanted, PAGE_EVENTS)) as found:
        async for rows in found:
            decode = await reader.decoder(rows)
            events += [StoredEvent(row, decode) for row in reader.known(rows)]
    return QueryResult(query, events, head)
