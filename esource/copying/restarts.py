"""Which projections begin anew where a store moves to: their checkpoints stay behind.

A checkpoint says how far a projection has read, and is only worth something together with what the projection has
made of it. That is in tables of the application's own, or in another system, and does not move with the store.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, TypeAlias

from esource.copying.rows import Relation, Row
from esource.errors import InvalidOptionError
from esource.tables.model import dead_letter_queue, projection_checkpoints

Reset: TypeAlias = Collection[str] | Literal["all"]
"""Names of projections, or all of them."""

_PARTS = re.compile(r"(@\d+)?(\[\d+/\d+\])?$")
"""What the names of the checkpoints of versions and partitions have after the projection's own."""

_BORN = {
    projection_checkpoints.name: projection_checkpoints.c.created_at.name,
    dead_letter_queue.name: dead_letter_queue.c.first_failed_at.name,
}
"""By table that knows a projection's name: the column that tells a row that was copied from one that the target has
made itself."""


class Restarts:
    """The projections that begin anew.

    Raises:
        InvalidOptionError: what was given is one text, and not "all".
    """

    def __init__(self, reset: Reset = ()) -> None:
        if isinstance(reset, str) and reset != "all":
            raise InvalidOptionError(f"reset must be a list of projections' names, or 'all', not {reset!r}")
        self._every = reset == "all"
        self._names = frozenset(() if self._every else reset)

    def concern(self, name: str) -> bool:
        """Whether a checkpoint, or a dead letter, of this name is one of theirs."""
        return self._every or name in self._names or _PARTS.sub("", name) in self._names

    def require_known(self, checkpoints: Iterable[str], where: str) -> None:
        """Refuse a name that nothing goes by.

        Raises:
            InvalidOptionError: there is no such checkpoint.
        """
        known = set(checkpoints)
        known |= {_PARTS.sub("", name) for name in known}
        if unknown := sorted(self._names - known):
            raise InvalidOptionError(
                f"{where} has no checkpoint of {', '.join(unknown)}. It has: {', '.join(sorted(known)) or 'none'}"
            )

    def without(self, relation: Relation, rows: list[Row]) -> list[Row]:
        """The rows that move."""
        if relation.name not in _BORN or not (self._every or self._names):
            return rows
        place = relation.columns(with_key=True).index("projection_name")
        return [row for row in rows if not self.concern(row[place])]

    def compared(self, relation: Relation, ours: list[Row], theirs: list[Row]) -> tuple[list[Row], list[Row]]:
        """Of rows of the source and of the target that stand for the same, those that are to be the same.

        What a projection has saved in the target since it began anew there is left alone; what an earlier copy
        has brought of it is not: it goes.
        """
        moving = self.without(relation, ours)
        if len(moving) == len(ours) and len(self.without(relation, theirs)) == len(theirs):
            return ours, theirs
        born = relation.columns(with_key=True).index(_BORN[relation.name])
        stay = {row[born] for row in ours if row not in moving}
        kept = self.without(relation, theirs)
        return moving, [row for row in theirs if row in kept or row[born] in stay]
