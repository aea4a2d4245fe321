"""Comparing two databases row by row, whatever each of them makes of ids, moments and JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from esource.copying.mirror import differences
from esource.copying.restarts import Restarts
from esource.copying.rows import EVENTS, MIRRORED, Cursor, next_size, page
from esource.database.database import Database

RANGE_EVENTS = 100_000
"""Events in a range that has a digest of its own, about."""

SHOWN = 300
"""Characters of a differing row that are shown."""


@dataclass(frozen=True, slots=True)
class RangeDigest:
    """A range of the log on both sides: SHA-256 over its events in canonical form."""

    first: int
    """Global position of its first event."""
    last: int
    """Global position of its last event."""
    events: int
    source: str
    target: str

    @property
    def is_identical(self) -> bool:
        return self.source == self.target


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A table beside the log on both sides."""

    table: str
    rows: int
    """Rows of the source."""
    missing: int
    """Rows that only the source has."""
    extra: int
    """Rows that only the target has."""

    @property
    def is_identical(self) -> bool:
        return not self.missing and not self.extra


@dataclass(slots=True)
class Verification:
    """What `verify_copy` found."""

    ranges: list[RangeDigest] = field(default_factory=list)
    tables: list[TableComparison] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """The first difference of the log and of each table, as text."""

    @property
    def events(self) -> int:
        """Events that were compared."""
        return sum(part.events for part in self.ranges)

    @property
    def is_identical(self) -> bool:
        return not self.differences


async def verify_log(
    source: Database,
    target: Database,
    found: Verification,
    *,
    after: int = 0,
    upto: int,
    tell: Callable[[int], None],
) -> None:
    """Compare the events past one position up to another; the first difference ends it."""
    size, events, first = 500, 0, 0
    digests = sha256(), sha256()

    def end_range() -> None:
        nonlocal events, digests
        if events:
            found.ranges.append(RangeDigest(first, after, events, *(made.hexdigest() for made in digests)))
        events, digests = 0, (sha256(), sha256())

    while after < upto:
        place = Cursor(after, after)
        both = await asyncio.gather(page(source, EVENTS, place, size), page(target, EVENTS, place, size))
        ours, theirs = ([row for row in rows if row[EVENTS.key_place] <= upto] for rows in both)
        left, right = ([EVENTS.canonical(row) for row in rows] for rows in (ours, theirs))
        for made, texts in zip(digests, (left, right), strict=True):
            made.update("".join(f"{text}\n" for text in texts).encode())
        if not ours and not theirs:
            break
        longer = ours if len(ours) >= len(theirs) else theirs
        first = first if events else longer[0][EVENTS.key_place]
        after, events = longer[-1][EVENTS.key_place], events + len(ours)
        if left != right:
            found.differences.append(_first_difference(left, right))
            break
        if events >= RANGE_EVENTS:
            end_range()
        tell(len(ours))
        size = next_size(EVENTS, ours)
    end_range()


def _cut(row: str) -> str:
    return row if len(row) <= SHOWN else f"{row[:SHOWN]}…"


def _first_difference(left: list[str], right: list[str]) -> str:
    for mine, other in zip(left, right, strict=False):
        if mine != other:
            return f"events: the source has {_cut(mine)}, the target {_cut(other)}"
    if len(left) > len(right):
        return f"events: the target lacks {_cut(left[len(right)])}"
    return f"events: only the target has {_cut(right[len(left)])}"


async def verify_mirrored(
    source: Database, target: Database, found: Verification, restarts: Restarts
) -> None:
    """Compare the tables beside the log, but for projections that begin anew."""
    for relation in MIRRORED:
        [(rows,)] = await source.rows(relation.count, {})
        missing = extra = 0
        async for difference in differences(source, target, relation, restarts):
            if not missing and not extra:
                sides = ("source", difference.only_source), ("target", difference.only_target)
                shown = "; ".join(
                    f"only the {side} has {_cut(relation.canonical(rows[0]))}" for side, rows in sides if rows
                )
                found.differences.append(f"{relation.name}: {shown}")
            missing += len(difference.only_source)
            extra += len(difference.only_target)
        found.tables.append(TableComparison(relation.name, rows, missing, extra))
