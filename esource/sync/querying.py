"""`esource.store.querying` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Iterable, Sequence

from esource.domain.events import DomainEvent
from esource.domain.queries import AppendCondition, Query
from esource.log.querying import QueryResult
from esource.log.streams import AppendResult
from esource.store import querying as asynchronous
from esource.sync.connection import Joinable
from esource.sync.driven import Driven, unwrapped


class Queries(Driven):
    """The part of `EventStore` that is about tags and queries."""

    _target: asynchronous.Queries

    def read_query(self, query: Query, after: int | None = None) -> QueryResult:
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
        return self._call(self._target.read_query(query, after))

    def append(
        self,
        events: Sequence[DomainEvent],
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
        connection: Joinable | None = None,
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
        return self._call(
            self._target.append(events, condition=condition, tags=tags, connection=unwrapped(connection))
        )
