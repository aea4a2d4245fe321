"""Queries over the log by event types and tags, and the condition that an append may depend on one."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from uuid import UUID

from esource.checks import LARGEST_INTEGER, check_id, check_name, check_whole, shown
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry, check_event_types, default_registry
from esource.domain.tags import given_tags
from esource.errors import InvalidEventError, InvalidOptionError

QUERY_ITEMS = 100
"""Items that a query has at most: one statement selects by all of them, and SQLite takes 500 parts of one."""

ITEM_TAGS = 100
"""Tags that an item of a query has at most, for the same reason."""

NO_TYPE = "esource.NoType"
"""The type of no event."""


class QueryItem:
    """Events of any of these types that have all of these tags.

    Args:
        types: Names or classes; none: any type will do. A class stands for all types that the store reads as it, or as a
            class derived from it.
        tags: As `Tag.of` makes them, 100 at most; none: whatever the tags.

    Raises:
        InvalidOptionError: the types are no event types, a tag is none, or there are too many.
    """

    __slots__ = ("_named", "tags", "types")

    def __init__(self, types: Iterable[str | type[DomainEvent]] = (), tags: Iterable[str] = ()) -> None:
        self.types: frozenset[str | type[DomainEvent]] = check_event_types(types) or frozenset()
        for each in self.types:
            if isinstance(each, str):
                _check_type("an event type of a QueryItem", each)
        self.tags: frozenset[str] = given_tags(tags)
        if len(self.tags) > ITEM_TAGS:
            raise InvalidOptionError(
                f"a QueryItem has at most {ITEM_TAGS} tags, not {len(self.tags)}: it selects events that have all of them. Events "
                "that have one or another are selected by an item for each"
            )
        self._named = all(isinstance(each, str) for each in self.types)

    def types_in(self, registry: EventRegistry) -> frozenset[str]:
        """The names of its types, as a registry has them."""
        return self.types if self._named else registry.types_of(self.types)  # type: ignore[return-value]

    def matches(self, event_type: str, tags: AbstractSet[str]) -> bool:
        """Whether an event of this type with these tags is selected. Classes are those of `default_registry`."""
        types = self.types_in(default_registry)
        return (not types or event_type in types) and self.tags <= tags

    def named(self, registry: EventRegistry) -> QueryItem:
        """The same with the names of its types, as a registry has them."""
        if self._named:
            return self
        item = object.__new__(QueryItem)  # the constructor would check all of it again
        item.types, item.tags, item._named = self.types_in(registry), self.tags, True
        return item

    def __repr__(self) -> str:
        types = sorted(each if isinstance(each, str) else each.__name__ for each in self.types)
        return f"QueryItem(types={types}, tags={sorted(self.tags)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueryItem) and (self.types, self.tags) == (other.types, other.tags)

    def __hash__(self) -> int:
        return hash((self.types, self.tags))


class Query:
    """Events that any of its items selects.

    Example:
        >>> Query(
        ...     QueryItem(types=[CourseDefined, CourseChanged], tags=["course:c1"]),
        ...     QueryItem(types=[StudentSubscribed], tags=["student:s1"]),
        ... )

    Args:
        items: In any order, 100 at most. ``Query(QueryItem())`` selects every event.

    Raises:
        InvalidOptionError: there is no item, there are too many, or something is none.
    """

    __slots__ = ("items",)

    def __init__(self, *items: QueryItem) -> None:
        if not items:
            raise InvalidOptionError(
                "a Query without items selects nothing. Give it an item; Query(QueryItem()) selects every event"
            )
        if len(items) > QUERY_ITEMS:
            raise InvalidOptionError(
                f"a Query has at most {QUERY_ITEMS} items, not {len(items)}. Give its events one more tag, that all of them share, "
                "and select by that"
            )
        for item in items:
            if not isinstance(item, QueryItem):
                raise InvalidOptionError(f"a Query is made of QueryItem(...), not of {shown(item)}")
        self.items: tuple[QueryItem, ...] = items

    def matches(self, event_type: str, tags: AbstractSet[str]) -> bool:
        """Whether an event of this type with these tags is selected. No I/O: the same answer as the database gives."""
        for item in self.items:  # noqa: SIM110 - a generator takes twice as long, and a decision asks for each event
            if item.matches(event_type, tags):
                return True
        return False

    def named(self, registry: EventRegistry) -> Query:
        """The same with the names of its types, as a registry has them."""
        named = [item.named(registry) for item in self.items]
        return self if all(map(operator.is_, named, self.items)) else Query(*named)

    def __or__(self, other: Query) -> Query:
        return Query(*self.items, *other.items)

    def __repr__(self) -> str:
        return f"Query({', '.join(map(repr, self.items))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Query) and set(self.items) == set(other.items)

    def __hash__(self) -> int:
        return hash(frozenset(self.items))


def _check_type(what: str, name: str) -> None:
    try:
        check_name(what, name)
    except InvalidEventError as error:
        raise InvalidOptionError(str(error)) from None


def narrowed(query: Query, types: frozenset[str] | None, registry: EventRegistry) -> Query:
    """What a query selects of events of these types; None: of all. With names, as a registry has them."""
    named = query.named(registry)
    if types is None:
        return named
    items = [QueryItem((item.types & types) if item.types else types, item.tags) for item in named.items]
    return Query(*([item for item in items if item.types] or [QueryItem([NO_TYPE])]))


def check_query(query: Query) -> Query:
    """The query itself, if it is one.

    Raises:
        InvalidOptionError: it is not.
    """
    if not isinstance(query, Query):
        raise InvalidOptionError(f"query must be Query(QueryItem(...), ...), not {shown(query)}")
    return query


@dataclass(frozen=True, slots=True)
class AppendCondition:
    """What an append depends on: that nothing has come that its decision did not know of.

    `QueryResult.condition` is one: of the query that was read, and the head of the log at that moment.

    Raises:
        InvalidOptionError: the query is none, ``after`` is missing, or a stream or its version makes no sense.
    """

    query: Query | None = None
    """No event that it selects may have a position past `after`."""
    after: int | None = None
    """The head of the log that the decision is based on: `QueryResult.head`. 0: no event may match at all."""
    streams: Mapping[tuple[UUID, str], int] = field(default_factory=dict)
    """Streams that were only read, ``(aggregate_id, aggregate_type)``, each with the version that it has to be at; 0: it
    has no events yet."""

    def __post_init__(self) -> None:
        if self.query is not None:
            check_query(self.query)
            if self.after is None:
                raise InvalidOptionError(
                    "an AppendCondition needs after=: the head of the reading that the decision is based on "
                    "(QueryResult.head, or take QueryResult.condition); 0, if no event may match at all"
                )
            check_whole("after", self.after)
        elif not self.streams:
            raise InvalidOptionError("an AppendCondition needs a query, or streams")
        if not isinstance(self.streams, Mapping):
            raise InvalidOptionError(
                f"streams must be {{(aggregate_id, aggregate_type): version}}, not {shown(self.streams)}"
            )
        for stream, version in self.streams.items():
            if not isinstance(stream, tuple) or len(stream) != 2 or not isinstance(stream[1], str):
                raise InvalidOptionError(
                    f"streams must be {{(aggregate_id, aggregate_type): version}}, not of {shown(stream)}"
                )
            check_id("aggregate_id", stream[0])
            _check_type("the aggregate type of a stream", stream[1])
            check_whole("version", version, most=LARGEST_INTEGER)

    def named(self, registry: EventRegistry) -> AppendCondition:
        """The same with the names of the query's types, as a registry has them."""
        if self.query is None:
            return self
        return AppendCondition(self.query.named(registry), self.after, self.streams)

    def __hash__(self) -> int:
        return hash((self.query, self.after, frozenset(self.streams.items())))
