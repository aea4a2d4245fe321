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
from typing import Literal
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from esource.checks import STANDARD_LIMITS, Limits, check_id
from esource.codec.decoding import Form, without_values
from esource.codec.encoding import encode
from esource.codec.untyped import UuidNames
from esource.domain.events import UNASSIGNED, DomainEvent, UntypedEvent
from esource.domain.registry import EventRegistry
from esource.domain.stream_closed import SYSTEM_EVENTS
from esource.errors import EventDecodeError, InvalidEventError, InvalidOptionError, KeyStoreMissingError
from esource.moments import from_iso, to_iso
from esource.privacy.cipher import BrokenSealError
from esource.privacy.fields import MARK, Keys
from esource.privacy.payloads import is_sealed, opened
from esource.tables.rows import (
    ACTOR_ID,
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    EVENT_TYPE,
    PAYLOAD,
    POSITION,
    TENANT_ID,
    TIMESTAMP,
    VERSION,
    EncodedEvent,
    EventRow,
)

UnknownEvents = Literal["raise", "skip", "untyped"]
"""What a reader does with an event type that no class is registered for."""


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
        self._forms: dict[str, Form] = {}
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
        event_type, payload = row[EVENT_TYPE], row[PAYLOAD]
        form = self._forms.get(event_type)
        registered = self.registry.get_or_none(event_type)
        if form is None or form.aggregate_type != row[AGGREGATE_TYPE] or form.registered is not registered:
            event_class = self.event_class(event_type) or UntypedEvent
            form = self._forms[event_type] = Form(registered, event_class, event_type, row[AGGREGATE_TYPE])
        if (keys is not None or form.is_personal) and MARK in payload:
            payload = _opened(row, keys)
        if form.has_upcasters:
            payload = self._upcast(form.event_class, row, payload)
        event = self._read(form, row, payload)
        if form.has_untyped_fields or event.metadata:
            self._uuid_names.apply(event)
        return event

    def _read(self, form: Form, row: EventRow, payload: str) -> DomainEvent:
        tenant_id, actor_id = row[TENANT_ID], row[ACTOR_ID]
        if tenant_id is None and actor_id is None:
            owner = '"tenant_id":null,"actor_id":null'
        else:
            owner = f'"tenant_id":{json.dumps(tenant_id)},"actor_id":{json.dumps(actor_id)}'
        text = (
            f"{payload[:-1]}{',' if len(payload) > 2 else ''}{form.types}{owner},"
            f'"event_id":"{row[EVENT_ID]}","aggregate_id":"{row[AGGREGATE_ID]}","aggregate_version":{row[VERSION]},'
            f'"occurred_at":"{row[TIMESTAMP]}"}}'
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
            raise EventDecodeError(
                row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"its event_version is {version!r}"
            )
        if version > current:
            raise EventDecodeError(
                row[EVENT_TYPE],
                row[EVENT_ID],
                row[POSITION],
                f"its event_version is {version}, this program knows {current}",
            )
        while version < current:
            step = event_class.__esource_upcasters__.get(version)
            if step is None:
                raise EventDecodeError(
                    row[EVENT_TYPE],
                    row[EVENT_ID],
                    row[POSITION],
                    f"no upcaster from event_version {version} (needed: {current})",
                )
            try:
                payload = {**step(payload), "event_version": version + 1}
            except Exception as error:
                raise EventDecodeError(
                    row[EVENT_TYPE],
                    row[EVENT_ID],
                    row[POSITION],
                    f"the upcaster from event_version {version} failed: {error!r}",
                ) from error
            version += 1
        try:
            return to_json(payload).decode()
        except ValueError as error:
            raise EventDecodeError(
                row[EVENT_TYPE],
                row[EVENT_ID],
                row[POSITION],
                f"what its upcasters returned is no JSON: {error}",
            ) from error

    def _decode_slowly(self, form: Form, row: EventRow, payload: str) -> DomainEvent:
        """For rows of other writers: JSON with white space, moments without an offset."""
        try:
            columns = {
                "event_id": row[EVENT_ID],
                "event_type": row[EVENT_TYPE],
                "aggregate_id": row[AGGREGATE_ID],
                "aggregate_type": row[AGGREGATE_TYPE],
                "aggregate_version": row[VERSION],
                "tenant_id": row[TENANT_ID],
                "actor_id": row[ACTOR_ID],
                "occurred_at": to_iso(from_iso(row[TIMESTAMP])),
            }
            merged = json.dumps({**json.loads(payload), **columns})
            event: DomainEvent = form.validate(merged)
        except (ValueError, TypeError, InvalidEventError) as error:
            if MARK in payload:
                raise KeyStoreMissingError(row[EVENT_TYPE]) from None
            if MARK in row[PAYLOAD]:  # what it says would go into logs and dead letters
                raise EventDecodeError(
                    row[EVENT_TYPE], row[EVENT_ID], row[POSITION], without_values(error)
                ) from None
            raise EventDecodeError(row[EVENT_TYPE], row[EVENT_ID], row[POSITION], str(error)) from error
        return event


def _opened(row: EventRow, keys: Keys | None) -> str:
    """The payload of a row with its personal fields."""
    members = from_json(row[PAYLOAD])
    if not is_sealed(members):
        return row[PAYLOAD]  # some value only looks like it
    if keys is None:
        raise KeyStoreMissingError(row[EVENT_TYPE])
    try:
        return to_json(opened(members, row[EVENT_ID], keys)).decode()
    except BrokenSealError as error:
        raise EventDecodeError(
            row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"its personal fields cannot be opened: {error}"
        ) from error


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
