"""Which tags of stored events are still being filled in, and what depends on them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from sqlalchemy import literal_column, select

from esource.tables.constructs import hides_tags
from esource.tables.model import tag_fillings
from esource.tables.statement import Statement


class Declared(NamedTuple):
    """A tag that a class declares: the stored type, and the name before the tag's colon."""

    event_type: str
    tag_name: str

    def is_among(self, tags: Iterable[str]) -> bool:
        """Whether one of these tags has its name."""
        return any(tag.startswith(f"{self.tag_name}:") for tag in tags)


UNFILLED = Statement(
    select(tag_fillings.c.event_type, tag_fillings.c.tag_name).where(tag_fillings.c.completed_at.is_(None))
)
"""Those that stored events may still lack."""
_alone = select(literal_column("1").label("one")).subquery()
UNFILLED_AND_HIDDEN = Statement(
    select(hides_tags().label("is_hidden"), tag_fillings.c.event_type, tag_fillings.c.tag_name).select_from(
        _alone.outerjoin(tag_fillings, tag_fillings.c.completed_at.is_(None))
    )
)
"""The same, or one row with None, each with whether row-level security may hide how often a tag was given."""


def first_unfilled(
    items: Iterable[tuple[AbstractSet[str], AbstractSet[str]]], unfilled: Iterable[tuple[str, str]]
) -> Declared | None:
    """The first of them that one of the items depends on, which are types and tags; None if none does.

    What an item without tags selects does not change. `esource.tables.tag_index` has the same in SQL.
    """
    waited_for = [Declared(*row) for row in unfilled]
    for types, tags in items if waited_for else ():
        for each in waited_for:
            if (not types or each.event_type in types) and each.is_among(tags):
                return each
    return None
