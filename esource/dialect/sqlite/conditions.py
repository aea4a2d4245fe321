"""SQLite: what is in the way of an append that has a condition."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, bindparam, insert, literal_column, select

from esource.dialect.matching import EventsAtHand
from esource.dialect.plan import Condition, Matched, Moved, Refusal, StreamWrite
from esource.domain.tags import legible_tags
from esource.tables.filling import UNFILLED, first_unfilled
from esource.tables.model import event_tags, events
from esource.tables.rows import StreamId
from esource.tables.selecting import first_place, item_values, of_tenant, shape_of
from esource.tables.statement import Statement
from esource.tables.types import Identifier

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from sqlalchemy import Dialect

_after = bindparam("after", type_=events.c.global_position.type)
_first_of_type = (
    select(events.c.global_position)
    .where(events.c.event_type == bindparam("event_type"), events.c.global_position > _after)
    .order_by(events.c.global_position)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_FIRST_OF_TYPE = {False: Statement(_first_of_type), True: Statement(_first_of_type.where(of_tenant))}

FEW = 32
"""So many events past a position are looked at themselves, instead of the places of each item; four for each condition, if there are
more."""

_COME = Statement(
    select(events.c.global_position, events.c.event_type, events.c.tags, events.c.tenant_id)
    .where(events.c.global_position > _after)
    .order_by(events.c.global_position)
    .limit(bindparam("most", type_=Integer()))
    .offset(literal_column("0"))
)
_TYPE = Statement(select(events.c.event_type).where(events.c.global_position == bindparam("position")))
_version = (
    select(events.c.version)
    .where(
        events.c.aggregate_id == bindparam("aggregate_id", type_=Identifier()),
        events.c.aggregate_type == bindparam("aggregate_type"),
    )
    .order_by(events.c.version.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_VERSION = {False: Statement(_version), True: Statement(_version.where(of_tenant))}


_INDEX = Statement(
    insert(event_tags)
    .prefix_with("OR IGNORE")
    .values(tag=bindparam("tag"), global_position=bindparam("global_position"))
)


def index_tags(cursor: sqlite3.Cursor, dialect: Dialect, tagged: Iterable[tuple[str | None, int]]) -> None:
    """Write the tags of events that were inserted, each with its position, into the index. No trigger does: it would cost
    each insert a quarter, tags or none."""
    found = [(tag, position) for tags, position in tagged if tags is not None for tag in json.loads(tags)]
    if found:
        cursor.executemany(_INDEX.on(dialect).text, found)


class Judge:
    """Looks, inside the transaction of an append, for what its condition excludes."""

    def __init__(self, cursor: sqlite3.Cursor, dialect: Dialect, writes: Iterable[StreamWrite] = ()) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._unfilled: list[tuple[str, str]] | None = None
        past = [write.condition.after for write in writes if write.condition and write.condition.items]
        self._least = min(past, default=None)
        """The least position that one of the conditions of a batch is past: nothing is written in between them."""
        self._few = max(FEW, 4 * len(past))
        self._come = EventsAtHand()
        self._come_past: int | None = None
        """`_come` has all events past this position."""
        self._many_past = -1
        """There are too many past this one."""

    def refusal(self, condition: Condition) -> Refusal | None:
        """What is in the way; None if nothing is."""
        tenant_id = condition.tenant_id
        for stream, expected in condition.streams:
            version = self._value(
                _VERSION[tenant_id is not None], {**stream._asdict(), "tenant_id": tenant_id}
            )
            if (version or 0) != expected:
                return Moved(StreamId(*stream), expected, version or 0)
        if not condition.items:
            return None
        if any(tags for _, tags in condition.items):
            if self._unfilled is None:
                self._unfilled = self._cursor.execute(UNFILLED.on(self._dialect).text).fetchall()
            lacking = first_unfilled(condition.items, self._unfilled)
            if lacking is not None:
                return lacking
        if self._few_have_come(condition.after):
            tenant = None if tenant_id is None else str(tenant_id)
            return self._come.first(condition, tenant, condition.after)
        found = [self._first(types, tags, condition.after, tenant_id) for types, tags in condition.items]
        places = [place for place in found if place is not None]
        if not places:
            return None
        return Matched(min(places), self._value(_TYPE, {"position": min(places)}) or "")

    def _few_have_come(self, after: int) -> bool:
        """Whether `_come` has all events past a position: those of all conditions at once, if they are few."""
        if self._come_past is not None and after >= self._come_past:
            return True
        return (self._least is not None and self._take_past(self._least)) or self._take_past(after)

    def _take_past(self, position: int) -> bool:
        if position <= self._many_past:
            return False
        compiled = _COME.on(self._dialect)
        rows = self._cursor.execute(
            compiled.text, compiled.arguments({"after": position, "most": self._few + 1})
        ).fetchall()
        if len(rows) > self._few:
            self._many_past = position
            return False
        self._come = EventsAtHand(
            [(place, kind, legible_tags(tags), owner) for place, kind, tags, owner in rows]
        )
        self._come_past = position
        return True

    def _first(
        self, types: AbstractSet[str], tags: AbstractSet[str], after: int, tenant_id: UUID | None
    ) -> int | None:
        """The position of the first event past another one that an item selects."""
        values: dict[str, Any] = {"after": after, "tenant_id": tenant_id}
        if types and not tags:
            # Type by type: of each the index of types has the places in their order.
            statement = _FIRST_OF_TYPE[tenant_id is not None]
            firsts = [self._value(statement, {**values, "event_type": each}) for each in types]
            return min((place for place in firsts if place is not None), default=None)
        values |= item_values(0, types, tags, lambda names: json.dumps(list(names)))
        place: int | None = self._value(first_place(shape_of(types, tags, tenant_id)), values)
        return place

    def _value(self, statement: Statement, values: dict[str, Any]) -> Any:
        compiled = statement.on(self._dialect)
        row = self._cursor.execute(compiled.text, compiled.arguments(values)).fetchone()
        return None if row is None else row[0]
