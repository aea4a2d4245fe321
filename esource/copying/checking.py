"""Whether a row may be stored in every database: rows that other programs wrote, or a file holds."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Integer, String

from esource.copying.rows import Relation, Row
from esource.errors import InvalidEventError
from esource.storable import check_json
from esource.tables import event_outbox
from esource.types import Identifier, Json, Timestamp, from_iso


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
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
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
        json.loads(check_json(column.name, value))
    elif column is event_outbox.c.id:
        if type(value) is not int:
            UUID(value)
    elif isinstance(column.type, Integer):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            return f"{value!r:.80} is no whole number of 64 bits"
    elif not isinstance(value, str) or "\0" in value:
        return "is no text, or holds a NUL"
    elif isinstance(column.type, String) and column.type.length and len(value) > column.type.length:
        return f"is longer than {column.type.length} characters"
    return None
