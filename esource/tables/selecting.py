"""The statements behind a query: where the events of one item are, in the order of the log."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from esource.tables.constructs import member_of
from esource.tables.model import event_tags, events
from esource.tables.statement import Statement
from esource.tables.types import Identifier

COUNTED_PLACES = 1000
"""How far the places of a tag are counted, to begin with the rarest."""

_one: ColumnElement[int] = literal_column("1")
of_tenant: ColumnElement[bool] = events.c.tenant_id == bindparam("tenant_id", type_=Identifier())


class ItemShape(NamedTuple):
    """What the statement of an item depends on."""

    tags: int
    has_types: bool
    has_tenant: bool


def shape_of(types: AbstractSet[Any], tags: AbstractSet[str], tenant_id: UUID | None) -> ItemShape:
    return ItemShape(len(tags), bool(types), tenant_id is not None)


def places_of_item(shape: ItemShape, number: int) -> Select[Any]:
    """The positions of an item's events past ``after``; its parameters end in its number.

    An item with tags begins with the rarest of them, whose places are a range of the index, and looks for each of the
    others at that place. What a scalar subquery finds no database makes a join of, whatever it believes about the tags.
    """
    after = bindparam("after", type_=events.c.global_position.type)
    if shape.tags == 0:
        of_events = [
            *([member_of(events.c.event_type, f"types_{number}")] if shape.has_types else []),
            *([of_tenant] if shape.has_tenant else []),
        ]
        return (
            select(events.c.global_position)
            .where(events.c.global_position > after, *of_events)
            .order_by(events.c.global_position)
        )
    start = event_tags.alias(f"start_{number}")
    conditions: list[ColumnElement[bool]] = []
    tags = [bindparam(f"tag_{number}_{place}", type_=event_tags.c.tag.type) for place in range(shape.tags)]
    for place, tag in enumerate(tags) if shape.tags > 1 else ():
        probe = event_tags.alias(f"probe_{number}_{place}")
        found = select(probe.c.global_position).where(
            probe.c.tag == tag, probe.c.global_position == start.c.global_position
        )
        conditions.append(found.scalar_subquery().is_not(None))
    of = events.alias(f"of_{number}")
    # Always asked for: of a part of the log that was detached the index still tells.
    found = select(of.c.global_position).where(
        of.c.global_position == start.c.global_position,
        *([member_of(of.c.event_type, f"types_{number}")] if shape.has_types else []),
        *([of.c.tenant_id == bindparam("tenant_id", type_=Identifier())] if shape.has_tenant else []),
    )
    conditions.append(found.scalar_subquery().is_not(None))
    return (
        select(start.c.global_position)
        .where(
            *_places_of(start, _rarest(tags, after), after),
            *conditions,
        )
        .order_by(start.c.tag, start.c.global_position)
    )


def _places_of(table: FromClause, tag: Any, after: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The places of a tag past another one, as a range of the index. With equalities PostgreSQL may gather all places of a
    hot tag before it takes the first ones."""
    return tuple_(table.c.tag, table.c.global_position) > tuple_(tag, after), table.c.tag <= tag


def _rarest(tags: list[Any], after: Any) -> Any:
    """The tag with the fewest places past a position, counted up to `COUNTED_PLACES`; SQL."""
    if len(tags) == 1:
        return tags[0]
    given = union_all(*(select(tag.label("tag")) for tag in tags)).subquery("given")
    counted = (
        select(_one.label("one"))
        .select_from(event_tags)
        .where(*_places_of(event_tags, given.c.tag, after))
        .order_by(event_tags.c.tag, event_tags.c.global_position)
        .limit(literal_column(str(COUNTED_PLACES)))
        .offset(literal_column("0"))
        .correlate(given)
        .subquery("counted")
    )
    places = select(func.count()).select_from(counted).correlate(given).scalar_subquery()
    return select(given.c.tag).order_by(places).limit(_one).offset(literal_column("0")).scalar_subquery()


def item_values(number: int, types: AbstractSet[Any], tags: Iterable[str], names: Any) -> dict[str, Any]:
    """The parameters of an item; ``names`` makes the value of a list of names."""
    values: dict[str, Any] = {f"tag_{number}_{place}": tag for place, tag in enumerate(tags)}
    if types:
        values[f"types_{number}"] = names(sorted(types))
    return values


@lru_cache(maxsize=512)
def first_place(shape: ItemShape) -> Statement:
    """The first of an item's places."""
    return Statement(places_of_item(shape, 0).limit(_one).offset(literal_column("0")))


def first_places(shapes: tuple[ItemShape, ...], page: Any) -> Select[Any]:
    """So many of the first places past ``after`` that any of several items has; some come more than once."""
    of_items = (
        places_of_item(shape, number).limit(page).subquery(f"item_{number}")
        for number, shape in enumerate(shapes)
    )
    every = union_all(*(select(item.c.global_position) for item in of_items)).subquery("places")
    return select(every.c.global_position)
