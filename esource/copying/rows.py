"""Rows as every database understands them.

A row that is copied is a tuple of text, integers and None: ids, moments and JSON are text, and nothing of
an event is decoded. Two databases may spell the same row differently (JSONB orders the keys of an object and
writes 1e2 as 100; another writer's SQLite row may hold a moment in another form), so rows are compared, and
digests made, in one canonical form.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Column, ColumnElement, Select, Table, bindparam, delete, func, select, tuple_

from esource.database.database import Database
from esource.errors import CopyRefusedError
from esource.moments import canonical_moment
from esource.tables.constructs import byte_order, iso_text, member_of
from esource.tables.model import dead_letter_queue, event_outbox, events, projection_checkpoints, snapshots
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Json, Timestamp, as_text

Row: TypeAlias = "Sequence[Any]"

PROCESS_COLUMNS = frozenset({"lease_owner", "lease_until", "claimed_by", "claimed_until"})
"""Which process works on what. Processes do not move with the rows, so these columns are not copied."""

PAGE_ROWS = 4000
"""Rows in a page at most."""

PAGE_BYTES = 4 * 1024 * 1024
"""Characters of JSON that a page aims to stay below, by the size of the rows in the page before."""


class Relation:
    """One of the five tables, as it is read, compared and written while a store moves."""

    def __init__(self, table: Table, group: str | None = None) -> None:
        self.table = table
        self.name = table.name
        [self.key] = table.primary_key.columns
        self.group = table.c[group or self.key.name]
        """What rows of the two sides are told by; several rows may share it if it is not the key."""

    def columns(self, *, with_key: bool) -> list[str]:
        """The columns that move. The key stays behind where the other database makes keys of another kind."""
        return [
            column.name
            for column in self.table.columns
            if column.name not in PROCESS_COLUMNS and (with_key or column is not self.key)
        ]

    @cached_property
    def first(self) -> Statement:
        return Statement(self._select().limit(bindparam("page")))

    @cached_property
    def next(self) -> Statement:
        """Rows past a place, which is a pair of group and key, or one of the two if they are the same."""
        if self.group is self.key:
            past = self._order(self.key) > bindparam("key", type_=self.key.type)
        else:
            past = tuple_(self._order(self.group), self.key) > tuple_(
                bindparam("group", type_=self.group.type), bindparam("key", type_=self.key.type)
            )
        return Statement(self._select().where(past).limit(bindparam("page")))

    @cached_property
    def delete(self) -> Statement:
        return Statement(delete(self.table).where(member_of(self.key, "keys")))

    @cached_property
    def count(self) -> Statement:
        return Statement(select(func.count()).select_from(self.table))

    @cached_property
    def count_past(self) -> Statement:
        return Statement(
            select(func.count())
            .select_from(self.table)
            .where(self.key > bindparam("past", type_=self.key.type))
        )

    @cached_property
    def count_upto(self) -> Statement:
        """How many rows there are up to a key, and the greatest key among them."""
        return Statement(
            select(func.count(), func.max(self.key)).where(self.key <= bindparam("upto", type_=self.key.type))
        )

    def _select(self) -> Select[Any]:
        columns = (neutral(self.table.c[name]) for name in self.columns(with_key=True))
        return select(*columns).order_by(
            *dict.fromkeys((self._order(self.group), self._order(self.key)))
            if self.group is not self.key
            else (self._order(self.key),)
        )

    def _order(self, column: Column[Any]) -> ColumnElement[Any]:
        return byte_order(column) if column is projection_checkpoints.c.projection_name else column

    @cached_property
    def _forms(self) -> list[tuple[int, Any]]:
        """Where a row's columns may be spelled in several ways, and the function that settles it."""
        forms = []
        for place, name in enumerate(self.columns(with_key=True)):
            form = next(
                (form for type_, form in _FORMS.items() if isinstance(self.table.c[name].type, type_)), None
            )
            if form is not None:
                forms.append((place, form))
        return forms

    def canonical(self, row: Row, *, with_key: bool = True) -> str:
        """The one text that stands for this row, whichever database it came from.

        Raises:
            ValueError: a value is not an id, a moment or JSON.
        """
        values = list(row)
        for place, form in self._forms:
            if values[place] is not None:
                values[place] = form(values[place])
        if not with_key:
            del values[self.key_place]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @cached_property
    def key_place(self) -> int:
        return self.columns(with_key=True).index(self.key.name)

    @cached_property
    def group_place(self) -> int:
        return self.columns(with_key=True).index(self.group.name)


EVENTS = Relation(events)
CHECKPOINTS = Relation(projection_checkpoints)
MIRRORED = (
    Relation(snapshots),
    CHECKPOINTS,
    Relation(dead_letter_queue),
    Relation(event_outbox, "event_id"),
)
"""The tables whose rows change; the outbox's keys are of different kinds in different databases."""

TABLES = tuple(relation.table for relation in (EVENTS, *MIRRORED))


def neutral(column: Column[Any]) -> ColumnElement[Any]:
    """A column as text or a number, on every database."""
    if isinstance(column.type, Timestamp):
        return iso_text(column)
    if isinstance(column.type, Identifier) or column is event_outbox.c.id:
        return as_text(column)
    return column


def same_keys(relation: Relation, one: str, other: str) -> bool:
    """Whether databases of these names make the table's keys of one kind: the outbox's they do not."""
    return one == other or relation.group is relation.key


class Cursor(NamedTuple):
    """Where a scan of a relation has come to."""

    group: Any
    key: Any


async def page(database: Database, relation: Relation, after: Cursor | None, size: int) -> list[Row]:
    """The next rows in the relation's order. One query."""
    if after is None:
        return await database.rows(relation.first, {"page": size})
    values: dict[str, Any] = {"key": after.key, "page": size}
    if relation.group is not relation.key:
        values["group"] = after.group
    return await database.rows(relation.next, values)


def cursor_of(relation: Relation, row: Row) -> Cursor:
    return Cursor(row[relation.group_place], row[relation.key_place])


def next_size(relation: Relation, rows: list[Row]) -> int:
    """How many rows to ask for next, so that memory stays bounded whatever they hold."""
    columns = relation.columns(with_key=True)
    texts = [i for i, name in enumerate(columns) if isinstance(relation.table.c[name].type, Json)]
    # A few rows tell enough, and the whole page would cost more than it saves.
    sample = rows[:: max(1, len(rows) // 64)]
    average = sum(len(row[place] or "") for row in sample for place in texts) // len(sample)
    return max(1, min(PAGE_ROWS, PAGE_BYTES // max(1, average)))


async def scan(
    database: Database, relation: Relation, after: Cursor | None = None
) -> AsyncIterator[list[Row]]:
    """All rows past a place, a page at a time."""
    size = 250
    while rows := await page(database, relation, after, size):
        yield rows
        if len(rows) < size:
            return
        after, size = cursor_of(relation, rows[-1]), next_size(relation, rows)


async def require_empty(database: Database) -> None:
    """Go on only if a database holds nothing yet.

    Raises:
        CopyRefusedError: there is a row in one of the five tables.
    """
    for relation in (EVENTS, *MIRRORED):
        [(rows,)] = await database.rows(relation.count, {})
        if rows:
            raise CopyRefusedError(
                database.name, f"it holds {rows} rows in {relation.name}", is_to_be_empty=True
            )


LARGEST_EXPONENT = 200_000
"""Beyond this PostgreSQL has no such number (131 072 digits before the point, 16 383 after it), so that there is only
one spelling of it; written in full it would take memory without end."""


def _number(text: str) -> Any:
    """A number as PostgreSQL's numeric writes it: without an exponent, without the sign of zero."""
    value = Decimal(text)
    if abs(value.adjusted()) > LARGEST_EXPONENT:
        return f"\x00{text.lower()}"
    plain = format(value, "f").removeprefix("-" if value.is_zero() else "")
    return f"\x00{plain}" if "." in plain else int(plain)


def _json(text: str) -> Any:
    # Fractions become text behind a NUL, which no stored text can hold: as floats, two that differ in the
    # twentieth digit would be the same, and 1e400 and 1e500 as well.
    return json.loads(text, parse_float=_number)


_FORMS: dict[type, Any] = {Json: _json, Timestamp: canonical_moment, Identifier: str.lower}
