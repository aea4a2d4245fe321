"""Cancelling an append: the events are all there or none, and the store works on."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from support.orders import placed, several

from esource import AppendResult

pytestmark = pytest.mark.awaited


async def test_a_cancelled_append_that_still_waits_is_never_written(store):
    first, waiting, last = placed(), placed(), placed()
    tasks = [
        asyncio.create_task(store.append_events(e.aggregate_id, "Order", [e], 0))
        for e in (first, waiting, last)
    ]
    await asyncio.sleep(0)  # all three are queued; the flusher has not begun
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [e.event_id async for e in store.read_all()] == [first.event_id, last.event_id]
    assert (await store.append_events(waiting.aggregate_id, "Order", [waiting], 0)).idempotent is False


async def test_appends_cancelled_at_random_are_whole_or_absent(store):
    chance = random.Random(15)
    acknowledged, unknown = [], []

    async def write(events):
        try:
            await store.append_events(events[0].aggregate_id, "Order", events, 0)
        except asyncio.CancelledError:
            unknown.append(events)
            raise
        acknowledged.append(events)

    for _ in range(40):
        batches = [several(3) for _ in range(6)]
        tasks = [asyncio.create_task(write(events)) for events in batches]
        for _ in range(chance.randint(1, 12)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 3):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    versions = Counter([e.aggregate_id async for e in store.read_all()])
    assert set(versions.values()) == {3}
    assert all(events[0].aggregate_id in versions for events in acknowledged)
    assert unknown
    for events in unknown:
        again = await store.append_events(events[0].aggregate_id, "Order", events, 0)
        assert again.idempotent == (events[0].aggregate_id in versions)


async def test_a_timeout_leaves_the_store_usable(store):
    events = several(1000)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(store.append_events(events[0].aggregate_id, "Order", events, 0), 0)
    result = await store.append_events(events[0].aggregate_id, "Order", events, 0)
    assert isinstance(result, AppendResult)
    assert await store.get_stream_version(events[0].aggregate_id, "Order") == 1000


async def test_cancelled_questions_leave_the_store_usable(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    for moment in range(20):
        task = asyncio.create_task(store.event_exists(event.event_id))
        for _ in range(moment % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.gather(*(store.event_exists(event.event_id) for _ in range(20))) == [True] * 20
