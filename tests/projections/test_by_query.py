"""Subscriptions and projections that follow a query: all that it selects, nothing else, and their checkpoint moves on."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import OrderPlaced, OrderShipped, placed
from support.read_models import running

from esource import (
    CheckpointRepository,
    InvalidOptionError,
    Projection,
    ProjectionRunner,
    Query,
    QueryItem,
    handles,
)

RED = Query(QueryItem(tags=["red"]))


class RedOrders(Projection):
    selects = Query(QueryItem(tags=["red"]), QueryItem(types=[OrderShipped], tags=["blue"]))
    progress = "after_event"

    def __init__(self) -> None:
        self.seen: list[str] = []

    @handles(OrderPlaced)
    async def placed(self, event, context):
        self.seen.append(event.customer_id)


async def append(store, *tags: str, customer: str) -> None:
    event = placed(customer_id=customer)
    await store.append([event], tags=tags)


async def test_a_subscription_hands_over_what_its_query_selects_first_stored_then_live(store):
    for number in range(5):
        await append(store, *(["red"] if number % 2 else []), customer=str(number))
    async with store.subscribe(query=RED) as subscription:
        assert [(await anext(subscription)).event.customer_id for _ in range(2)] == ["1", "3"]
        waiting = asyncio.ensure_future(anext(subscription))
        await append(store, "blue", customer="no")
        await append(store, "red", customer="live")
        assert (await waiting).event.customer_id == "live"


async def test_its_checkpoint_moves_past_what_the_query_left_out(store):
    await append(store, "red", customer="1")
    for _ in range(5):
        await append(store, customer="no")
    async with store.subscribe(query=RED, checkpoint="reds", live=False) as subscription:
        async for _ in subscription:
            await subscription.save()
    assert await CheckpointRepository(store).get_position("reds") == 6


async def test_a_tenants_subscription_sees_its_own(store):
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    await append(red, "red", customer="r")
    await append(blue, "red", customer="b")
    found = [s.event.customer_id async for s in blue.subscribe(query=RED, live=False)]
    assert found == ["b"]


async def test_a_query_and_other_filters_exclude_each_other(store):
    for filters in ({"event_types": [OrderPlaced]}, {"aggregate_types": ["Order"]}):
        with pytest.raises(InvalidOptionError, match="exclude each other"):
            store.subscribe(query=RED, **filters)


async def test_a_projection_handles_what_its_query_selects_of_the_events_it_has_handlers_for(store):
    await asyncio.gather(
        *(append(store, "red" if n % 7 == 0 else "blue", customer=str(n)) for n in range(700))
    )
    projection = RedOrders()
    runner = ProjectionRunner(store, projection)
    async with running(runner):
        await store.wait_for(700, projection="RedOrders", timeout=60)
    assert projection.seen == [stored.event.customer_id for stored in (await store.read_query(RED)).events]
