"""Arguments that are refused before anything is done with them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from esource.errors import InvalidOptionError

T = TypeVar("T")

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


def check_choice(name: str, value: T, choices: Collection[str]) -> T:
    """The value itself, if it is one of the choices.

    Raises:
        InvalidOptionError: it is not.
    """
    if not isinstance(value, str) or value not in choices:
        *first, last = map(repr, choices)
        raise InvalidOptionError(f"{name} must be {', '.join(first)} or {last}, not {shown(value)}")
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


def check_path(what: str, path: object) -> str:
    """The path of a file, with the home folder for ``~`` or ``~user`` at its beginning. A file may have such a name, a
    folder may not.

    Raises:
        InvalidOptionError: it is no path, no operating system has a file of such a name, or the home folder is not known.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(text, str):
        raise InvalidOptionError(f"{what} must be named by a path, not {shown(path)}")
    try:
        if b"\0" in os.fsencode(text):
            raise InvalidOptionError(f"the name of {what} holds a NUL character")
    except UnicodeEncodeError:
        raise InvalidOptionError(f"the name of {what} holds half of a surrogate pair") from None
    found = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises for a file of such a name
    if text.startswith("~") and found == text and "/" in text:
        raise InvalidOptionError(
            f"no home folder is known for {shown(text.partition('/')[0])}, with which the path of {what} begins: "
            "write the folder out, or ./ before the name"
        )
    return found


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
        InvalidOptionError: it is one text, which would be taken for its letters, or holds what is not text, or what no database
            can store.
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes)):
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
        if "\x00" in each or each != each.encode(errors="ignore").decode():
            raise InvalidOptionError(
                f"{name} must be names that can be stored; {shown(each)} has a NUL character or half of a surrogate pair"
            )
    return names
