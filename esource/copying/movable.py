"""Whether a row may be stored in every database: rows that other programs wrote, or a file holds."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import BigInteger, Column, Integer, String

from esource.checks import (
    CEILING,
    check_foreign_json,
    check_name,
    check_size,
    check_text,
    require_readable,
)
from esource.copying.rows import Relation, Row
from esource.domain.tags import stored_tags
from esource.errors import InvalidEventError
from esource.moments import from_iso
from esource.tables.model import event_outbox, events
from esource.tables.types import Identifier, Json, Timestamp

# Builds nothing of what it reads but lists: whether it can be read is all that is wanted.
_well_formed = json.JSONDecoder(object_pairs_hook=bool, parse_float=len).decode


def unmovable(relation: Relation, row: Row) -> tuple[str, str] | None:
    """The column of a row that not every database can hold, and why; None if they all can.

    No row that esource has stored is among these: it refuses them. Others' rows may be.
    """
    for name, value in zip(relation.columns(with_key=True), row, strict=True):
        column = relation.table.c[name]
        if value is None:
            if column.nullable or column is event_outbox.c.id:
                continue
            return name, "is missing"
        try:
            problem = _problem(column, value)
            if problem is None and column is events.c.tags:
                problem = _problem_of_tags(value)
        except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            problem = f"{value!r:.80} cannot be read: {error}"
        except InvalidEventError as error:
            problem = error.problem
        if problem is not None:
            return name, problem
    return None


def _problem(column: Column[Any], value: Any) -> str | None:
    if isinstance(column.type, Identifier):
        UUID(value)
    elif isinstance(column.type, Timestamp):
        from_iso(value)
    elif isinstance(column.type, Json):
        check_size(column.name, value, CEILING)
        require_readable(check_foreign_json(column.name, value), _well_formed)
        if "\\u" in value:
            from_json(value)  # which refuses half of a surrogate pair
    elif column is event_outbox.c.id:
        if type(value) is not int:
            UUID(value)
    elif isinstance(column.type, Integer):
        bits = 64 if isinstance(column.type, BigInteger) else 32
        if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits - 1:
            return f"{value!r:.80} is no whole number of {bits} bits"
        if value < 1 and column.table is events:
            return f"{value} is below 1"
    else:
        check_text(column.name, value, column.type.length if isinstance(column.type, String) else None)
    return None


def _problem_of_tags(text: str) -> str | None:
    tags = stored_tags(text)
    for tag in tags:
        check_name("tags", tag)
    return None if tags else f"{text!r:.80} is no list of tags"
