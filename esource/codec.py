"""Event to stored row and back: what may be stored, and how it is decoded.

The columns hold what every event has; the payload holds the rest as JSON text. Encoding goes from
the event to text in one pass of pydantic's serialiser; decoding splices the columns into the payload
text and hands it to the class's validator, so that no dict is built on either way.

An event comes back equal to what was appended, with the limits of JSON and of JSONB where no type is
declared (``Any``, ``dict``, extra fields): keys become text, tuples and sets become lists, moments and
other rich values become text. JSONB keeps neither the order of an object's keys nor the sign of -0.0.
Numbers keep their value and their kind: a float is never stored as an integer. Declared moments keep
their instant; pydantic writes offsets in minutes, so one with seconds (local mean time, before about
1940) loses them: convert such a moment to UTC first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple, TypeAlias
from uuid import UUID
from weakref import WeakSet

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from esource.arguments import check_id
from esource.errors import (
    EventDecodeError,
    InvalidEventError,
    InvalidOptionError,
    KeyStoreMissingError,
)
from esource.events import UNASSIGNED, DomainEvent, EventRegistry, UntypedEvent
from esource.limits import STANDARD_LIMITS, Limits
from esource.personal import (
    ALL_ERASED,
    COLUMN_FIELDS,
    MARK,
    SEALED,
    Keys,
    PersonalFields,
    is_sealed,
    opened,
    personal_fields,
    sealed_payload,
)
from esource.sealing import BrokenSealError
from esource.storable import check_json, check_name, check_size, check_text, find_unstorable
from esource.system_events import SYSTEM_EVENTS
from esource.types import as_utc, from_iso, to_iso
from esource.untyped import UuidNames, structured_fields, untyped_fields

UnknownEvents = Literal["raise", "skip", "untyped"]
"""What a reader does with an event type that no class is registered for."""

_INFINITE = {
    1: datetime.min.replace(tzinfo=timezone.utc),
    9999: datetime.max.replace(tzinfo=timezone.utc),
}
"""The first and the last moment, by year: asyncpg stores them as -infinity and infinity."""

EventRow: TypeAlias = "tuple[int, str, str, str, str, str | None, str | None, int, str, str, str]"
"""One stored event as the database hands it over, all ids and moments as text, on both databases:
global_position, event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version,
timestamp, payload, created_at."""


class EncodedEvent(NamedTuple):
    """An event as the values of its own columns; the stream and the version come from the append."""

    event_id: UUID
    event_type: str
    tenant_id: UUID | None
    actor_id: str | None
    timestamp: datetime
    payload: str


@lru_cache(maxsize=4096)
def _aliases_mislead(event_class: type[DomainEvent]) -> bool:
    """Whether one field's alias is another's name: then only names, which is what we write, are read."""
    fields = event_class.model_fields
    return any(field.validation_alias in fields.keys() - {name} for name, field in fields.items())


class _Form:
    """What decoding one event type needs, looked up once."""

    __slots__ = (
        "aggregate_type",
        "event_class",
        "has_untyped_fields",
        "has_upcasters",
        "is_personal",
        "registered",
        "types",
        "validate",
    )

    def __init__(
        self,
        registered: type[DomainEvent] | None,
        event_class: type[DomainEvent],
        event_type: str,
        aggregate_type: str,
    ) -> None:
        self.registered = registered
        """What the registry said: the form serves as long as it says so."""
        self.event_class = event_class
        self.aggregate_type = aggregate_type
        self.types = f'"event_type":{json.dumps(event_type)},"aggregate_type":{json.dumps(aggregate_type)},'
        self.validate: Callable[[str], Any] = event_class.__pydantic_validator__.validate_json
        if "validation_alias" in str(event_class.__pydantic_core_schema__):  # its own or a nested model's
            # Payloads are written with the fields' own names, whatever alias their class has today.
            self.validate = partial(self.validate, by_alias=not _aliases_mislead(event_class), by_name=True)
        self.has_upcasters = bool(event_class.__esource_upcasters__)
        self.is_personal = personal_fields(event_class) is not None
        extra = event_class.model_config.get("extra") == "allow"
        self.has_untyped_fields = extra or len(untyped_fields(event_class)) > 1  # metadata is one


class Codec:
    """Turns events into rows and rows into events, for one registry and one set of UUID rules.

    A declared type always decides. The name-based rules (``auto_detect_uuid``: names that end in
    ``_id``; ``uuid_fields``; ``string_id_fields``) apply only to values without a declared type: extra
    fields, ``dict`` and ``Any`` values such as `metadata`, and events read without their class.
    """

    def __init__(
        self,
        registry: EventRegistry,
        *,
        uuid_fields: set[str] | None = None,
        string_id_fields: set[str] | None = None,
        auto_detect_uuid: bool = True,
        unknown_events: UnknownEvents = "raise",
        limits: Limits = STANDARD_LIMITS,
    ) -> None:
        if unknown_events not in ("raise", "skip", "untyped"):
            raise InvalidOptionError(
                f"unknown_events must be 'raise', 'skip' or 'untyped', not {unknown_events!r}"
            )
        self.registry = registry
        self.unknown_events: UnknownEvents = unknown_events
        self._uuid_names = UuidNames(uuid_fields, string_id_fields, auto_detect_uuid=auto_detect_uuid)
        self._forms: dict[str, _Form] = {}
        self._limits = limits

    # -- writing ---------------------------------------------------------------------------------

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
        if event.aggregate_id != aggregate_id or event.aggregate_type != aggregate_type:
            _require_its_stream(event, aggregate_type, aggregate_id)
        return encode(event, keys, self._limits)

    # -- reading ---------------------------------------------------------------------------------

    def event_class(self, event_type: str) -> type[DomainEvent] | None:
        """The class to decode a stored type with; None when it is to be skipped.

        Raises:
            UnknownEventTypeError: no class is registered and the policy is to raise.
        """
        event_class = self.registry.get_or_none(event_type) or SYSTEM_EVENTS.get(event_type)
        if event_class is None:
            if self.unknown_events == "raise":
                raise self.registry.unknown(event_type)
            return UntypedEvent if self.unknown_events == "untyped" else None
        return event_class

    def decode(self, row: EventRow, keys: Keys | None = None) -> DomainEvent:
        """The event of a row; the columns win over what the payload repeats.

        Raises:
            UnknownEventTypeError: no class is registered for its type.
            EventDecodeError: the payload does not fit the class, or its personal fields were tampered with.
            KeyStoreMissingError: it has personal fields, and there are no keys.
            KeyNotFoundError: the key of a subject is unknown.
        """
        event_type, payload = row[4], row[9]
        form = self._forms.get(event_type)
        registered = self.registry.get_or_none(event_type)
        if form is None or form.aggregate_type != row[3] or form.registered is not registered:
            event_class = self.event_class(event_type) or UntypedEvent
            form = self._forms[event_type] = _Form(registered, event_class, event_type, row[3])
        if (keys is not None or form.is_personal) and MARK in payload:
            payload = _opened(row, keys)
        if form.has_upcasters:
            payload = self._upcast(form.event_class, row, payload)
        event = self._read(form, row, payload)
        if form.has_untyped_fields or event.metadata:
            self._uuid_names.apply(event)
        return event

    def _read(self, form: _Form, row: EventRow, payload: str) -> DomainEvent:
        tenant_id, actor_id = row[5], row[6]
        if tenant_id is None and actor_id is None:
            owner = '"tenant_id":null,"actor_id":null'
        else:
            owner = f'"tenant_id":{json.dumps(tenant_id)},"actor_id":{json.dumps(actor_id)}'
        text = (
            f"{payload[:-1]}{',' if len(payload) > 2 else ''}{form.types}{owner},"
            f'"event_id":"{row[1]}","aggregate_id":"{row[2]}","aggregate_version":{row[7]},'
            f'"occurred_at":"{row[8]}"}}'
        )
        try:
            event: DomainEvent = form.validate(text)
        except (ValidationError, InvalidEventError):
            return self._decode_slowly(form, row, payload)
        return event

    def _upcast(self, event_class: type[DomainEvent], row: EventRow, stored: str) -> str:
        current = event_class.model_fields["event_version"].default
        payload = json.loads(stored)
        version = payload.get("event_version", 1) if isinstance(payload, dict) else None
        if version == current:
            return stored
        if type(version) is not int:
            raise EventDecodeError(row[4], row[1], row[0], f"its event_version is {version!r}")
        if version > current:
            raise EventDecodeError(
                row[4], row[1], row[0], f"its event_version is {version}, this program knows {current}"
            )
        while version < current:
            step = event_class.__esource_upcasters__.get(version)
            if step is None:
                raise EventDecodeError(
                    row[4], row[1], row[0], f"no upcaster from event_version {version} (needed: {current})"
                )
            try:
                payload = {**step(payload), "event_version": version + 1}
            except Exception as error:
                raise EventDecodeError(
                    row[4], row[1], row[0], f"the upcaster from event_version {version} failed: {error!r}"
                ) from error
            version += 1
        try:
            return to_json(payload).decode()
        except ValueError as error:
            raise EventDecodeError(
                row[4], row[1], row[0], f"what its upcasters returned is no JSON: {error}"
            ) from error

    def _decode_slowly(self, form: _Form, row: EventRow, payload: str) -> DomainEvent:
        """For rows of other writers: JSON with white space, moments without an offset."""
        try:
            columns = {
                "event_id": row[1],
                "event_type": row[4],
                "aggregate_id": row[2],
                "aggregate_type": row[3],
                "aggregate_version": row[7],
                "tenant_id": row[5],
                "actor_id": row[6],
                "occurred_at": to_iso(from_iso(row[8])),
            }
            merged = json.dumps({**json.loads(payload), **columns})
            event: DomainEvent = form.validate(merged)
        except (ValueError, TypeError, InvalidEventError) as error:
            if MARK in payload:
                raise KeyStoreMissingError(row[4]) from None
            if MARK in row[9]:  # what it says would go into logs and dead letters
                raise EventDecodeError(row[4], row[1], row[0], _without_values(error)) from None
            raise EventDecodeError(row[4], row[1], row[0], str(error)) from error
        return event


def _opened(row: EventRow, keys: Keys | None) -> str:
    """The payload of a row with its personal fields."""
    members = from_json(row[9])
    if not is_sealed(members):
        return row[9]  # some value only looks like it
    if keys is None:
        raise KeyStoreMissingError(row[4])
    try:
        return to_json(opened(members, row[1], keys)).decode()
    except BrokenSealError as error:
        raise EventDecodeError(
            row[4], row[1], row[0], f"its personal fields cannot be opened: {error}"
        ) from error


def _without_values(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['type']}"
            for found in error.errors(include_input=False)
        )
    return type(error).__name__


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _require_its_stream(event: DomainEvent, aggregate_type: str, aggregate_id: UUID) -> None:
    """
    Raises:
        InvalidOptionError: the stream's id is no UUID.
        InvalidEventError: the event names another stream. One that names none belongs to any.
    """
    check_id("aggregate_id", aggregate_id)
    is_of_another_id = event.aggregate_id not in (aggregate_id, UNASSIGNED)
    if is_of_another_id or event.aggregate_type not in (aggregate_type, ""):
        raise InvalidEventError(
            "aggregate_id" if is_of_another_id else "aggregate_type",
            f"the event belongs to {event.aggregate_type} {event.aggregate_id}, "
            f"not to {aggregate_type} {aggregate_id}",
        )


def encode(event: DomainEvent, keys: Keys | None = None, limits: Limits = STANDARD_LIMITS) -> EncodedEvent:
    """The row values of an event, wherever it belongs. No I/O.

    Raises:
        InvalidEventError: it holds what may not be stored, or is beyond a limit.
        KeyStoreMissingError: it has personal fields, and there are no keys.
        SubjectErasedError: the key of a subject was destroyed.
    """
    check_name("event_type", event.event_type, limits.name_characters)
    if event.actor_id is not None:
        check_text("actor_id", event.actor_id, limits.name_characters)
    try:
        # model_copy(update=...) skips the event's own validators
        if event.occurred_at.utcoffset() is None:
            raise InvalidEventError(
                "occurred_at", "has no time zone", remedy="Use datetime.now(timezone.utc)"
            )
        occurred_at = as_utc(event.occurred_at)
    except OverflowError as error:
        raise InvalidEventError(
            "occurred_at", f"{event.occurred_at} is outside the years 1 to 9999 in UTC"
        ) from error
    if occurred_at.year in _INFINITE and occurred_at == _INFINITE[occurred_at.year]:
        raise InvalidEventError("occurred_at", f"{occurred_at} is infinity to PostgreSQL's driver")
    return EncodedEvent(
        event.event_id,
        event.event_type,
        event.tenant_id,
        event.actor_id,
        occurred_at,
        payload_of(event, keys, limits),
    )


@lru_cache(maxsize=4096)
def _shape(event_class: type[DomainEvent]) -> tuple[tuple[str, ...], PersonalFields | None, set[str]]:
    """What writing a class of events takes, looked up once: its fields that hold structures of their own, those
    that are personal, and those that are not in the plain part of the payload."""
    personal = personal_fields(event_class)
    return (
        structured_fields(event_class),
        personal,
        COLUMN_FIELDS if personal is None else personal.left_out,
    )


def payload_of(event: DomainEvent, keys: Keys | None = None, limits: Limits = STANDARD_LIMITS) -> str:
    """The JSON text of everything in an event that no column holds.

    Raises:
        InvalidEventError: a value cannot be written as JSON, or both databases could not hold it.
        KeyStoreMissingError: it has personal fields, and there are no keys.
        SubjectErasedError: the key of a subject was destroyed.
    """
    structured, personal, elsewhere = _shape(type(event))
    try:
        payload = event.__pydantic_serializer__.to_json(
            event,
            exclude=elsewhere,
            by_alias=False,
            round_trip=True,
        ).decode()
    except (ValueError, RecursionError) as error:
        raise _explain_unserializable(event, error) from error
    # A model inside the event writes NaN as null unless its own configuration says otherwise.
    for name in structured:
        value = event.__dict__[name]
        if value is not None and value != {}:
            find_unstorable(name, value)
    if event.model_extra:
        find_unstorable("", event.model_extra)
        if SEALED in event.model_extra:
            raise InvalidEventError(SEALED, "is the name under which personal fields are sealed")
    if len(payload) > limits.payload_characters:  # asked here: a call would cost each event more
        check_size("payload", payload, limits)
    payload = check_json("", payload, limits.json_depth)
    if personal is None:
        return payload
    payload = sealed_payload(event, personal, payload, keys, limits)
    check_size("payload", payload, limits)
    _require_erasable(type(event), event, payload)
    return payload


_erasable: WeakSet[type[DomainEvent]] = WeakSet()


def _require_erasable(event_class: type[DomainEvent], event: DomainEvent, payload: str) -> None:
    """Look once for each class whether it takes the placeholders: too late when the first key is destroyed.

    Raises:
        InvalidOptionError: it does not.
    """
    if event_class in _erasable:
        return
    form = _Form(None, event_class, event.event_type, event.aggregate_type)
    members = opened(from_json(payload), str(event.event_id), ALL_ERASED)
    members |= event.model_dump(mode="json", include=COLUMN_FIELDS, by_alias=False)
    try:
        form.validate(json.dumps(members))
    except (ValidationError, InvalidEventError) as error:
        raise InvalidOptionError(
            f"{event_class.__name__} could not be read once its personal fields are erased "
            f"({_without_values(error)}): say what stands in for them, with Personal(placeholder=...)"
        ) from None
    _erasable.add(event_class)


def _explain_unserializable(event: DomainEvent, error: Exception) -> InvalidEventError:
    """Name the field: pydantic's own message says what is wrong, but not always where."""
    for name, value in [*event.__dict__.items(), *(event.model_extra or {}).items()]:
        if name in COLUMN_FIELDS:
            continue
        try:
            event.__pydantic_serializer__.to_json(event, include={name})
        except (ValueError, RecursionError) as cause:
            try:
                find_unstorable(name, value)
            except InvalidEventError as found:
                return found
            except RecursionError:
                pass
            return InvalidEventError(name, f"cannot be written as JSON: {cause}")
    return InvalidEventError("payload", f"cannot be written as JSON: {error}")


def same_payload(stored: str, new: str) -> bool:
    """Whether two payloads say the same, whatever their spacing and key order."""
    return stored == new or bool(json.loads(stored) == json.loads(new))
