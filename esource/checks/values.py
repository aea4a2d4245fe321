"""Values that one of the databases could not hold, or that could not be read again."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from math import isfinite, isinf
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from esource.checks.arguments import LARGEST_POSITION, NAME_LENGTH, shown
from esource.checks.limits import CEILING, STANDARD_LIMITS, Limits
from esource.checks.pieces import require_readable
from esource.errors import InvalidEventError


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


def check_name(field: str, value: str, limit: int = NAME_LENGTH) -> str:
    """`check_text` for names that recur with every append, remembered; they may not be empty either."""
    # What is no text may have no hash to be remembered by.
    return _remembered(field, value, limit) if isinstance(value, str) else check_text(field, value, limit)


@lru_cache(maxsize=4096)
def _remembered(field: str, value: str, limit: int) -> str:
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
# Begins with a letter, which the search leaps to, and goes on with one set: a quarter of the time of one that looks for
# digits. What it finds is looked at again.
_PERHAPS_EXPONENT = re.compile(r"e[+0-9]+(?:[,}\]\s]|$)")
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
        size >= 2 * depth and text.count("[") + text.count("{") >= depth
    ):
        try:
            if depth >= JSON_DEPTH:
                require_readable(text, from_json)
            else:
                _require_depth(field, from_json(text), depth)
        except ValueError as error:
            raise InvalidEventError(
                field or "payload",
                f"could not be read again ({error}): at most {JSON_DEPTH} levels of nesting, and "
                f"{JSON_DIGITS} digits in an integer",
            ) from error
    # One letter is found in a third of the time that a word takes, and most texts have none of these.
    if (
        ("\\" in text and "\\u0000" in text)
        or ("N" in text and "NaN" in text)
        or ("I" in text and "Infinity" in text)
    ):
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
