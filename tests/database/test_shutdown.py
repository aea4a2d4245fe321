"""A program that shuts down cancels all its tasks, ours among them: nobody hangs, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from support.leaks import check_connections
from support.orders import placed

from esource import EventStore
from esource.database.cancellation import uninterrupted


def cancel_everybody_else() -> set[asyncio.Task[Any]]:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return others


async def append(store: EventStore) -> None:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)


def survivor(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that a shutdown does not cancel, as a program has some that it wants to come to their end."""
    task = asyncio.get_running_loop().create_task(work)
    asyncio._unregister_task(task)
    return task


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_appends_of_callers_that_go_on_are_written_although_all_tasks_were_cancelled(
    store: EventStore, turns: int
):
    for _ in range(3):
        await append(store)
    survivors = [survivor(append(store)) for _ in range(30)]
    for _ in range(turns):
        await asyncio.sleep(0)
    for _ in range(3):
        cancel_everybody_else()
        await asyncio.sleep(0)
    await asyncio.gather(*survivors)
    assert len([stored async for stored in store.read_all()]) == 33
    await append(store)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_closing_ends_after_all_tasks_were_cancelled(shared_store: EventStore, turns: int):
    store = shared_store
    acknowledged = []

    async def write() -> None:
        while True:
            event = placed()
            await store.append_events(event.aggregate_id, "Order", [event], 0)
            acknowledged.append(event.event_id)

    async def transact() -> None:
        while True:
            async with store.transaction() as tx:
                event = placed()
                await tx.append_events(event.aggregate_id, "Order", [event], 0)
            acknowledged.append(event.event_id)

    async def read() -> None:
        while True:
            async for _ in store.read_all():
                await asyncio.sleep(0)

    async def follow() -> None:
        async with store.subscribe() as events:
            async for _ in events:
                pass

    tasks = [asyncio.create_task(work()) for work in (write, write, write, transact, transact, read, follow)]
    while len(acknowledged) < 10:
        await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    cancel_everybody_else()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.close()
    await store.open()
    stored = {event.event_id async for event in store.read_all()}
    assert stored.issuperset(acknowledged), "an acknowledged append is lost"


async def test_a_watch_that_was_cancelled_begins_anew_for_a_subscription_that_goes_on(
    shared_store: EventStore, shared_database_url: str, open_stores
):
    other = await open_stores(shared_database_url)
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def follow() -> None:
        async with shared_store.subscribe(poll_seconds=3600) as events:
            async for event in events:
                seen.put_nowait(event)

    following = survivor(follow())
    wake_up = shared_store._opened.database.wake_up
    while not wake_up.is_watching:
        await asyncio.sleep(0.001)
    for _ in range(3):
        for task in cancel_everybody_else():
            with suppress(asyncio.CancelledError):
                await task
        while not wake_up.is_watching:
            await asyncio.sleep(0.001)
        await append(other)
        await seen.get()
    assert not following.done()
    following.cancel()
    await asyncio.wait([following])


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_readers_leave_no_connection_out(store: EventStore, seed: int):
    await store.append_events((first := placed()).aggregate_id, "Order", [first])
    stream = placed().aggregate_id
    for _ in range(3):
        await store.append_events(stream, "Order", [placed(stream) for _ in range(500)])

    async def read() -> None:
        async for _ in store.read_all():
            pass

    for moment in range(40):
        task = asyncio.create_task(read())
        for _ in range(moment * 3 + seed):
            await asyncio.sleep(0)
        cancel_everybody_else()
        await asyncio.gather(task, return_exceptions=True)
        check_connections(store)


async def test_a_commit_is_not_stopped_by_a_shutdown(store: EventStore):
    for turns in range(30):
        event = placed()

        async def transact(event=event) -> None:
            async with store.transaction() as tx:
                await tx.append_events(event.aggregate_id, "Order", [event], 0)

        task = asyncio.create_task(transact())
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(3):
            cancel_everybody_else()
            await asyncio.sleep(0)
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        version = await store.get_stream_version(event.aggregate_id, "Order")
        assert version in ((1,) if ended is None else (0, 1))
        check_connections(store)
        await append(store)


async def test_a_time_limit_inside_what_is_not_interrupted_ends_that_and_not_its_caller():
    async def limited() -> str:
        try:
            if sys.version_info < (3, 11):
                await asyncio.wait_for(asyncio.Event().wait(), 0.001)
            else:
                async with asyncio.timeout(0.001):  # in its first step
                    await asyncio.Event().wait()
        except asyncio.TimeoutError:
            return "limited"
        return "endless"

    assert await asyncio.wait_for(uninterrupted(limited()), 60) == "limited"
