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
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from math import isfinite
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from esource.errors import EventDecodeError, InvalidEventError, InvalidOptionError, UnknownEventTypeError
from esource.events import DomainEvent, EventRegistry, UntypedEvent
from esource.types import NAME_LENGTH, as_utc, from_iso, to_iso

UnknownEvents = Literal["raise", "skip", "untyped"]
"""What a reader does with an event type that no class is registered for."""

_COLUMN_FIELDS = {
    "event_id",
    "event_type",
    "aggregate_id",
    "aggregate_type",
    "aggregate_version",
    "tenant_id",
    "actor_id",
    "occurred_at",
}

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


def check_text(field: str, value: str, limit: int | None = NAME_LENGTH) -> str:
    """The text itself, if both databases can hold it.

    Raises:
        InvalidEventError: it is no text, is too long, or holds a NUL character or half a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidEventError(field, f"is {value!r}, which is not text")
    if limit is not None and len(value) > limit:
        raise InvalidEventError(field, f"has {len(value)} characters, the limit is {limit}")
    if "\x00" in value:
        raise InvalidEventError(field, "holds a NUL character, which PostgreSQL cannot store")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidEventError(field, "holds half of a surrogate pair, which is not text")
    return value


@lru_cache(maxsize=4096)
def check_name(field: str, value: str) -> str:
    """`check_text` for names that recur with every event, remembered; they may not be empty either."""
    if value == "":
        raise InvalidEventError(field, "is empty")
    return check_text(field, value)


def storable_text(text: str) -> str:
    """A text with what PostgreSQL cannot store written as escapes: a recorded error must not fail in turn."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


JSON_DEPTH = 200
"""How deep lists and objects may be nested, the payload itself included: pydantic's JSON reader goes no
deeper."""

JSON_DIGITS = 4300
"""Digits that an integer may have: Python's and pydantic's readers take no more."""

_LONG_NUMBER = re.compile(rf"\d{{{JSON_DIGITS + 1}}}")
# Begins with a letter, which the search leaps to: a third of the time of one that looks for digits.
_PERHAPS_EXPONENT = re.compile(r"e\+?\d+(?:[,}\]]|$)")
_TEXT_OR_EXPONENT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e\+?\d+')


def json_text(field: str, value: Any) -> str:
    """A JSON value as text, if both databases can hold it.

    Raises:
        InvalidEventError: naming the path of the offending value, or the field if it is no JSON at all.
    """
    try:
        text = to_json(value, inf_nan_mode="constants").decode()
    except (ValueError, RecursionError) as error:
        _find_unstorable(field, value)
        raise InvalidEventError(field, f"cannot be written as JSON: {error}") from error
    return check_json(field, text)


def check_json(field: str, text: str) -> str:
    """JSON text as both databases can hold it and every reader can read it: no NUL characters, NaN or
    infinities, no deeper than `JSON_DEPTH`, no integer longer than `JSON_DIGITS`.

    Raises:
        InvalidEventError: naming the path of the offending value, below ``field``.
    """
    # The cheap looks first; only a text that might be wrong is read to find out.
    size = len(text)
    if (size > JSON_DIGITS and _LONG_NUMBER.search(text)) or (
        size > JSON_DEPTH and text.count("[") + text.count("{") >= JSON_DEPTH
    ):
        try:
            from_json(text)
        except ValueError as error:
            raise InvalidEventError(
                field or "payload",
                f"could not be read again ({error}): at most {JSON_DEPTH} levels of nesting, and "
                f"{JSON_DIGITS} digits in an integer",
            ) from error
    if "\\u0000" in text or "NaN" in text or "Infinity" in text:
        _find_unstorable(field, from_json(text))
    if _PERHAPS_EXPONENT.search(text):
        text = _TEXT_OR_EXPONENT.sub(_without_exponent, text)
    return text


def _without_exponent(found: re.Match[str]) -> str:
    """1e300 in full, with a fraction: JSONB would make an integer of it, and that is not the same number."""
    token = found[0]
    if token[0] == '"':
        return token
    digits = format(Decimal(token), "f")
    return digits if "." in digits else f"{digits}.0"


def _find_unstorable(path: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _find_unstorable(f"{path} (a key)".lstrip(), key)
            _find_unstorable(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _find_unstorable(f"{path}[{index}]", item)
    elif isinstance(value, str):
        check_text(path, value, limit=None)
    elif isinstance(value, float) and not isfinite(value):
        raise InvalidEventError(path, f"is {value}, which JSON cannot hold")
    elif isinstance(value, BaseModel):
        _find_unstorable(path, {**value.__dict__, **(value.model_extra or {})})
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        _find_unstorable(path, {name: getattr(value, name, None) for name in value.__dataclass_fields__})


def _mentions(annotation: Any, wanted: Any) -> bool:
    """Whether the annotation, or anything that it is made of, satisfies the condition."""
    return bool(wanted(annotation)) or any(_mentions(part, wanted) for part in get_args(annotation))


def _is_untyped(annotation: Any) -> bool:
    return annotation is Any or annotation is object or annotation in (dict, list)


def _is_structure(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or hasattr(annotation, "__dataclass_fields__")
    )


@lru_cache(maxsize=4096)
def _untyped_fields(event_class: type[DomainEvent]) -> tuple[tuple[str, Any], ...]:
    """The fields that can hold values of no declared type, with their annotations."""
    return tuple(
        (name, field.annotation)
        for name, field in event_class.model_fields.items()
        if _mentions(field.annotation, _is_untyped)
    )


@lru_cache(maxsize=4096)
def _structured_fields(event_class: type[DomainEvent]) -> tuple[str, ...]:
    """The fields that can hold models of their own, whose configuration is not ours."""
    return tuple(
        name
        for name, field in event_class.model_fields.items()
        if _mentions(field.annotation, lambda part: _is_untyped(part) or _is_structure(part))
    )


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
        "types",
        "validate",
    )

    def __init__(self, event_class: type[DomainEvent], event_type: str, aggregate_type: str) -> None:
        self.event_class = event_class
        self.aggregate_type = aggregate_type
        self.types = f'"event_type":{json.dumps(event_type)},"aggregate_type":{json.dumps(aggregate_type)},'
        self.validate: Callable[[str], Any] = event_class.__pydantic_validator__.validate_json
        if "validation_alias" in str(event_class.__pydantic_core_schema__):  # its own or a nested model's
            # Payloads are written with the fields' own names, whatever alias their class has today.
            self.validate = partial(self.validate, by_alias=not _aliases_mislead(event_class), by_name=True)
        self.has_upcasters = bool(event_class.__esource_upcasters__)
        extra = event_class.model_config.get("extra") == "allow"
        self.has_untyped_fields = extra or len(_untyped_fields(event_class)) > 1  # metadata is one


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
    ) -> None:
        if unknown_events not in ("raise", "skip", "untyped"):
            raise InvalidOptionError(
                f"unknown_events must be 'raise', 'skip' or 'untyped', not {unknown_events!r}"
            )
        self.registry = registry
        self.unknown_events: UnknownEvents = unknown_events
        self._uuid_fields = frozenset(uuid_fields or ())
        self._string_id_fields = frozenset(string_id_fields or ())
        self._auto_detect_uuid = auto_detect_uuid
        self._forms: dict[str, _Form] = {}

    # -- writing ---------------------------------------------------------------------------------

    def encode(self, event: DomainEvent, aggregate_type: str, aggregate_id: UUID) -> EncodedEvent:
        """The row values of an event that is to be appended to this stream. No I/O.

        Raises:
            InvalidEventError: the event names another stream, or holds what may not be stored.
        """
        if not isinstance(event, DomainEvent):
            raise InvalidEventError("events", f"holds a {type(event).__name__}, not a DomainEvent")
        if event.aggregate_id != aggregate_id or event.aggregate_type != aggregate_type:
            raise InvalidEventError(
                "aggregate_id" if event.aggregate_id != aggregate_id else "aggregate_type",
                f"the event belongs to {event.aggregate_type} {event.aggregate_id}, "
                f"not to {aggregate_type} {aggregate_id}",
            )
        return encode(event)

    # -- reading ---------------------------------------------------------------------------------

    def event_class(self, event_type: str) -> type[DomainEvent] | None:
        """The class to decode a stored type with; None when it is to be skipped.

        Raises:
            UnknownEventTypeError: no class is registered and the policy is to raise.
        """
        event_class = self.registry.get_or_none(event_type)
        if event_class is None:
            if self.unknown_events == "raise":
                raise UnknownEventTypeError(event_type, self.registry)
            return UntypedEvent if self.unknown_events == "untyped" else None
        return event_class

    def decode(self, row: EventRow) -> DomainEvent:
        """The event of a row; the columns win over what the payload repeats.

        Raises:
            UnknownEventTypeError: no class is registered for its type.
            EventDecodeError: the payload does not fit the class.
        """
        event_type, payload, tenant_id, actor_id = row[4], row[9], row[5], row[6]
        form = self._forms.get(event_type)
        if (
            form is None
            or form.aggregate_type != row[3]
            or form.event_class is not self.registry.get_or_none(event_type)
        ):
            event_class = self.event_class(event_type) or UntypedEvent
            form = self._forms[event_type] = _Form(event_class, event_type, row[3])
        if form.has_upcasters:
            payload = self._upcast(form.event_class, row)
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
            event = self._decode_slowly(form, row, payload)
        if form.has_untyped_fields or event.metadata:
            self._detect_uuids(event)
        return event

    def _upcast(self, event_class: type[DomainEvent], row: EventRow) -> str:
        current = event_class.model_fields["event_version"].default
        payload = json.loads(row[9])
        version = payload.get("event_version", 1) if isinstance(payload, dict) else None
        if version == current:
            return row[9]
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
            raise EventDecodeError(row[4], row[1], row[0], str(error)) from error
        return event

    # -- UUIDs where no type is declared ------------------------------------------------------------

    def _detect_uuids(self, event: DomainEvent) -> None:
        for name, annotation in _untyped_fields(type(event)):
            value = getattr(event, name)
            detected = self._where_untyped(annotation, name, value)
            if detected is not value:
                event.__dict__[name] = detected
        extra = event.model_extra
        if extra:
            for name, value in extra.items():
                extra[name] = self._with_uuids(name, value)

    def _where_untyped(self, annotation: Any, name: str, value: Any) -> Any:
        """The value with UUIDs detected where its annotation declares no type."""
        if _is_untyped(annotation):
            return self._with_uuids(name, value)
        origin, parts = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._where_untyped(parts[0], name, value)
        if origin is Union or origin is UnionType:
            # A text is what the union says it is, if it names str; else the first member that fits.
            for part in parts:
                if part is type(value):
                    return value
            for part in parts:
                kind = get_origin(part) or part
                if _is_untyped(part) or (isinstance(kind, type) and isinstance(value, kind)):
                    return self._where_untyped(part, name, value)
            return value
        if isinstance(value, dict) and len(parts) == 2:
            return {key: self._where_untyped(parts[1], str(key), item) for key, item in value.items()}
        if isinstance(value, list) and len(parts) == 1:
            return [self._where_untyped(parts[0], name, item) for item in value]
        return value

    def _with_uuids(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if len(value) == 36 and self._is_uuid_name(name):
                try:
                    found = UUID(value)
                except ValueError:
                    return value
                return found if str(found) == value.lower() else value
            return value
        if isinstance(value, dict):
            return {key: self._with_uuids(str(key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._with_uuids(name, item) for item in value]
        return value

    def _is_uuid_name(self, name: str) -> bool:
        if name in self._string_id_fields:
            return False
        return name in self._uuid_fields or (self._auto_detect_uuid and name.endswith("_id"))


def encode(event: DomainEvent) -> EncodedEvent:
    """The row values of an event, wherever it belongs. No I/O.

    Raises:
        InvalidEventError: it holds what may not be stored.
    """
    check_name("event_type", event.event_type)
    if event.actor_id is not None:
        check_text("actor_id", event.actor_id)
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
    return EncodedEvent(
        event.event_id,
        event.event_type,
        event.tenant_id,
        event.actor_id,
        occurred_at,
        payload_of(event),
    )


def payload_of(event: DomainEvent) -> str:
    """The JSON text of everything in an event that no column holds.

    Raises:
        InvalidEventError: a value cannot be written as JSON, or both databases could not hold it.
    """
    try:
        payload = event.__pydantic_serializer__.to_json(
            event, exclude=_COLUMN_FIELDS, by_alias=False, round_trip=True
        ).decode()
    except (ValueError, RecursionError) as error:
        raise _explain_unserializable(event, error) from error
    # A model inside the event writes NaN as null unless its own configuration says otherwise.
    for name in _structured_fields(type(event)):
        value = event.__dict__[name]
        if value is not None and value != {}:
            _find_unstorable(name, value)
    if event.model_extra:
        _find_unstorable("", event.model_extra)
    return check_json("", payload)


def _explain_unserializable(event: DomainEvent, error: Exception) -> InvalidEventError:
    """Name the field: pydantic's own message says what is wrong, but not always where."""
    for name, value in [*event.__dict__.items(), *(event.model_extra or {}).items()]:
        if name in _COLUMN_FIELDS:
            continue
        try:
            event.__pydantic_serializer__.to_json(event, include={name})
        except (ValueError, RecursionError) as cause:
            try:
                _find_unstorable(name, value)
            except InvalidEventError as found:
                return found
            except RecursionError:
                pass
            return InvalidEventError(name, f"cannot be written as JSON: {cause}")
    return InvalidEventError("payload", f"cannot be written as JSON: {error}")


def same_payload(stored: str, new: str) -> bool:
    """Whether two payloads say the same, whatever their spacing and key order."""
    return stored == new or bool(json.loads(stored) == json.loads(new))
