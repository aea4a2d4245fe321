"""Names and texts inside PostgreSQL's statements that take no parameters: those that make objects."""

from __future__ import annotations


def literal(text: str) -> str:
    """A text constant, whatever is in it and whatever ``standard_conforming_strings`` says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def identifier(name: str) -> str:
    """A name, whatever is in it. Not SQLAlchemy's quoting: it doubles the percent sign for drivers that format
    their statements."""
    return '"' + name.replace('"', '""') + '"'
