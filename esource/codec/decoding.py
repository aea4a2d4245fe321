"""From a row of the log to an event: the class, the personal fields, the upcasters, the validator.

The columns are spliced into the payload's text, which goes to the class's validator: no dict is built on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

from pydantic_core import from_json, to_json

from esource.codec.untyped import UuidNames, untyped_fields
from esource.domain.core_schemas import aliases_mislead, has_aliases, known_members, treats_extras_inside
from esource.domain.events import DomainEvent, UntypedEvent
from esource.domain.registry import EventRegistry
from esource.domain.stream_closed import SYSTEM_EVENTS
from esource.errors import EventDecodeError, KeyStoreMissingError
from esource.moments import from_iso, to_iso
from esource.privacy.cipher import BrokenSealError
from esource.privacy.fields import MARK, Keys, personal_fields
from esource.privacy.payloads import is_sealed, unsealed, without_values
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
    EventRow,
)

UnknownEvents = Literal["raise", "skip", "untyped"]
"""What a reader does with an event type that no class is registered for."""


class Form:
    """What decoding one event type needs, looked up once."""

    __slots__ = (
        "aggregate_type",
        "event_class",
        "extra",
        "has_untyped_fields",
        "has_upcasters",
        "is_personal",
        "registered",
        "types",
        "validate",
        "version",
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
        self.validate = _validator(event_class)
        """What reads an event from JSON; takes `extra`."""
        self.extra = _extra(event_class)
        self.version = newest_version(event_class)
        self.has_upcasters = bool(event_class.__esource_upcasters__)
        self.is_personal = personal_fields(event_class) is not None
        extra = event_class.model_config.get("extra") == "allow"
        self.has_untyped_fields = extra or len(untyped_fields(event_class)) > 1  # metadata is one


@lru_cache(maxsize=4096)
def _validator(event_class: type[DomainEvent]) -> Callable[..., Any]:
    """What reads an event of a class from JSON."""
    validate = event_class.__pydantic_validator__.validate_json
    schema = event_class.__pydantic_core_schema__
    if has_aliases(schema):
        # Payloads are written with the fields' own names, whatever aliases their class has today.
        return partial(validate, by_alias=not aliases_mislead(schema), by_name=True)
    return validate


@lru_cache(maxsize=4096)
def _extra(event_class: type[DomainEvent]) -> Literal["ignore"] | None:
    """What is done with members that a class does not know; None for what the class says itself.

    Forbidden is what a program passes; stored events may have fields that their class no longer has.
    """
    return "ignore" if forbids_extras(event_class) and not treats_extras_inside(event_class) else None


def forbids_extras(event_class: type[DomainEvent]) -> bool:
    return event_class.model_config.get("extra") == "forbid"


@lru_cache(maxsize=4096)
def newest_version(event_class: type[DomainEvent]) -> int | None:
    """The greatest `event_version` that a class knows; None if any is read."""
    version = event_class.model_fields["event_version"].default
    return version if type(version) is int and event_class is not UntypedEvent else None


class Decoder:
    """Turns rows into events, for one registry and one set of UUID rules."""

    def __init__(self, registry: EventRegistry, uuid_names: UuidNames, unknown_events: UnknownEvents) -> None:
        self.registry = registry
        self.unknown_events: UnknownEvents = unknown_events
        self._uuid_names = uuid_names
        self._forms: dict[str, Form] = {}

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
        registered = self.registry.classes.get(event_type)
        if form is None or form.aggregate_type != row[AGGREGATE_TYPE] or form.registered is not registered:
            event_class = self.event_class(event_type) or UntypedEvent
            form = self._forms[event_type] = Form(registered, event_class, event_type, row[AGGREGATE_TYPE])
        if (keys is not None or form.is_personal) and MARK in payload:
            payload = _unsealed(row, keys)
        if form.has_upcasters:
            payload = _upcast(form.event_class, row, payload)
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
            event: DomainEvent = form.validate(text, extra=form.extra)
        except Exception:  # whatever a validator of the application raises, or one of the standard library
            event = _read_slowly(form, row, payload)
        if form.version is not None and event.event_version > form.version:
            raise _too_new(row, event.event_version, form.version)
        if form.has_untyped_fields or event.metadata:
            self._uuid_names.apply(event)
        return event


def _unsealed(row: EventRow, keys: Keys | None) -> str:
    """The payload of a row with its personal fields."""
    try:
        members = from_json(row[PAYLOAD])
        if not is_sealed(members):
            return row[PAYLOAD]  # a value of the payload contains the same text
        if keys is None:
            raise KeyStoreMissingError(row[EVENT_TYPE])
        return to_json(unsealed(members, row[EVENT_ID], keys)).decode()
    except (BrokenSealError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EventDecodeError(
            row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"its personal fields cannot be opened: {error}"
        ) from error


def _upcast(event_class: type[DomainEvent], row: EventRow, stored: str) -> str:
    """The payload in the form that the class has now."""
    current = event_class.model_fields["event_version"].default
    try:
        payload = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise EventDecodeError(
            row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"its payload cannot be read: {error}"
        ) from error
    version = payload.get("event_version", 1) if isinstance(payload, dict) else None
    if version == current:
        return stored
    if type(version) is not int:
        raise EventDecodeError(
            row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"its event_version is {version!r}"
        )
    if version > current:
        raise _too_new(row, version, current)
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
            row[EVENT_TYPE], row[EVENT_ID], row[POSITION], f"what its upcasters returned is no JSON: {error}"
        ) from error


def _too_new(row: EventRow, found: int, known: int) -> EventDecodeError:
    return EventDecodeError(
        row[EVENT_TYPE],
        row[EVENT_ID],
        row[POSITION],
        f"its event_version is {found}, this program knows {known}",
    )


def _read_slowly(form: Form, row: EventRow, payload: str) -> DomainEvent:
    """The event of a row that another program wrote: JSON with white space, moments without an offset."""
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
        members = json.loads(payload)
        if isinstance(members, dict) and forbids_extras(form.event_class):
            known = known_members(form.event_class)
            members = {name: value for name, value in members.items() if name in known}
        merged = json.dumps({**members, **columns})
        event: DomainEvent = form.validate(merged, extra=form.extra)
    except Exception as error:
        if MARK in payload:
            raise KeyStoreMissingError(row[EVENT_TYPE]) from None
        if MARK in row[PAYLOAD]:  # the error's text could put personal values into logs and dead letters
            raise EventDecodeError(
                row[EVENT_TYPE], row[EVENT_ID], row[POSITION], without_values(error)
            ) from None
        raise EventDecodeError(row[EVENT_TYPE], row[EVENT_ID], row[POSITION], str(error)) from error
    return event
