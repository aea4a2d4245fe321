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
    case,
    false,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from esource.tables.constructs import hides_rows, member_of
from esource.tables.model import event_tags, events
from esource.tables.statement import Statement
from esource.tables.types import Identifier

COUNTED_PLACES = 1000
"""How far the places of a tag are counted, to begin with the rarest."""

TENANTS_EVENTS = 10_000
"""Of a tag that has more places than are counted, those of a tenant with fewer events than this are looked for among these."""

_one: ColumnElement[int] = literal_column("1")
_tenant = bindparam("tenant_id", type_=Identifier())
of_tenant: ColumnElement[bool] = events.c.tenant_id == _tenant


class ItemShape(NamedTuple):
    """What the statement of an item depends on."""

    tags: int
    has_types: bool
    has_tenant: bool


def shape_of(types: AbstractSet[Any], tags: AbstractSet[str], tenant_id: UUID | None) -> ItemShape:
    return ItemShape(len(tags), bool(types), tenant_id is not None)


def places_of_item(shape: ItemShape, number: int, page: Any) -> Select[Any]:
    """So many of the first positions of an item's events past ``after``; its parameters end in its number.

    An item with tags begins with the rarest of them, whose places are a range of the index, and looks for each of the
    others at that place. What a scalar subquery finds no database makes a join of, whatever it believes about the tags.
    Where many tenants share all of its tags, and its tenant has few events, it begins with these.
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
            .limit(page)
        )
    start = event_tags.alias(f"start_{number}")
    tags = [bindparam(f"tag_{number}_{place}", type_=event_tags.c.tag.type) for place in range(shape.tags)]
    conditions = [_has(tag, start.c.global_position) for tag in tags] if shape.tags > 1 else []
    of = events.alias(f"of_{number}")
    # Always asked for: of a part of the log that was detached the index still tells.
    found = select(of.c.global_position).where(
        of.c.global_position == start.c.global_position,
        *([member_of(of.c.event_type, f"types_{number}")] if shape.has_types else []),
        *([of.c.tenant_id == _tenant] if shape.has_tenant else []),
    )
    conditions.append(found.scalar_subquery().is_not(None))
    rarest = _rarest(tags, after)
    # Where it begins with the tenant, the other way begins with NULL, of which there is nothing to walk; and vice versa.
    shared = _is_shared(tags, after) if shape.has_tenant else None
    by_tag = (
        select(start.c.global_position)
        .where(*_places_of(start, rarest if shared is None else case((~shared, rarest)), after), *conditions)
        .order_by(start.c.tag, start.c.global_position)
        .limit(page)
    )
    if shared is None:
        return by_tag
    # Behind OFFSET no planner walks the whole log for them, in its order.
    own = (
        select(events.c.global_position, events.c.event_type)
        .where(events.c.tenant_id == case((shared, _tenant)), events.c.global_position > after)
        .offset(literal_column("0"))
        .subquery(f"own_{number}")
    )
    by_tenant = (
        select(own.c.global_position)
        .where(
            *([member_of(own.c.event_type, f"types_{number}")] if shape.has_types else []),
            *(_has(tag, own.c.global_position) for tag in tags),
        )
        .order_by(own.c.global_position)
        .limit(page)
    )
    either = union_all(*(select(way.subquery().c.global_position) for way in (by_tag, by_tenant))).subquery()
    return select(either.c.global_position).order_by(either.c.global_position).limit(page)


def _has(tag: Any, position: Any) -> ColumnElement[bool]:
    """Whether the event at a position has a tag."""
    probe = event_tags.alias()
    found = select(probe.c.global_position).where(probe.c.tag == tag, probe.c.global_position == position)
    return found.scalar_subquery().is_not(None)


def _is_shared(tags: list[Any], after: Any) -> ColumnElement[bool]:
    """Whether each of the tags has many places past a position, and the tenant few events."""
    few = (
        select(_one.label("one"))
        .select_from(events)
        .where(of_tenant, events.c.global_position > after)
        .limit(literal_column(str(TENANTS_EVENTS)))
        .offset(literal_column("0"))
        .subquery()
    )
    counts = [select(func.count()).select_from(_counted(tag, after)).scalar_subquery() for tag in tags]
    return case(
        (hides_rows(literal_column("'event_tags'")), false()),  # how often others have the tag is hidden, too
        *((count < COUNTED_PLACES, false()) for count in counts),
        else_=select(func.count() < TENANTS_EVENTS).select_from(few).scalar_subquery(),
    )


def _counted(tag: Any, after: Any, correlated: FromClause | None = None) -> FromClause:
    """Places of a tag past a position, `COUNTED_PLACES` at most."""
    found = (
        select(_one.label("one"))
        .select_from(event_tags)
        .where(*_places_of(event_tags, tag, after))
        .order_by(event_tags.c.tag, event_tags.c.global_position)
        .limit(literal_column(str(COUNTED_PLACES)))
        .offset(literal_column("0"))
    )
    return (found if correlated is None else found.correlate(correlated)).subquery()


def _places_of(table: FromClause, tag: Any, after: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The places of a tag past another one, as a range of the index. With equalities PostgreSQL may gather all places of a
    hot tag before it takes the first ones."""
    return tuple_(table.c.tag, table.c.global_position) > tuple_(tag, after), table.c.tag <= tag


def _rarest(tags: list[Any], after: Any) -> Any:
    """The tag with the fewest places past a position, counted up to `COUNTED_PLACES`; SQL."""
    if len(tags) == 1:
        return tags[0]
    given = union_all(*(select(tag.label("tag")) for tag in tags)).subquery("given")
    counted = _counted(given.c.tag, after, given)
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
    return Statement(places_of_item(shape, 0, _one).offset(literal_column("0")))


def first_places(shapes: tuple[ItemShape, ...], page: Any) -> Select[Any]:
    """So many of the first places past ``after`` that any of several items has; some come more than once."""
    of_items = (
        places_of_item(shape, number, page).subquery(f"item_{number}") for number, shape in enumerate(shapes)
    )
    every = union_all(*(select(item.c.global_position) for item in of_items)).subquery("places")
    return select(every.c.global_position)
