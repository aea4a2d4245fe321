"""An event as a row: what may be stored, and in which form.

The columns hold what every event has; the payload holds the rest as JSON text, written in one pass of pydantic's
serialiser.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from functools import lru_cache
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
)
from esource.codec.decoding import Form
from esource.codec.untyped import structured_fields
from esource.domain.events import UNASSIGNED, DomainEvent
from esource.errors import InvalidEventError
from esource.moments import as_utc
from esource.privacy.fields import COLUMN_FIELDS, SEALED, Keys, PersonalFields, personal_fields
from esource.privacy.payloads import require_erasable, sealed_payload
from esource.tables.rows import EncodedEvent

_INFINITE = {
    1: datetime.min.replace(tzinfo=timezone.utc),
    9999: datetime.max.replace(tzinfo=timezone.utc),
}
"""The first and the last moment, by year: asyncpg stores them as -infinity and infinity."""


def require_its_stream(event: DomainEvent, aggregate_type: str, aggregate_id: UUID) -> None:
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
        occurred_at = event.occurred_at
        if occurred_at.tzinfo is not timezone.utc:  # most are in UTC, and a call would cost each event
            occurred_at = as_utc(occurred_at)
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
    require_erasable(event, payload, Form(None, type(event), event.event_type, event.aggregate_type).validate)
    return payload


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
