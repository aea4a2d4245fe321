"""The statements behind a query: where the events of one item are, in the order of the log."""

from __future__ import annotations

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

from esource.tables.constructs import each_of, member_of
from esource.tables.model import event_tags, events
from esource.tables.statement import Statement
from esource.tables.types import Identifier

COUNTED_PLACES = 1000
"""How far the places of a tag are counted, to begin with the rarest."""

TENANTS_EVENTS = 10_000
"""Of a tag that has more places than are counted, those of a tenant with fewer events than this are looked for among these."""

HIDDEN_EVENTS = 1000
"""The same where row-level security hides how many places a tag has: a rare tag costs no more than so many lookups."""

_one: ColumnElement[int] = literal_column("1")
_zero: ColumnElement[int] = literal_column("0")
_tenant = bindparam("tenant_id", type_=Identifier())
of_tenant: ColumnElement[bool] = events.c.tenant_id == _tenant


class ItemShape(NamedTuple):
    """What the statement of an item depends on: not on how many tags or types there are."""

    tags: int
    """0, 1, or 2 for any other number."""
    has_types: bool
    has_tenant: bool
    is_hidden: bool = False
    """Whether row-level security may hide how often others have a tag."""

    @property
    def tenant(self) -> Any:
        """Whose events are wanted, as SQL; None: those of all."""
        if self.has_tenant:
            return _tenant
        return select(func.esource_tenant(type_=Identifier())).scalar_subquery() if self.is_hidden else None


def shape_of(types: AbstractSet[Any], tags: AbstractSet[str], tenant_id: UUID | None) -> ItemShape:
    return ItemShape(min(len(tags), 2), bool(types), tenant_id is not None)


def places_of_item(shape: ItemShape, number: int, page: Any) -> Select[Any]:
    """So many of the first positions of an item's events past ``after``; its parameters end in its number.

    An item with tags begins with the rarest of them, whose places are a range of the index, and looks for each of the
    others at that place. What a scalar subquery finds no database makes a join of, whatever it believes about the tags.
    Where many tenants share all of its tags, and its tenant has few events, it begins with these.
    """
    after = bindparam("after", type_=events.c.global_position.type)

    def of_item(table: FromClause) -> list[ColumnElement[bool]]:
        return [
            *([member_of(table.c.event_type, f"types_{number}")] if shape.has_types else []),
            *([table.c.tenant_id == _tenant] if shape.has_tenant else []),
        ]

    if shape.tags == 0:
        return (
            select(events.c.global_position)
            .where(events.c.global_position > after, *of_item(events))
            .order_by(events.c.global_position)
            .limit(page)
        )
    start, of = event_tags.alias(f"start_{number}"), events.alias(f"of_{number}")
    # Always asked for: of a part of the log that was detached the index still tells.
    found = select(of.c.global_position).where(of.c.global_position == start.c.global_position, *of_item(of))
    by_tag = (
        select(start.c.global_position).order_by(start.c.tag, start.c.global_position).limit(page)
    ).where(found.scalar_subquery().is_not(None))
    tenant = shape.tenant
    if shape.tags == 1 and tenant is None:
        return by_tag.where(*_places_of(start, _tag(number), after))
    # Looked for once, although it is asked for twice.
    begin = _beginning(shape, number, after).cte(f"begin_{number}").prefix_with("MATERIALIZED")
    rarest = select(begin.c.tag).scalar_subquery()
    by_tag = by_tag.where(*_places_of(start, rarest, after))
    if shape.tags > 1:
        by_tag = by_tag.where(_has_all(shape, number, start.c.global_position))
    if tenant is None:
        return by_tag.add_cte(begin, nest_here=True)
    # Behind OFFSET no planner walks the whole log for them, in its order.
    own = (
        select(events.c.global_position, events.c.event_type, events.c.tenant_id)
        .where(
            events.c.tenant_id == select(begin.c.tenant_id).scalar_subquery(),
            events.c.global_position > after,
        )
        .offset(_zero)
        .subquery(f"own_{number}")
    )
    by_tenant = (
        select(own.c.global_position)
        .where(*of_item(own), _has_all(shape, number, own.c.global_position))
        .order_by(own.c.global_position)
        .limit(page)
    )
    either = union_all(*(select(way.subquery().c.global_position) for way in (by_tag, by_tenant))).subquery()
    return (
        select(either.c.global_position)
        .order_by(either.c.global_position)
        .limit(page)
        .add_cte(begin, nest_here=True)
    )


def _beginning(shape: ItemShape, number: int, after: Any) -> Select[Any]:
    """Where to begin: with a tag, or with the events of the tenant. The other is NULL, of which there is nothing to walk."""
    tag = _rarest(shape, number, after)
    tenant = shape.tenant
    if tenant is None:
        return select(tag.label("tag"))
    decided = (
        select(_is_shared(shape, number, after).label("is_shared"))
        .offset(_zero)
        .subquery(f"decided_{number}")
    )
    is_shared = decided.c.is_shared
    return select(
        case((is_shared, None), else_=tag).label("tag"), case((is_shared, tenant)).label("tenant_id")
    ).select_from(decided)


def _tag(number: int) -> Any:
    """The only tag of an item."""
    return bindparam(f"tag_{number}", type_=event_tags.c.tag.type)


def _tags(shape: ItemShape, number: int) -> FromClause:
    """The tags of an item, as a table."""
    if shape.tags == 1:
        return select(_tag(number).label("value")).subquery(f"given_{number}")
    return each_of(f"tags_{number}").table_valued("value", name=f"given_{number}")


def _has_all(shape: ItemShape, number: int, position: Any) -> ColumnElement[bool]:
    """Whether the event at a position has all tags of an item."""
    given, probe = _tags(shape, number), event_tags.alias()
    found = (
        select(probe.c.global_position)
        .where(probe.c.tag == given.c.value, probe.c.global_position == position)
        .correlate(given, position.table)
    )
    return ~_any_of(given, found.scalar_subquery().is_(None), position.table)


def _any_of(given: FromClause, condition: ColumnElement[bool], *of: FromClause) -> ColumnElement[bool]:
    """Whether one of the tags is such."""
    found = select(_one).select_from(given).where(condition).limit(_one).offset(_zero).correlate(*of)
    return found.scalar_subquery().is_not(None)


def _is_shared(shape: ItemShape, number: int, after: Any) -> ColumnElement[bool]:
    """Whether each of the tags has many places past a position, and the tenant few events. Where it is hidden how often
    others have a tag, they may have it as often as they like."""

    def has_fewer(most: int) -> ColumnElement[bool]:
        own = (
            select(_one.label("one"))
            .select_from(events)
            .where(events.c.tenant_id == shape.tenant, events.c.global_position > after)
            .limit(literal_column(str(most)))
            .offset(_zero)
            .subquery()
        )
        return select(func.count() < literal_column(str(most))).select_from(own).scalar_subquery()

    if shape.is_hidden:
        return case((shape.tenant.is_(None), false()), else_=has_fewer(HIDDEN_EVENTS))
    given = _tags(shape, number)
    is_rare = _count(given, after) < literal_column(str(COUNTED_PLACES))
    return case((_any_of(given, is_rare), false()), else_=has_fewer(TENANTS_EVENTS))


def _count(given: FromClause, after: Any) -> ColumnElement[int]:
    """Places of a tag past a position, `COUNTED_PLACES` at most."""
    counted = (
        select(_one.label("one"))
        .select_from(event_tags)
        .where(*_places_of(event_tags, given.c.value, after))
        .order_by(event_tags.c.tag, event_tags.c.global_position)
        .limit(literal_column(str(COUNTED_PLACES)))
        .offset(_zero)
        .correlate(given)
        .subquery()
    )
    return select(func.count()).select_from(counted).correlate(given).scalar_subquery()


def _places_of(table: FromClause, tag: Any, after: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """The places of a tag past another one, as a range of the index. With equalities PostgreSQL may gather all places of a
    hot tag before it takes the first ones."""
    return tuple_(table.c.tag, table.c.global_position) > tuple_(tag, after), table.c.tag <= tag


def _rarest(shape: ItemShape, number: int, after: Any) -> Any:
    """The tag with the fewest places past a position, counted up to `COUNTED_PLACES`; SQL."""
    if shape.tags == 1:
        return _tag(number)
    given = _tags(shape, number)
    places = _count(given, after)
    return select(given.c.value).order_by(places).limit(_one).offset(_zero).scalar_subquery()


def item_values(number: int, types: AbstractSet[Any], tags: AbstractSet[str], names: Any) -> dict[str, Any]:
    """The parameters of an item; ``names`` makes the value of a list of names."""
    values: dict[str, Any] = {}
    if len(tags) == 1:
        [values[f"tag_{number}"]] = tags
    elif tags:
        values[f"tags_{number}"] = names(sorted(tags))
    if types:
        values[f"types_{number}"] = names(sorted(types))
    return values


@lru_cache(maxsize=512)
def first_place(shape: ItemShape) -> Statement:
    """The first of an item's places."""
    return Statement(places_of_item(shape, 0, _one).offset(_zero))


def first_places(shapes: tuple[ItemShape, ...], page: Any) -> Select[Any]:
    """So many of the first places past ``after`` that any of several items has; some come more than once."""
    of_items = (
        places_of_item(shape, number, page).subquery(f"item_{number}") for number, shape in enumerate(shapes)
    )
    every = union_all(*(select(item.c.global_position) for item in of_items)).subquery("places")
    return select(every.c.global_position)
