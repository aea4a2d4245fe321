"""Event to stored row and back: what may be stored, and how it is decoded.

The columns hold what every event has; the payload holds the rest as JSON text. Encoding goes from
the event to text in one pass of pydantic's serialiser; decoding splices the columns into the payload
text and hands it to the class's validator, so that no dict is built on either way.

An event comes back equal to what was appended, or is refused: what its declared types do not prove is read back and
compared before it is written. Where no type is declared (``Any``, ``dict``, extra fields) the limits of JSON hold:
keys become text, tuples and sets become lists, moments and other rich values become text. JSONB keeps neither the
order of an object's keys nor the sign of -0.0. Numbers keep their value and their kind: a float is never stored as
an integer. Declared moments keep their instant.
"""

from __future__ import annotations

from uuid import UUID

from esource.checks import STANDARD_LIMITS, Limits
from esource.codec.decoding import Decoder, UnknownEvents
from esource.codec.encoding import encode, require_its_stream
from esource.codec.untyped import UuidNames
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry
from esource.domain.stream_closed import SYSTEM_EVENTS
from esource.errors import InvalidEventError, InvalidOptionError
from esource.privacy.fields import Keys
from esource.tables.rows import EncodedEvent


class Codec(Decoder):
    """Turns events into rows and rows into events, for one registry and one set of UUID rules.

    A declared type always decides. The name-based rules (``auto_detect_uuid``: names that end in
    ``_id``; ``uuid_fields``; ``string_id_fields``) apply only to values without a declared type: extra
    fields, ``dict`` and ``Any`` values, and events read without their class. In `metadata` only ``uuid_fields`` count.
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
        names = UuidNames(uuid_fields, string_id_fields, auto_detect_uuid=auto_detect_uuid)
        super().__init__(registry, names, unknown_events)
        self._limits = limits

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
            require_its_stream(event, aggregate_type, aggregate_id)
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
