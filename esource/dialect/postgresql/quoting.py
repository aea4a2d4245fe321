"""Names and texts inside PostgreSQL's statements that take no parameters: those that make objects."""

from __future__ import annotations

from esource.errors import InvalidOptionError

MAX_NAME_BYTES = 63
"""Longer names PostgreSQL cuts off."""


def check_name(what: str, name: object) -> str:
    """A name that PostgreSQL takes as it stands.

    Raises:
        InvalidOptionError: it is none; ``what`` says of what.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InvalidOptionError(f"{what} must be a name of printable characters, not {name!r}")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidOptionError(
            f"{what}: {name!r} is longer than the {MAX_NAME_BYTES} bytes that PostgreSQL keeps"
        )
    if name.startswith("pg_"):
        raise InvalidOptionError(f"{what}: {name!r} is a name that PostgreSQL keeps for itself")
    return name


def check_schema(name: object) -> str:
    """The name of a schema that a store can work in.

    Raises:
        InvalidOptionError: it is none.
    """
    found = check_name("schema", name)
    if found == "information_schema":
        raise InvalidOptionError(f"schema: {found!r} is a name that PostgreSQL keeps for itself")
    if "$" in found:  # even in quotes, a search path takes "$user" for the name of the role
        raise InvalidOptionError(f"schema: {found!r} has a $, which means something else in a search path")
    return found


def literal(text: str) -> str:
    """A text constant, whatever is in it and whatever ``standard_conforming_strings`` says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def identifier(name: str) -> str:
    """A name, whatever is in it. Not SQLAlchemy's quoting: it doubles the percent sign for drivers that format
    their statements."""
    return '"' + name.replace('"', '""') + '"'
