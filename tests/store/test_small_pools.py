"""A small pool of the application's keeps a connection for the application, also while a subscription follows."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed

from esource import EventStore
from esource.database.database import Database


async def append(store: EventStore) -> int:
    event = placed()
    return (await store.append_events(event.aggregate_id, "Order", [event])).global_position


@pytest.mark.parametrize("size", [2, 3])
async def test_a_subscription_leaves_the_application_a_connection(shared_database_url, open_stores, size):
    url = (await open_stores(shared_database_url))._opened.database.connections.engine.url
    engine = create_async_engine(url, pool_size=size, max_overflow=0, pool_timeout=5)
    try:
        async with EventStore(Database.from_engine(engine), enable_tracing=False) as store:
            async with store.subscribe(poll_seconds=0.05) as subscription:
                position = await append(store)
                assert (await anext(subscription)).global_position == position
                waiting = asyncio.create_task(anext(subscription))
                for _ in range(200):
                    await asyncio.sleep(0.001)
                async with engine.connect() as connection:
                    assert (await connection.execute(text("SELECT 1"))).scalar() == 1
                position = await append(store)
                assert (await asyncio.wait_for(waiting, 30)).global_position == position
    finally:
        await engine.dispose()
