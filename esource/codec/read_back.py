"""Reading an event back before it is written, where its declared types do not prove that it comes back equal."""

from __future__ import annotations

from pydantic import ValidationError

from esource.checks import find_unstorable
from esource.codec.decoding import Decoder
from esource.codec.untyped import UuidNames
from esource.domain.comparison import difference
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry
from esource.errors import EventDecodeError, InvalidEventError, KeyStoreMissingError
from esource.moments import to_iso
from esource.privacy.fields import personal_fields
from esource.privacy.payloads import without_values
from esource.tables.rows import EventRow


def require_equal(event: DomainEvent, payload: str) -> None:
    """Read an event back from its payload, personal fields included, and compare.

    Raises:
        InvalidEventError: something of it would not come back equal.
    """
    personal = personal_fields(type(event))
    try:
        found = _read(event, payload, type(event))
    except (EventDecodeError, KeyStoreMissingError) as error:
        raise _explain_unreadable(event, error, is_personal=personal is not None) from None
    lost = difference("", event, found, sealed=() if personal is None else personal.left_out)
    if lost is not None:
        _explain_value(event, lost.path)
        raise InvalidEventError(lost.path, lost.problem, remedy=lost.remedy)


def require_readable(event: DomainEvent, payload: str, read_as: type[DomainEvent]) -> None:
    """Refuse an event that the class which is registered for its type could not read.

    Raises:
        InvalidEventError: it could not.
    """
    try:
        _read(event, payload, read_as)
    except (EventDecodeError, KeyStoreMissingError) as error:
        reason = _reason(error, is_personal=personal_fields(read_as) is not None)
        raise InvalidEventError(
            "event_type",
            f"{event.event_type!r} is registered for {read_as.__qualname__}, which could not read this "
            f"{type(event).__qualname__}: {reason}",
            remedy="Give the class an event_type of its own, and register it",
        ) from None


_NO_NAMES = UuidNames(None, None, auto_detect_uuid=False)
"""A text under whatever name is compared as the text that is stored."""


def _read(event: DomainEvent, payload: str, read_as: type[DomainEvent]) -> DomainEvent:
    """The event as it will be read from its row."""
    registry = EventRegistry()
    registry.classes[event.event_type] = read_as
    return Decoder(registry, _NO_NAMES, "raise").decode(_row(event, payload))


def _row(event: DomainEvent, payload: str) -> EventRow:
    return (
        0,
        str(event.event_id),
        str(event.aggregate_id),
        event.aggregate_type,
        event.event_type,
        None if event.tenant_id is None else str(event.tenant_id),
        event.actor_id,
        event.aggregate_version,
        to_iso(event.occurred_at),
        payload,
        "",
        None,
    )


def _reason(error: Exception, *, is_personal: bool) -> str:
    """Why an event could not be read, without its values where they may be personal."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return without_values(cause) if is_personal or isinstance(cause, ValidationError) else str(cause)


def _explain_unreadable(event: DomainEvent, error: Exception, *, is_personal: bool) -> InvalidEventError:
    """Name the field that could not be read again, without its value where it may be personal."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return InvalidEventError(
            "payload", f"could not be read again: {_reason(error, is_personal=is_personal)}"
        )
    found = cause.errors(include_url=False, include_input=False)[0]
    path = ".".join(map(str, found["loc"])) or "payload"
    _explain_value(event, path)
    return InvalidEventError(
        path,
        f"could not be read again ({found['type'] if is_personal else found['msg']})",
        remedy="Let the class declare a type whose JSON it takes back, or a serializer and a validator that fit",
    )


def _explain_value(event: DomainEvent, path: str) -> None:
    """Say so if the value of a field cannot be stored at all: that explains more than how it came back.

    Raises:
        InvalidEventError: it cannot.
    """
    name = path.partition(".")[0].partition("[")[0]
    if name in event.__dict__:
        find_unstorable(name, event.__dict__[name])
