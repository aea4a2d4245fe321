"""Whether the index of the tags says what the events say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from sqlalchemy import bindparam, select, tuple_

from esource.copying.rows import EVENTS, Row
from esource.database.database import Database
from esource.tables.constructs import byte_order
from esource.tables.model import event_tags, events
from esource.tables.statement import Statement

PAGE = 4000

REMEDY = "Make it anew, in one transaction: DELETE FROM event_tags, then UPDATE events SET tags = tags"

_TAGS = EVENTS.columns(with_key=True).index("tags")

_order = byte_order(event_tags.c.tag), event_tags.c.global_position
_entries = (
    # Of a part of the log that was detached the index still tells.
    select(event_tags.c.tag, event_tags.c.global_position)
    .join(events, events.c.global_position == event_tags.c.global_position)
    .order_by(*_order)
    .limit(bindparam("page"))
)
_FIRST = Statement(_entries)
_NEXT = Statement(
    _entries.where(
        tuple_(*_order)
        > tuple_(
            bindparam("tag", type_=event_tags.c.tag.type),
            bindparam("position", type_=event_tags.c.global_position.type),
        )
    )
)


class Told:
    """The tags that events have, or that an index has of them: how many, and a sum that does not depend on their order."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, tags: Iterable[str], position: int) -> None:
        for tag in tags:
            digest = blake2b(f"{position}:{tag}".encode(), digest_size=16).digest()
            self.sum = (self.sum + int.from_bytes(digest, "big")) % (1 << 128)
            self.count += 1

    def add_event(self, row: Row) -> None:
        """The tags of an event, if they can be read: what is no list of tags is told elsewhere."""
        try:
            tags = json.loads(row[_TAGS]) if row[_TAGS] is not None else []
        except ValueError:
            return
        self.add({tag for tag in tags if isinstance(tag, str)}, row[EVENTS.key_place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and (self.count, self.sum) == (other.count, other.sum)

    __hash__ = None  # type: ignore[assignment] # it changes


async def disagreement(database: Database, told: Told) -> str | None:
    """What is wrong with the index, where the events tell this; None if nothing is. Reads all of it, page by page."""
    index = Told()
    rows: list[Any] = await database.rows(_FIRST, {"page": PAGE})
    while rows:
        for tag, position in rows:
            index.add([tag], position)
        tag, position = rows[-1]
        rows = await database.rows(_NEXT, {"tag": tag, "position": position, "page": PAGE})
    if index == told:
        return None
    return f"the events have {told.count} tags, and event_tags has {index.count} of them, or others"
