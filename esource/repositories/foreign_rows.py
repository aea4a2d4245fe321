"""Rows that another program may have written: what cannot be read of one is noted, and ends no loop over many."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar
from uuid import UUID

from pydantic_core import from_json

from esource.checks import FLOAT_DIGITS, check_foreign_json, find_unstorable, shown
from esource.errors import error_text
from esource.moments import from_iso

T = TypeVar("T")

NO_ID = UUID(int=0)
"""In place of an id that cannot be read."""
NO_MOMENT = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""In place of a moment that cannot be read."""


class RowReader:
    """Reads the fields of one row, and remembers the first that could not be read."""

    def __init__(self) -> None:
        self.problem: str | None = None
        """What could not be read, and why; None if all could."""

    def read(self, field: str, kind: Callable[[Any], T], value: Any, otherwise: T) -> T:
        """A field's value, made by ``kind``, or another one if it cannot be made."""
        try:
            return kind(value)
        except Exception as error:  # a stranger's value may fail in any way
            self.problem = self.problem or f"{field} cannot be read: {error_text(error)}"
            return otherwise


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"it is {shown(value)}, which is not text")
    return value


def whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"it is {shown(value)}, which is not a whole number")
    return value


def identifier(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(text(value))


def moment(value: Any) -> datetime:
    """From the text of `esource.tables.constructs.iso_text`."""
    return from_iso(text(value))


def members(value: Any) -> dict[str, Any]:
    """The members of a JSON object; a list, NaN, numbers that are no float, and too many levels are refused."""
    found = from_json(check_foreign_json("", text(value)), allow_inf_nan=False)
    if len(value) > FLOAT_DIGITS:
        find_unstorable("", found)  # so many digits may make an infinite float
    if not isinstance(found, dict):
        raise TypeError(f"it is JSON, but not an object: {shown(found)}")
    return found


def or_none(kind: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else kind(value)
