"""How much a store takes at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Final

from esource.checks.arguments import check_whole
from esource.errors import InvalidOptionError

_MEBI = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store refuses to write because it is too much; an option of every store.

    The defaults are far above what an event should have, and below what either database takes. Beyond the
    ceilings one of the databases fails, or what is stored could not be read again.

    Raises:
        InvalidOptionError: a limit below 1 or above its ceiling.
    """

    payload_characters: int = 16 * _MEBI
    """Characters of an event's payload or a snapshot's state, as JSON. At most 64 Mi: at four bytes each that is
    what a JSONB string may have (268 435 455 bytes, by experiment; SQLite takes 1 000 000 000)."""
    json_depth: int = 200
    """Levels of lists and objects, the payload itself included. At most 200: pydantic's reader goes no deeper."""
    append_events: int = 100_000
    """Events in one append. At most a million: it is one transaction, and all other appends wait."""
    append_characters: int = 64 * _MEBI
    """Characters of the payloads of one append together. At most 128 Mi: PostgreSQL takes 1 GiB in one array."""
    name_characters: int = 255
    """Characters of an aggregate type, an event type or an actor's id. At most 255: the columns hold no more."""

    CEILINGS: ClassVar[dict[str, int]] = {
        "payload_characters": 64 * _MEBI,
        "json_depth": 200,
        "append_events": 1_000_000,
        "append_characters": 128 * _MEBI,
        "name_characters": 255,
    }

    def __post_init__(self) -> None:
        for field in fields(self):
            check_whole(field.name, getattr(self, field.name), least=1, most=self.CEILINGS[field.name])


STANDARD_LIMITS: Final = Limits()

CEILING: Final = Limits(**Limits.CEILINGS)
"""For rows that were stored before, under whatever limits."""


def check_limits(value: Limits) -> Limits:
    """The limits themselves, if they are such.

    Raises:
        InvalidOptionError: they are something else.
    """
    if not isinstance(value, Limits):
        raise InvalidOptionError(f"limits must be esource.Limits, not {type(value).__name__}")
    return value
