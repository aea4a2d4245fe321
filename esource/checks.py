"""What is refused before anything is written: arguments, limits, and values that one database could not hold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from math import isfinite, isinf
from typing import Any, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from esource.errors import InvalidEventError, InvalidOptionError

NAME_LENGTH = 255
"""Longest aggregate type, event type, actor id and projection name, in characters: PostgreSQL's
VARCHAR(255), and the same on SQLite so that a database can always move."""

LARGEST_POSITION = 2**63 - 1
"""BIGINT, and SQLite's largest integer."""

LARGEST_INTEGER = 2**31 - 1
"""INTEGER on PostgreSQL."""

LARGEST_AGE_DAYS = 365_000
"""A thousand years."""

SHOWN_CHARACTERS = 80
"""Of a value that a message quotes."""


def shown(value: Any) -> str:
    """A value as a message shows it: cut if it is long."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:SHOWN_CHARACTERS]!r}…"
    text = repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}…"


def check_whole(name: str, value: int, *, least: int = 0, most: int | None = LARGEST_POSITION) -> int:
    """The number itself, if it is whole and within bounds.

    Raises:
        InvalidOptionError: it is not.
    """
    if type(value) is not int or value < least:
        raise InvalidOptionError(f"{name} must be a whole number from {least}, not {shown(value)}")
    if most is not None and value > most:
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


def check_seconds(name: str, value: float, *, least: float | None = None) -> float:
    """The number of seconds itself, if it is finite and more than 0, or at least ``least``.

    Raises:
        InvalidOptionError: it is not.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not value < float("inf") or not (value > 0 if least is None else value >= least):
        wanted = "more than 0" if least is None else f"{least:g} or more"
        raise InvalidOptionError(f"{name} must be {wanted} seconds, not {shown(value)}")
    return float(value)


def check_names(name: str, value: Iterable[str] | None) -> frozenset[str] | None:
    """The names as a set, if they are several texts or none; None if any will do.

    Raises:
        InvalidOptionError: it is one text, which would be taken for its letters, or holds what is not text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        raise InvalidOptionError(
            f"{name} must be a collection of names, not {shown(value)}: write [{shown(value)}]"
        )
    try:
        names = frozenset(value)
    except TypeError:
        raise InvalidOptionError(f"{name} must be a collection of names, not {shown(value)}") from None
    for each in names:
        if not isinstance(each, str):
            raise InvalidOptionError(f"{name} must be a collection of names; {shown(each)} is not text")
    return names


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


def check_text(field: str, value: str, limit: int | None = NAME_LENGTH) -> str:
    """The text itself, if both databases can hold it.

    Raises:
        InvalidEventError: it is no text, is too long, or holds a NUL character or half a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidEventError(field, f"is {shown(value)}, which is not text")
    if limit is not None and len(value) > limit:
        raise InvalidEventError(field, f"has {len(value)} characters, the limit is {limit}")
    if "\x00" in value:
        raise InvalidEventError(field, "holds a NUL character, which PostgreSQL cannot store")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidEventError(field, "holds half of a surrogate pair, which is not text") from None
    return value


@lru_cache(maxsize=4096)
def check_name(field: str, value: str, limit: int = NAME_LENGTH) -> str:
    """`check_text` for names that recur with every event, remembered; they may not be empty either."""
    if value == "":
        raise InvalidEventError(field, "is empty")
    return check_text(field, value, limit)


LONGEST_ERROR = 100_000
"""Characters of an error's text that are kept."""


def storable_text(text: str) -> str:
    """A text with what PostgreSQL cannot store written as escapes, and cut off where it is endless: a recorded
    error must not fail in turn.

    Raises:
        InvalidEventError: it is no text.
    """
    if not isinstance(text, str):
        raise InvalidEventError("error", f"is {shown(text)}, which is not text")
    if len(text) > LONGEST_ERROR:
        text = f"{text[:LONGEST_ERROR]}… ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


JSON_DEPTH = CEILING.json_depth
"""How deep JSON is read again, by pydantic's reader."""

JSON_DIGITS = 4300
"""Digits that an integer may have: Python's and pydantic's readers take no more. Before pydantic 2.14.2
the sign counts as one."""

FLOAT_DIGITS = 309
"""Digits before the point of the largest float."""

LONGEST_EXPONENT = 9999
"""How small a number may be: one below 1e-9999 is nothing to every reader, and PostgreSQL takes no scale above 16383."""

# A search begins at the first digit of a number only, so that each digit is looked at once.
_LONG_NUMBER = re.compile(rf"(?<![-\d])[-\d]\d{{{JSON_DIGITS}}}")
# Begins with a letter, which the search leaps to: a third of the time of one that looks for digits.
_PERHAPS_EXPONENT = re.compile(r"e\+?\d+(?:[,}\]\s]|$)")
# What pydantic does not write, but another program may.
_PERHAPS_ODD_EXPONENT = re.compile(r"(?:E\+?\d+|[eE]-\d{5,})(?:[,}\]\s]|$)")
_EXPONENT = re.compile(r"(?<![-.\d])(-?)(\d+)(?:\.(\d+))?[eE](\+?\d+|-\d{5,})")


def json_text(field: str, value: Any, limits: Limits = STANDARD_LIMITS) -> str:
    """A JSON value as text, if both databases can hold it, and it is within the limits.

    Raises:
        InvalidEventError: naming the path of the offending value, or the field if it is no JSON at all.
    """
    try:
        text = to_json(value, inf_nan_mode="constants").decode()
    except (ValueError, RecursionError) as error:
        find_unstorable(field, value)
        raise InvalidEventError(field, f"cannot be written as JSON: {error}") from error
    check_size(field, text, limits)
    return check_json(field, text, limits.json_depth)


def check_size(field: str, text: str, limits: Limits) -> None:
    """Refuse a payload that is longer than the limit.

    Raises:
        InvalidEventError: the JSON text is longer than the limit.
    """
    if len(text) > limits.payload_characters:
        raise InvalidEventError(
            field,
            f"has {len(text)} characters of JSON, the limit is {limits.payload_characters}",
            remedy="Keep what is large elsewhere and store where it is, or raise Limits.payload_characters",
        )


def check_json(field: str, text: str, depth: int = JSON_DEPTH) -> str:
    """JSON text as both databases can hold it and every reader can read it: no NUL characters, NaN or
    infinities, no deeper than the limit, no integer longer than `JSON_DIGITS`.

    Raises:
        InvalidEventError: naming the path of the offending value, below ``field``.
    """
    # The cheap looks first; only a text that might be wrong is read to find out.
    size = len(text)
    if (size > JSON_DIGITS and _LONG_NUMBER.search(text)) or (
        size > depth and text.count("[") + text.count("{") >= depth
    ):
        try:
            _require_depth(field, from_json(text), depth)
        except ValueError as error:
            raise InvalidEventError(
                field or "payload",
                f"could not be read again ({error}): at most {JSON_DEPTH} levels of nesting, and "
                f"{JSON_DIGITS} digits in an integer",
            ) from error
    if "\\u0000" in text or "NaN" in text or "Infinity" in text:
        find_unstorable(field, from_json(text))
    if _PERHAPS_EXPONENT.search(text):
        text = _without_exponents(field, text)
    return text


def check_foreign_json(field: str, text: str) -> str:
    """`check_json` for what another program wrote: with numbers as pydantic does not write them.

    Raises:
        InvalidEventError: naming the path of the offending value, below ``field``.
    """
    if _PERHAPS_ODD_EXPONENT.search(text):
        text = _without_exponents(field, text)
    return check_json(field, text)


def _require_depth(field: str, value: Any, depth: int) -> None:
    if depth >= JSON_DEPTH:
        return  # it could be read
    level, deeper = 0, [value]
    while deeper := [part for part in deeper if isinstance(part, (dict, list))]:
        level += 1
        if level > depth:
            raise InvalidEventError(
                field or "payload",
                f"has more than {depth} levels of nesting",
                remedy=f"Make it flatter, or raise Limits.json_depth (at most {JSON_DEPTH})",
            )
        deeper = [inner for part in deeper for inner in (part.values() if isinstance(part, dict) else part)]


def _without_exponents(field: str, text: str) -> str:
    """1e300 in full, with a fraction: JSONB would make an integer of it, and that is not the same number.

    Raises:
        InvalidEventError: a number is too large for a float, or too small for anything but nothing, or all of them
            in full are too much: none is written out to see that.
    """
    in_full = _InFull(field)
    masked = text.replace("\\\\", "  ").replace('\\"', "  ")  # what is left of quotes begins or ends a text
    parts, start = [], 0
    for index, part in enumerate(masked.split('"')):
        end = start + len(part)
        is_text = index % 2 == 1
        parts.append(text[start:end] if is_text else _EXPONENT.sub(in_full, part))
        start = end + 1
    return '"'.join(parts)


class _InFull:
    """Writes numbers with exponents out, up to a limit."""

    def __init__(self, field: str) -> None:
        self._field = field or "payload"
        self._left = CEILING.payload_characters

    def __call__(self, found: re.Match[str]) -> str:
        sign, whole, fraction, exponent = found[1], found[2], found[3] or "", found[4]
        if not (whole + fraction).strip("0"):
            return f"{sign}0.0"
        shift = int(exponent) if len(exponent) < 9 else LARGEST_POSITION * (-1 if exponent[0] == "-" else 1)
        if shift < -LONGEST_EXPONENT or shift > 2 * FLOAT_DIGITS or isinf(float(found[0])):
            raise InvalidEventError(
                self._field,
                f"holds the number {shown(found[0])}, which no float can be",
                remedy="Write it as text",
            )
        digits = format(Decimal(found[0]), "f")
        self._left -= len(digits)
        if self._left < 0:
            raise InvalidEventError(
                self._field,
                f"has more than {CEILING.payload_characters} characters of JSON once its numbers are written in full",
                remedy="Write very large numbers as text",
            )
        return digits if "." in digits else f"{digits}.0"


def find_unstorable(path: str, value: Any) -> None:
    """Walk through a value, to say where it holds what cannot be stored; nothing if it does not.

    Raises:
        InvalidEventError: naming the path of the first such value.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            find_unstorable(f"{path} (a key)".lstrip(), key)
            find_unstorable(f"{path}.{key}" if path else str(key), item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            find_unstorable(f"{path}[{index}]", item)
    elif isinstance(value, str):
        check_text(path, value, limit=None)
    elif isinstance(value, float) and not isfinite(value):
        raise InvalidEventError(path, f"is {value}, which JSON cannot hold")
    elif isinstance(value, BaseModel):
        find_unstorable(path, {**value.__dict__, **(value.model_extra or {})})
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        find_unstorable(path, {name: getattr(value, name, None) for name in value.__dataclass_fields__})
