"""Conditions of appends by a role that is bound to one tenant: it judges by what it sees."""

from __future__ import annotations

from typing import Annotated

import pytest
from support.schemas import execute
from support.tenants import BLUE, RED

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    OptimisticLockError,
    Query,
    QueryItem,
    ReadOptions,
    Tag,
    register_event,
)

READ = "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables WHERE relname IN ('events', 'event_tags')"


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


async def test_a_tag_that_many_tenants_share_is_looked_up_among_its_own_events(red, owner, postgres_url):
    await execute(
        postgres_url,
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, payload, tags) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'Desk', 'DeskTaken', "  # noqa: S608 - our own constants
        f"CASE WHEN n % 500 = 0 THEN CAST('{RED}' AS uuid) ELSE CAST('{BLUE}' AS uuid) END, 1, now(), "
        """'{"desk": "1"}', '["country:de", "desk:1"]' FROM generate_series(1, 5000) AS n""",
    )
    await execute(postgres_url, "VACUUM ANALYZE events, event_tags")
    hot, both = QueryItem([DeskTaken], ["country:de"]), QueryItem(tags=["country:de", "desk:1"])
    for query in (Query(hot), Query(both), Query(hot, both)):
        async with red.reading() as connection:
            before = (await connection.exec_driver_sql(READ)).scalar_one()
            assert len((await red.read_query(query)).events) == 10
            assert len([stored async for stored in red.read_all(ReadOptions(query=query))]) == 10
            # Of the tenant's 13 events, each looked at some times. 5 000 have the tag.
            assert (await connection.exec_driver_sql(READ)).scalar_one() - before < 1000
