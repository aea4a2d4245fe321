"""Arguments that both databases refuse alike, before any I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from esource.errors import InvalidOptionError

LARGEST_POSITION = 2**63 - 1
"""BIGINT, and SQLite's largest integer."""

LARGEST_INTEGER = 2**31 - 1
"""INTEGER on PostgreSQL."""

LARGEST_AGE_DAYS = 365_000
"""A thousand years."""

SHOWN_CHARACTERS = 80
"""Of a value that a message quotes."""


def shown(value: Any) -> str:
    """A value for a message, which nobody wants to be as long as the value may be."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:SHOWN_CHARACTERS]!r}…"
    text = repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}…"


def check_whole(name: str, value: int, *, least: int = 0, most: int = LARGEST_POSITION) -> int:
    """The number itself, if it is whole and within bounds.

    Raises:
        InvalidOptionError: it is not.
    """
    if type(value) is not int or value < least:
        raise InvalidOptionError(f"{name} must be a whole number from {least}, not {shown(value)}")
    if value > most:
        raise InvalidOptionError(f"{name} must be at most {most}, not {shown(value)}")
    return value


def check_id(name: str, value: UUID) -> UUID:
    """The id itself, if it is a UUID: SQLite would take any text.

    Raises:
        InvalidOptionError: it is not.
    """
    if not isinstance(value, UUID):
        remedy = ": pass uuid.UUID(...) of it" if isinstance(value, str) else ""
        raise InvalidOptionError(f"{name} must be a UUID, not {shown(value)}{remedy}")
    return value


def check_moment(name: str, value: datetime) -> datetime:
    """The moment itself, if it has a time zone.

    Raises:
        InvalidOptionError: it has none.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidOptionError(f"{name} must be a datetime with a time zone, not {shown(value)}")
    return value


def check_seconds(name: str, value: float) -> float:
    """The number of seconds itself, if it is more than none and finite.

    Raises:
        InvalidOptionError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidOptionError(f"{name} must be more than 0 seconds, not {shown(value)}")
    return float(value)
