"""What goes into an append and what comes out of a read: the words of the store's interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Literal, TypeAlias
from uuid import UUID
from zlib import crc32

from esource.checks import check_id, check_moment, check_names, check_whole, shown
from esource.domain.events import DomainEvent
from esource.domain.queries import Query, check_query
from esource.domain.registry import EventRegistry, check_event_types
from esource.domain.stream_closed import STREAM_CLOSED
from esource.domain.tags import stored_tags
from esource.errors import EventDecodeError, InvalidOptionError
from esource.moments import from_iso
from esource.tables.rows import (
    ACTOR_ID,
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    EVENT_TYPE,
    PAYLOAD,
    POSITION,
    STORED_AT,
    TAGS,
    TENANT_ID,
    TIMESTAMP,
    VERSION,
    EventRow,
    StreamId,
)


class ExpectedVersion:
    """What an append may expect of its stream, besides an exact version (an int from 0)."""

    ANY = -1
    """Any version will do: nothing is checked."""
    NO_STREAM = 0
    """It has no events yet."""
    STREAM_EXISTS = -2
    """It has at least one event."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did, returned after its commit."""

    success: bool
    new_version: int
    """The stream's version after the append: that of its last event."""
    global_position: int = 0
    """The position of the append's last event in the whole log."""
    conflict: bool = False
    idempotent: bool = False
    """The same events were stored at the same place before; this is the first result again."""


class ReadDirection(Enum):
    """Which way to read."""

    FORWARD = "forward"
    BACKWARD = "backward"


EventTypes: TypeAlias = (
    AbstractSet[str | type[DomainEvent]]
    | list[str]
    | Sequence[type[DomainEvent]]
    | list[str | type[DomainEvent]]
    | tuple[str | type[DomainEvent], ...]
)
"""Event types by name or by class. A single text is none of these: it would be taken for its letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Which events to read, and in which order. All conditions must hold.

    Raises:
        InvalidOptionError: a direction that is none, a limit or a position that is not a whole number from 0, a moment
            without a time zone, an id that is not a UUID, or a single text where a collection of types is wanted.
    """

    direction: ReadDirection | Literal["forward", "backward"] = ReadDirection.FORWARD
    """A `ReadDirection`, or its value as text."""
    from_position: int = 0
    """Read only past this position, exclusively: forward the greater ones, backward the smaller. 0 is
    the start of the log (or stream) forward, its end backward."""
    limit: int | None = None
    """At most this many events."""
    from_timestamp: datetime | None = None
    """Only events that occurred at or after this moment."""
    to_timestamp: datetime | None = None
    """Only events that occurred at or before this moment."""
    tenant_id: UUID | None = None
    event_types: EventTypes | None = None
    """Only these event types. A class stands for all types that the store reads as it, or as a class derived from it."""
    aggregate_types: AbstractSet[str] | list[str] | tuple[str, ...] | None = None
    query: Query | None = None
    """Only events that it selects, of the whole log, forward. It says all types and tags itself."""

    def __post_init__(self) -> None:
        if not isinstance(self.direction, ReadDirection):
            object.__setattr__(self, "direction", _direction_of(self.direction))
        check_whole("from_position", self.from_position, most=None)
        if self.limit is not None:
            check_whole("limit", self.limit, most=None)
        if self.from_timestamp is not None:
            check_moment("from_timestamp", self.from_timestamp)
        if self.to_timestamp is not None:
            check_moment("to_timestamp", self.to_timestamp)
        if self.tenant_id is not None:
            check_id("tenant_id", self.tenant_id)
        if self.event_types is not None:
            check_event_types(self.event_types)
        if self.aggregate_types is not None:
            check_names("aggregate_types", self.aggregate_types)
        if self.query is not None:
            self._check_query(self.query)

    def named(self, registry: EventRegistry) -> ReadOptions:
        """The same with the names of the types, as a registry has them."""
        if self.event_types is not None:
            return replace(self, event_types=registry.types_of(self.event_types))
        if self.query is None:
            return self
        query = self.query.named(registry)
        return self if query is self.query else replace(self, query=query)

    def _check_query(self, query: Query) -> None:
        check_query(query)
        others = ("event_types", "aggregate_types", "from_timestamp", "to_timestamp")
        for name in others:
            if getattr(self, name) is not None:
                raise InvalidOptionError(f"query and {name} exclude each other: say it in the query")
        if self.direction is ReadDirection.BACKWARD:
            raise InvalidOptionError("a query is read forward")


def _direction_of(value: object) -> ReadDirection:
    for direction in ReadDirection:
        if direction.value == value:
            return direction
    raise InvalidOptionError(
        f"direction must be ReadDirection.FORWARD or ReadDirection.BACKWARD, not {shown(value)}"
    )


EVERYTHING = ReadOptions()
"""The whole log, or the whole stream: what most reads want."""


class StoredEvent:
    """An event with its place in the log. The event itself is decoded when first asked for.

    Readers that only count, copy or relay never pay for decoding.

    Raises:
        UnknownEventTypeError: when `event` is asked for: no class is registered for its type.
        EventDecodeError: when `event` is asked for: the payload does not fit the class. When a moment is asked
            for: another program has stored a text that is not a moment.
    """

    __slots__ = ("_decode", "_event", "row")

    def __init__(self, row: EventRow, decode: Callable[[EventRow], DomainEvent]) -> None:
        self.row = row
        """The stored values as text, in the order of `esource.tables.rows.EventRow`."""
        self._decode = decode
        self._event: DomainEvent | None = None

    @property
    def event(self) -> DomainEvent:
        """The event, decoded with the class registered for its type."""
        if self._event is None:
            self._event = self._decode(self.row)
        return self._event

    @property
    def global_position(self) -> int:
        """The event's place in the whole log; later events have greater ones, with holes."""
        return self.row[POSITION]

    @property
    def event_id(self) -> UUID:
        return UUID(self.row[EVENT_ID])

    @property
    def aggregate_id(self) -> UUID:
        return UUID(self.row[AGGREGATE_ID])

    @property
    def aggregate_type(self) -> str:
        return self.row[AGGREGATE_TYPE]

    @property
    def event_type(self) -> str:
        return self.row[EVENT_TYPE]

    @property
    def tenant_id(self) -> UUID | None:
        return None if self.row[TENANT_ID] is None else UUID(self.row[TENANT_ID])

    @property
    def actor_id(self) -> str | None:
        return self.row[ACTOR_ID]

    @property
    def stream_id(self) -> str:
        """The stream's name: ``<aggregate_id>:<aggregate_type>``."""
        return f"{self.row[AGGREGATE_ID]}:{self.row[AGGREGATE_TYPE]}"

    @property
    def stream_position(self) -> int:
        """The event's version in its stream, from 1."""
        return self.row[VERSION]

    @property
    def occurred_at(self) -> datetime:
        return self._moment(self.row[TIMESTAMP])

    @property
    def payload(self) -> str:
        """The stored payload, as JSON text."""
        return self.row[PAYLOAD]

    @property
    def tags(self) -> frozenset[str]:
        """The tags that it was stored with: those that its class declares, and those that were given at the append.

        Raises:
            EventDecodeError: another program has written something that is no list of texts.
        """
        try:
            return stored_tags(self.row[TAGS])
        except ValueError as error:
            raise self._undecodable(f"its tags are {error}") from error

    @property
    def stored_at(self) -> datetime:
        """When the store wrote it."""
        return self._moment(self.row[STORED_AT])

    def _moment(self, text: str) -> datetime:
        try:
            return from_iso(text)
        except ValueError as error:
            raise self._undecodable(f"{text!r} is not a timestamp") from error

    def _undecodable(self, problem: str) -> EventDecodeError:
        return EventDecodeError(self.event_type, self.row[EVENT_ID], self.global_position, problem)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredEvent) and tuple(self.row) == tuple(other.row)

    def __hash__(self) -> int:
        return hash(self.row[EVENT_ID])

    def __repr__(self) -> str:
        return f"StoredEvent({self.event_type}, {self.stream_id}, {self.stream_position}, @{self.global_position})"


@dataclass(frozen=True, slots=True)
class EventStream:
    """The events of one aggregate, in order."""

    aggregate_id: UUID
    aggregate_type: str
    events: list[DomainEvent] = field(default_factory=list)
    version: int = 0
    """The stored version of the last event read; of the stream, when nothing was filtered out."""

    @property
    def is_empty(self) -> bool:
        return not self.events

    @property
    def is_closed(self) -> bool:
        """Whether it ends with a `StreamClosed` event: it is closed, and its end is among what was read."""
        return bool(self.events) and self.events[-1].event_type == STREAM_CLOSED

    @property
    def latest_event(self) -> DomainEvent | None:
        return self.events[-1] if self.events else None


def stream_name(aggregate_type: str, aggregate_id: UUID) -> str:
    """The stream id that `StoredEvent.stream_id` and `read_stream` use."""
    return str(StreamId(aggregate_id, aggregate_type))


def parse_stream_name(stream_id: str) -> StreamId:
    """The aggregate id and type of a stream id.

    Raises:
        InvalidOptionError: it is not of the form ``<aggregate_id>:<aggregate_type>``.
    """
    if not isinstance(stream_id, str):
        raise InvalidOptionError(
            f"a stream id is the text <aggregate_id>:<aggregate_type>, not {shown(stream_id)}"
        )
    aggregate_id, separator, aggregate_type = stream_id.partition(":")
    try:
        parsed = UUID(aggregate_id)
    except ValueError:
        separator = ""
    if not separator or not aggregate_type:
        raise InvalidOptionError(f"a stream id is <aggregate_id>:<aggregate_type>, not {shown(stream_id)}")
    return StreamId(parsed, aggregate_type)


def partition_of(aggregate_id: UUID | str, partitions: int) -> int:
    """The partition, from 0, that a stream belongs to: the same in every process, for ever (CRC-32)."""
    return crc32(str(aggregate_id).encode()) % partitions
