"""Reading by query: the events that a decision needs, and the head of the log that it is based on."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from esource.checks import check_whole
from esource.domain.queries import AppendCondition, Query, check_query
from esource.log.pages import PAGE_EVENTS, last_position, pages
from esource.log.reader import LogReader
from esource.log.streams import ReadOptions, StoredEvent


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
    head = await last_position(reader.database)
    wanted = reader.selection(ReadOptions(query=query, from_position=position))
    wanted.end_at(head)
    events: list[StoredEvent] = []
    async with aclosing(pages(reader.database, wanted, PAGE_EVENTS)) as found:
        async for rows in found:
            decode = await reader.decoder(rows)
            events += [StoredEvent(row, decode) for row in reader.known(rows)]
    return QueryResult(query, events, head)
