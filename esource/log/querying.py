"""Reading by query: the events that a decision needs, and the head of the log that it is based on."""

from __future__ import annotations

from dataclasses import dataclass

from esource.checks import check_whole
from esource.domain.queries import AppendCondition, Query, check_query
from esource.errors import InvalidOptionError
from esource.log.reader import LogReader
from esource.log.streams import StoredEvent


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
    check_whole("after", after or 0)
    raise InvalidOptionError("reading by query is not available yet")
