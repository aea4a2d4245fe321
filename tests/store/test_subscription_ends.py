"""A subscription that is interrupted goes on from its position; one that is closed has let go of everything."""

from __future__ import annotations

import asyncio

import pytest
from support.leaks import check_connections
from support.orders import placed

from esource import EventStore, InvalidOptionError
from esource.store.subscription import Subscription

LONG = 600.0
"""A poll that never comes within a test: whatever arrives was woken up for."""


async def append(store: EventStore, count: int = 1) -> list[int]:
    """Append single events to streams of their own; their positions."""
    events = [placed() for _ in range(count)]
    return [
        (await store.append_events(each.aggregate_id, "Order", [each])).global_position for each in events
    ]


async def is_waiting(subscription: Subscription) -> None:
    """Let a reader come to the end of the log, where it waits."""
    while subscription._waiter is None or not subscription._waiter._called._waiters:
        await asyncio.sleep(0.001)


async def test_a_subscription_that_waits_is_closed_from_another_task(store: EventStore):
    positions = await append(store, 2)
    subscription = store.subscribe(poll_seconds=LONG)
    seen: list[int] = []

    async def read() -> None:
        async for event in subscription:
            seen.append(event.global_position)

    reader = asyncio.create_task(read())
    await is_waiting(subscription)
    await subscription.close()
    await asyncio.wait_for(reader, 10)
    assert seen == positions
    check_connections(store)


@pytest.mark.awaited
async def test_closing_waits_until_the_page_that_is_being_read_has_come(store: EventStore, monkeypatch):
    await append(store, 2)
    database = store._opened.database
    fetch, gate, begun = database.backend.fetch, asyncio.Event(), asyncio.Event()

    async def slow(*arguments, **named):
        begun.set()
        await gate.wait()
        return await fetch(*arguments, **named)

    monkeypatch.setattr(database.backend, "fetch", slow)
    subscription = store.subscribe(poll_seconds=LONG)
    reader = asyncio.create_task(anext(aiter(subscription)))
    await begun.wait()
    closing = asyncio.create_task(subscription.close())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await asyncio.wait_for(closing, 10)
    check_connections(store)
    assert isinstance((await asyncio.gather(reader, return_exceptions=True))[0], StopAsyncIteration)


@pytest.mark.awaited
async def test_a_reader_that_waited_too_long_goes_on_where_it_was(store: EventStore):
    [first] = await append(store)
    async with store.subscribe(poll_seconds=LONG) as subscription:
        assert (await anext(subscription)).global_position == first
        for _ in range(3):
            waiting = asyncio.create_task(anext(subscription))
            await is_waiting(subscription)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        later = await append(store, 2)
        assert [(await asyncio.wait_for(anext(subscription), 30)).global_position for _ in later] == later


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.awaited
async def test_a_reader_that_is_cancelled_at_any_step_misses_nothing(store: EventStore, steps: int):
    positions = await append(store, 3)
    seen: list[int] = []
    async with store.subscribe(poll_seconds=LONG) as subscription:
        while len(seen) < 3:
            task = asyncio.create_task(anext(subscription))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                seen.append((await task).global_position)
            except asyncio.CancelledError:
                steps += 1
    assert seen == positions
    check_connections(store)


@pytest.mark.slow
async def test_a_subscription_goes_on_after_an_error_of_the_database(store: EventStore, monkeypatch):
    positions = await append(store, 2)
    database = store._opened.database
    fetch = database.backend.fetch

    async def failing(*arguments, **named):
        raise OSError(5, "a cable was pulled")

    async with store.subscribe(poll_seconds=LONG) as subscription:
        assert (await anext(subscription)).global_position == positions[0]
        assert (await anext(subscription)).global_position == positions[1]
        monkeypatch.setattr(database.backend, "fetch", failing)
        with pytest.raises(Exception, match="a cable was pulled"):
            await anext(subscription)
        monkeypatch.setattr(database.backend, "fetch", fetch)
        later = await append(store)
        assert [(await asyncio.wait_for(anext(subscription), 30)).global_position] == later


async def test_a_second_reader_of_one_subscription_is_refused(store: EventStore):
    async with store.subscribe(poll_seconds=LONG) as subscription:
        waiting = asyncio.create_task(anext(subscription))
        await is_waiting(subscription)
        with pytest.raises(InvalidOptionError, match="another task"):
            await anext(subscription)
        await append(store)
        await asyncio.wait_for(waiting, 30)


async def test_a_closed_subscription_hands_over_no_more(store: EventStore):
    await append(store, 3)
    subscription = store.subscribe(poll_seconds=LONG)
    await anext(subscription)
    await subscription.close()
    await subscription.close()
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)
    assert not (await subscription.health()).is_running
    check_connections(store)


async def test_an_error_in_the_block_is_in_the_subscriptions_health(store: EventStore):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    subscription = store.subscribe(from_position=0)
    with pytest.raises(LookupError):
        async with subscription:
            async for _ in subscription:
                raise LookupError("no such customer")
    health = subscription.health_now()
    assert (health.failures, health.last_error) == (1, "LookupError: no such customer")
