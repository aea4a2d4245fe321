"""How far stored events have been given the tags that their classes declare by now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import select

from esource.database.database import Database
from esource.domain.queries import Query
from esource.errors import TagsIncompleteError
from esource.moments import to_iso
from esource.tables.filling import UNFILLED, UNFILLED_AND_HIDDEN, first_unfilled
from esource.tables.model import tag_fillings
from esource.tables.statement import Statement

_ALL = Statement(select(*tag_fillings.c).order_by(tag_fillings.c.event_type, tag_fillings.c.tag_name))


@dataclass(frozen=True, slots=True)
class TagFilling:
    """A tag that events of a type are given, or have been given, after they were stored."""

    event_type: str
    tag_name: str
    """What comes before the tag's colon."""
    global_position: int
    """Events of the type have their tags of this name up to here."""
    completed_at: datetime | None
    """When the end of the log was reached; None: it was not yet, and queries over the tag are refused."""


async def tag_fillings_of(database: Database) -> list[TagFilling]:
    """All of them. One query."""
    return [TagFilling(*row) for row in await database.read(_ALL, {})]


async def filled_now(database: Database) -> list[list[str]]:
    """Which tags all events of a type have, as the record says, and since when: with this events leave the log."""
    return [
        [filling.event_type, filling.tag_name, to_iso(filling.completed_at)]
        for filling in await tag_fillings_of(database)
        if filling.completed_at is not None
    ]


async def require_all_filled(database: Database) -> None:
    """Refuse work on a whole store while stored events are still being given tags: only this store knows of it. One query.

    Raises:
        TagsIncompleteError: they are.
    """
    for row in await database.rows(UNFILLED, {}):
        raise TagsIncompleteError(*row)


async def require_filled(database: Database, query: Query) -> bool:
    """Refuse a query that asks for tags which stored events may still lack. Its types are names. One query, if it has tags.

    Returns:
        Whether row-level security may hide how often others have the tags; see `Selection.hide_tags`.

    Raises:
        TagsIncompleteError: it does.
    """
    if any(item.tags for item in query.items):
        items = [(cast("frozenset[str]", item.types), item.tags) for item in query.items]
        rows = await database.rows(UNFILLED_AND_HIDDEN, {})
        lacking = first_unfilled(items, [(kind, name) for _, kind, name in rows if name is not None])
        if lacking is not None:
            raise TagsIncompleteError(*lacking)
        return bool(rows[0][0])
    return False
