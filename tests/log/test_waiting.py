"""Waiting for a position of the log."""

import asyncio

import pytest
from support.orders import placed

from esource.errors import InvalidOptionError, PositionNotReachedError


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


async def test_a_position_that_is_reached_is_not_waited_for(store):
    result = await append_one(store)
    assert await store.wait_for_position(result.global_position, timeout_seconds=0) == result.global_position
    await append_one(store)
    assert await store.wait_for_position(1, timeout_seconds=0) == 2
    assert await store.wait_for_position(0, timeout_seconds=0) == 2


async def test_a_position_is_waited_for_until_somebody_appends(
    shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    waiting = asyncio.create_task(shared_store.wait_for_position(2, timeout_seconds=20))
    await append_one(other)
    assert not waiting.done()
    await append_one(other)
    assert await waiting == 2


async def test_a_position_that_does_not_come_is_an_error_that_says_how_far_the_log_is(store):
    await append_one(store)
    with pytest.raises(PositionNotReachedError, match="at position 1, not yet at 5") as late:
        await store.wait_for_position(5, timeout_seconds=0.05)
    assert (late.value.position, late.value.found) == (5, 1)
    assert isinstance(late.value, TimeoutError)


async def test_a_bound_store_waits_for_the_whole_log(store):
    tenant = placed().event_id
    result = await append_one(store)
    assert await store.for_tenant(tenant).wait_for_position(result.global_position, timeout_seconds=0) == 1


@pytest.mark.parametrize(("position", "timeout"), [(-1, 1.0), (1, -1.0), (1, float("nan")), (1.5, 1.0)])
async def test_what_cannot_be_waited_for_is_refused(store, position, timeout):
    with pytest.raises(InvalidOptionError):
        await store.wait_for_position(position, timeout_seconds=timeout)
