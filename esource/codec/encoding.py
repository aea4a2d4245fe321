"""An event as a row: what may be stored, and in which form.

The columns hold what every event has; the payload holds the rest as JSON text, written in one pass of pydantic's
serialiser.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from esource.checks import (
    STANDARD_LIMITS,
    Limits,
    check_id,
    check_json,
    check_name,
    check_size,
    check_text,
    find_unstorable,
    shown,
)
from esource.codec.decoding import Form, UnknownEvents, newest_version
from esource.codec.read_back import require_equal, require_readable
from esource.domain.events import UNASSIGNED, DomainEvent
from esource.domain.registry import EventRegistry
from esource.domain.shape import shape_of
from esource.domain.stream_closed import SYSTEM_EVENTS
from esource.errors import InvalidEventError, KeyStoreMissingError
from esource.moments import as_utc
from esource.privacy.fields import COLUMN_FIELDS, SEALED, Keys, PersonalFields, personal_fields
from esource.privacy.payloads import joined, personal_parts, require_erasable, sealed_payload
from esource.tables.rows import EncodedEvent

NoneType = type(None)

_INFINITE = {
    1: datetime.min.replace(tzinfo=timezone.utc),
    9999: datetime.max.replace(tzinfo=timezone.utc),
}
"""The first and the last moment, by year: asyncpg stores them as -infinity and infinity."""


class Encoder:
    """Turns events into rows; the other half of a `Codec` is its `Decoder`."""

    registry: EventRegistry
    unknown_events: UnknownEvents
    _limits: Limits

    def encode(
        self, event: DomainEvent, aggregate_type: str, aggregate_id: UUID, keys: Keys | None = None
    ) -> EncodedEvent:
        """The row values of an event that is to be appended to this stream. No I/O.

        Args:
            event: The event.
            aggregate_type: The stream's.
            aggregate_id: The stream's.
            keys: What its personal fields are sealed with.

        Raises:
            InvalidEventError: the event names another stream, or holds what may not be stored.
            KeyStoreMissingError: it has personal fields, and there are no keys.
            SubjectErasedError: the key of a subject was destroyed.
        """
        if not isinstance(event, DomainEvent):
            raise InvalidEventError(
                "events",
                f"holds {_kind_of(event)}, not a DomainEvent",
                remedy="Pass a list of events, even of one: [event]",
            )
        named = event.aggregate_id
        # Most often it is the same object, and UUIDs compare in Python.
        if (named is not aggregate_id and named != aggregate_id) or event.aggregate_type != aggregate_type:
            _require_its_stream(event, aggregate_type, aggregate_id)
        if self.registry.classes.get(event.event_type) is type(event):
            return encode(event, keys, self._limits)
        registered = self.registry.get_or_none(event.event_type)
        encoded = encode(event, keys, self._limits, registered)
        if registered is None:
            self._require_registered(event)
        return encoded

    def _require_registered(self, event: DomainEvent) -> None:
        """Refuse an event that this very store could not read again.

        Raises:
            InvalidEventError: no class is registered for its type, and the store was not told what to do then.
        """
        if self.unknown_events == "raise" and event.event_type not in SYSTEM_EVENTS:
            raise InvalidEventError(
                "event_type",
                f"{event.event_type!r} has no registered class, so that the event could not be read again",
                remedy=f"Put @register_event above {_place(type(event))}, or open the store with "
                "unknown_events='untyped' or 'skip'",
            )


def _place(event_class: type) -> str:
    return f"{event_class.__module__}.{event_class.__qualname__}"


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _require_its_stream(event: DomainEvent, aggregate_type: str, aggregate_id: UUID) -> None:
    """Refuse an event that names another stream; one that names none belongs to any.

    Raises:
        InvalidOptionError: the stream's id is not a UUID.
        InvalidEventError: the event names another stream.
    """
    check_id("aggregate_id", aggregate_id)
    is_of_another_id = event.aggregate_id not in (aggregate_id, UNASSIGNED)
    if is_of_another_id or event.aggregate_type not in (aggregate_type, ""):
        raise InvalidEventError(
            "aggregate_id" if is_of_another_id else "aggregate_type",
            f"the event belongs to {event.aggregate_type} {event.aggregate_id}, "
            f"not to {aggregate_type} {aggregate_id}",
        )


class _Writing:
    """What writing a class of events takes, looked up once."""

    __slots__ = ("elsewhere", "event_type", "has_extras", "personal", "shape", "version")

    def __init__(self, event_class: type[DomainEvent]) -> None:
        self.shape = shape_of(event_class)
        self.personal = personal_fields(event_class)
        self.elsewhere = COLUMN_FIELDS if self.personal is None else self.personal.left_out
        """The fields that are not in the plain part of the payload."""
        self.has_extras = event_class.model_config.get("extra") == "allow"
        self.version = newest_version(event_class)
        self.event_type: str | None = event_class.model_fields["event_type"].default
        """The class's own name, if it may be stored: it is not looked at again with each event."""
        try:
            check_name("event_type", self.event_type)
        except InvalidEventError:
            self.event_type = None


@lru_cache(maxsize=4096)
def _writing(event_class: type[DomainEvent]) -> _Writing:
    return _Writing(event_class)


def encode(
    event: DomainEvent,
    keys: Keys | None = None,
    limits: Limits = STANDARD_LIMITS,
    read_as: type[DomainEvent] | None = None,
) -> EncodedEvent:
    """The row values of an event, wherever it belongs. No I/O.

    Args:
        event: The event.
        keys: What its personal fields are sealed with.
        limits: What is too much.
        read_as: The class that will read the event, if that is not its own: it has to take the event.

    Raises:
        InvalidEventError: it holds what may not be stored, what would not come back equal, or what is beyond a
            limit.
        KeyStoreMissingError: it has personal fields, and there are no keys.
        SubjectErasedError: the key of a subject was destroyed.
    """
    writing = _writing(type(event))
    values = event.__dict__
    is_sure = (
        (
            writing.shape.holds_validated(values)
            if type(event.__pydantic_fields_set__) is set
            else writing.shape.holds(values)
        )
        and values["event_version"] == writing.version
        and not (writing.has_extras and event.__pydantic_extra__)
    )
    if not is_sure:
        _require_columns(event, writing)
    event_type, actor_id = values["event_type"], values["actor_id"]
    if event_type is not writing.event_type or limits is not STANDARD_LIMITS:
        check_name("event_type", event_type, limits.name_characters)
    if actor_id is not None:
        check_text("actor_id", actor_id, limits.name_characters)
    occurred_at = values["occurred_at"]
    if occurred_at.tzinfo is not timezone.utc or occurred_at.year in _INFINITE:
        occurred_at = _moment(occurred_at)
    payload = _plain_payload(event, writing, is_sure, limits)
    parts = _NO_PARTS if writing.personal is None else personal_parts(event, writing.personal, limits)
    if not is_sure:
        require_equal(event, joined([payload, *parts]) if parts else payload)
    if read_as is not None:
        require_readable(event, joined([payload, *parts]) if parts else payload, read_as)
    if writing.personal is not None:
        payload = _sealed(event, writing.personal, payload, parts, keys, limits)
    # A named tuple's own constructor is a Python function, which costs twice as much.
    row = (values["event_id"], event_type, values["tenant_id"], actor_id, occurred_at, payload, None)
    return tuple.__new__(EncodedEvent, row)


def _require_columns(event: DomainEvent, writing: _Writing) -> None:
    """Look at what goes into columns: `model_copy` lets anything in, and SQLite would store it.

    Raises:
        InvalidEventError: a value is not of its column's type, or the event is newer than its class.
    """
    values = event.__dict__
    for name, kinds in _COLUMN_TYPES.items():
        if name not in values:
            raise InvalidEventError(name, "is missing: the event was made without it")
        if not isinstance(values[name], kinds) or isinstance(values[name], bool):
            raise InvalidEventError(name, f"is {shown(values[name])}, which is not {_COLUMN_WORDS[kinds]}")
    version = values["event_version"]
    if writing.version is not None and version > writing.version:
        raise InvalidEventError(
            "event_version",
            f"is {version}, and {type(event).__name__} knows {writing.version}: it could not be read again",
            remedy="Declare the version in the class, as in `event_version: int = 2`",
        )
    if event.__pydantic_extra__:
        find_unstorable("", event.__pydantic_extra__)
        if SEALED in event.__pydantic_extra__:
            raise InvalidEventError(SEALED, "is the name under which personal fields are sealed")


_COLUMN_TYPES: dict[str, Any] = {
    "event_id": UUID,
    "event_type": str,
    "aggregate_id": UUID,
    "aggregate_type": str,
    "aggregate_version": int,
    "tenant_id": (UUID, NoneType),
    "actor_id": (str, NoneType),
    "occurred_at": datetime,
    "event_version": int,
}
_COLUMN_WORDS: dict[Any, str] = {
    UUID: "a UUID",
    str: "text",
    int: "an integer",
    (UUID, NoneType): "a UUID",
    (str, NoneType): "text",
    datetime: "a datetime",
}


def _moment(occurred_at: datetime) -> datetime:
    """When an event occurred, in UTC.

    Raises:
        InvalidEventError: the moment has no time zone, or one of the databases could not hold it.
    """
    moment = occurred_at
    if occurred_at.tzinfo is not timezone.utc:
        try:
            if occurred_at.utcoffset() is None:  # model_copy(update=...) skips the event's own validators
                raise InvalidEventError(
                    "occurred_at", "has no time zone", remedy="Use datetime.now(timezone.utc)"
                )
            moment = as_utc(occurred_at)
        except OverflowError as error:
            raise InvalidEventError(
                "occurred_at", f"{occurred_at} is outside the years 1 to 9999 in UTC"
            ) from error
    if moment.year in _INFINITE and moment == _INFINITE[moment.year]:
        raise InvalidEventError("occurred_at", f"{moment} is infinity to PostgreSQL's driver")
    return moment


def _plain_payload(event: DomainEvent, writing: _Writing, is_sure: bool, limits: Limits) -> str:
    """The JSON text of everything in an event that no column holds and that is not personal.

    Raises:
        InvalidEventError: a value cannot be written as JSON, or both databases could not hold it.
    """
    try:
        payload = event.__pydantic_serializer__.to_json(
            event,
            exclude=writing.elsewhere,
            by_alias=False,
            round_trip=True,
            warnings=is_sure,  # what is not sure is read back, which finds more
        ).decode()
    except Exception as error:  # a serializer of the application can raise anything
        raise _explain_unserializable(event, error) from error
    if len(payload) > limits.payload_characters:  # asked here: a call would cost each event more
        check_size("payload", payload, limits)
    return check_json("", payload, limits.json_depth)


_NO_PARTS: list[str] = []


def _sealed(
    event: DomainEvent,
    personal: PersonalFields,
    plain: str,
    parts: list[str],
    keys: Keys | None,
    limits: Limits,
) -> str:
    """The payload with the personal fields sealed.

    Raises:
        InvalidEventError: it is beyond a limit.
        KeyStoreMissingError: there are no keys.
        SubjectErasedError: the key of a subject was destroyed.
    """
    if keys is None:
        raise KeyStoreMissingError(event.event_type)
    payload = sealed_payload(event, personal, plain, parts, keys)
    check_size("payload", payload, limits)
    form = Form(None, type(event), event.event_type, event.aggregate_type)
    require_erasable(event, payload, partial(form.validate, extra=form.extra))
    return payload


def _explain_unserializable(event: DomainEvent, error: Exception) -> InvalidEventError:
    """Name the field: pydantic's own message says what is wrong, but not always where."""
    for name, value in [*event.__dict__.items(), *(event.model_extra or {}).items()]:
        if name in COLUMN_FIELDS:
            continue
        try:
            event.__pydantic_serializer__.to_json(event, include={name}, warnings=False)
        except Exception as cause:
            try:
                find_unstorable(name, value)
            except InvalidEventError as found:
                return found
            except RecursionError:
                pass
            return InvalidEventError(name, f"cannot be written as JSON: {cause}")
    return InvalidEventError("payload", f"cannot be written as JSON: {error}")
