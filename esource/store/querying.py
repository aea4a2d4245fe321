"""How a store reads by query, and appends what was decided with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from esource.database.transactions import Connection
from esource.domain.events import DomainEvent
from esource.domain.queries import AppendCondition, Query
from esource.log.querying import QueryResult, read_query
from esource.log.reader import LogReader
from esource.log.streams import AppendResult
from esource.log.writer import LogWriter


class Queries:
    """The part of `EventStore` that is about tags and queries."""

    reader: LogReader
    writer: LogWriter

    async def read_query(self, query: Query, after: int | None = None) -> QueryResult:
        """The events that a query selects, all of one moment, and the head of the log at that moment.

        Inside `transaction` it is what that transaction sees. All of the events are in memory; for many, follow the log
        with `subscribe`.

        Args:
            query: Which events.
            after: Only events past this position; all of them if left out.

        Raises:
            InvalidOptionError: what is no query, or no position.
            DatabaseError: the database refused or could not be reached.
        """
        return await read_query(self.reader, query, after)

    async def append(
        self,
        events: Sequence[DomainEvent],
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
        connection: Connection | None = None,
    ) -> AppendResult:
        """Append events that name their stream, or have none: all of them or none, as `append_events` does.

        The stream is the one that the events name. Events that name none become a stream of their own: its id is the id of
        the first event, its type what the class says in ``aggregate_type``, or else the type of the first event.

        Args:
            events: In order; those that name a stream name the same one.
            condition: What must not have come meanwhile; see `append_events`.
            tags: Tags of all of these events, beside those that their classes declare.
            connection: A transaction of the application's own; see `append_events`.

        Raises:
            AppendConditionError: an event has come that the condition excludes.
            OptimisticLockError: a stream that the condition names is at another version.
            InvalidOptionError: there is no event.
            EventSourceError: as for `append_events`.
        """
        return await self.writer.append_named(events, condition, tags, connection)
