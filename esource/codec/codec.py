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

from esource.checks import STANDARD_LIMITS, Limits, check_choice
from esource.codec.decoding import Decoder, UnknownEvents
from esource.codec.encoding import Encoder
from esource.codec.untyped import UuidNames
from esource.domain.registry import EventRegistry


class Codec(Encoder, Decoder):
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
        check_choice("unknown_events", unknown_events, ("raise", "skip", "untyped"))
        names = UuidNames(uuid_fields, string_id_fields, auto_detect_uuid=auto_detect_uuid)
        super().__init__(registry, names, unknown_events)
        self._limits = limits
