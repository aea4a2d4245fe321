"""Copying the tables beside the log, whose rows change: what differs is removed, what is missing is added.

Both sides are read in one order and compared as they go by, so memory is bounded by a page of each. Removing
comes first, so that a row may give its name to another; a row that has changed is removed and added.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from esource.copying.restarts import Restarts
from esource.copying.rows import Relation, Row, same_keys, scan
from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.dialect.urls import moving_of
from esource.errors import ConstraintError

BATCH_ROWS = 5000
"""Rows in one transaction of the target."""

ATTEMPTS = 5
"""How often a table is compared anew when its rows changed places in the source meanwhile."""


class Change(NamedTuple):
    """What a pass over one table did to the target."""

    added: int
    removed: int


class Difference(NamedTuple):
    """Rows with the same group that one side has and the other has not."""

    group: Any
    only_source: list[Row]
    only_target: list[Row]


async def differences(
    source: Database, target: Database, relation: Relation, restarts: Restarts
) -> AsyncIterator[Difference]:
    """Where two databases differ in a table, in its order, but for projections that begin anew."""
    with_key = same_keys(relation, source.backend.name, target.backend.name)
    ours, theirs = _groups(source, relation), _groups(target, relation)
    mine, other = await anext(ours, None), await anext(theirs, None)
    while mine is not None or other is not None:
        group = min(side[0] for side in (mine, other) if side is not None)
        here, there = (side[1] if side is not None and side[0] == group else [] for side in (mine, other))
        left, right = (
            _by_content(relation, rows, with_key=with_key)
            for rows in restarts.compared(relation, here, there)
        )
        only_source = [row for content, rows in left.items() for row in rows[len(right.get(content, ())) :]]
        only_target = [row for content, rows in right.items() for row in rows[len(left.get(content, ())) :]]
        if only_source or only_target:
            yield Difference(group, only_source, only_target)
        if here:
            mine = await anext(ours, None)
        if there:
            other = await anext(theirs, None)


async def _groups(database: Database, relation: Relation) -> AsyncIterator[tuple[Any, list[Row]]]:
    """Rows that share the relation's group, together."""
    group: Any = None
    together: list[Row] = []
    async for rows in scan(database, relation):
        for row in rows:
            if together and row[relation.group_place] != group:
                yield group, together
                together = []
            group = row[relation.group_place]
            together.append(row)
    if together:
        yield group, together


def _by_content(relation: Relation, rows: list[Row], *, with_key: bool) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(relation.canonical(row, with_key=with_key), []).append(row)
    return found


async def mirror(source: Database, target: Database, relation: Relation, restarts: Restarts) -> Change:
    """Make the target's table equal to the source's, but for projections that begin anew.

    Raises:
        ConstraintError: the source's rows kept changing places, `ATTEMPTS` times in a row.
    """
    added = removed = 0
    for attempt in range(ATTEMPTS):
        removed += await _remove(source, target, relation, restarts)
        try:
            added += await _add(source, target, relation, restarts)
        except ConstraintError:
            # A row of the source was replaced by another of the same name since we had looked for it.
            if attempt == ATTEMPTS - 1:
                raise
        else:
            break
    return Change(added, removed)


async def _remove(source: Database, target: Database, relation: Relation, restarts: Restarts) -> int:
    removed = 0
    keys: list[Any] = []

    async def flush() -> None:
        nonlocal removed
        await target.write(relation.delete, {"keys": target.backend.names(keys)})
        removed += len(keys)
        keys.clear()

    async for difference in differences(source, target, relation, restarts):
        keys += (row[relation.key_place] for row in difference.only_target)
        if len(keys) >= BATCH_ROWS:
            await flush()
    if keys:
        await flush()
    return removed


async def _add(source: Database, target: Database, relation: Relation, restarts: Restarts) -> int:
    with_key = same_keys(relation, source.backend.name, target.backend.name)
    added = 0
    rows: list[Row] = []

    async def flush() -> None:
        nonlocal added
        async with target.transaction() as unit:
            await load(target, unit, relation, rows, with_key=with_key)
        added += len(rows)
        rows.clear()

    async for difference in differences(source, target, relation, restarts):
        rows += difference.only_source
        if len(rows) >= BATCH_ROWS:
            await flush()
    if rows:
        await flush()
    return added


async def load(
    database: Database, unit: Unit, relation: Relation, rows: Sequence[Row], *, with_key: bool
) -> None:
    """Add rows in a transaction, with their keys or with new ones."""
    if not with_key:
        place = relation.key_place
        rows = [(*row[:place], *row[place + 1 :]) for row in rows]

    async def pages() -> AsyncIterator[Sequence[Row]]:
        yield rows

    backend = database.backend
    with backend.errors(database.name):
        await moving_of(backend).load(
            unit.driver, relation.table, relation.columns(with_key=with_key), pages()
        )


async def counters(database: Database, relations: Iterable[Relation]) -> dict[str, int]:
    """The last key that was handed out for each table that has a counter."""
    moving = moving_of(database.backend)
    found = {}
    for relation in relations:
        value = await database.inspect(partial(moving.counter, table=relation.table))
        if value is not None:
            found[relation.name] = value
    return found


async def raise_counters(target: Database, relations: Iterable[Relation], values: Mapping[str, int]) -> None:
    """Let a database never hand out a key that another has handed out, used or not."""
    moving = moving_of(target.backend)
    for relation in relations:
        async with target.transaction() as unit:
            theirs = await moving.counter(unit.driver, relation.table)
            if theirs is not None and values.get(relation.name, 0) > theirs:
                await moving.set_counter(unit.driver, relation.table, values[relation.name])
