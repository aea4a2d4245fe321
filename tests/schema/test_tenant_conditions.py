"""Conditions of appends by a role that is bound to one tenant: it judges by what it sees."""

from __future__ import annotations

from typing import Annotated

import pytest
from support.tenants import BLUE, RED

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    OptimisticLockError,
    Query,
    QueryItem,
    Tag,
    register_event,
)


@register_event
class DeskTaken(DomainEvent):
    desk: Annotated[str, Tag("desk")]


def free(desk: str, after: int = 0) -> AppendCondition:
    return AppendCondition(Query(QueryItem(tags=[f"desk:{desk}"])), after)


def taken(desk: str) -> list[DeskTaken]:
    return [DeskTaken(desk=desk, tenant_id=RED)]


@pytest.fixture(params=["as it is", "bound to the tenant"])
async def red(request, red_url, open_stores):
    store = await open_stores(red_url)
    return store if request.param == "as it is" else store.for_tenant(RED)


async def test_what_others_have_is_in_nobodys_way_and_its_own_is(red, owner):
    await owner.for_tenant(BLUE).append([DeskTaken(desk="1")])
    found = await red.read_query(Query(QueryItem([DeskTaken])))
    assert found.events == []
    first = await red.append(taken("1"), condition=free("1"))
    for condition in (free("1"), found.condition, free("1", after=first.global_position - 1)):
        with pytest.raises(
            AppendConditionError, match=f"DeskTaken at global position {first.global_position}"
        ):
            await red.append(taken("2"), condition=condition)
    async with red.transaction() as transaction:
        with pytest.raises(AppendConditionError):
            await transaction.append(taken("2"), condition=free("1"))
        await transaction.append(taken("2"), condition=free("2"))
    assert [stored.event.desk for stored in (await red.read_query(Query(QueryItem([DeskTaken])))).events] == [
        "1",
        "2",
    ]
    assert len((await owner.read_query(Query(QueryItem([DeskTaken])))).events) == 3


async def test_streams_of_others_are_as_if_they_were_not_there(red, owner):
    theirs = [stored async for stored in owner.for_tenant(BLUE).read_all()][-1]
    stream = theirs.aggregate_id, theirs.aggregate_type
    assert await red.append(taken("1"), condition=AppendCondition(streams={stream: 0}))
    with pytest.raises(OptimisticLockError):
        held = AppendCondition(streams={stream: theirs.stream_position})
        await red.append(taken("2"), condition=held)
