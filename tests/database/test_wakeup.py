"""Waiting for an append."""

import asyncio

import pytest
from support.read_models import until
from support.schemas import rows

from esource.database.wakeup import Waiter, WakeUp


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_comes_together_with_the_call_is_not_lost(steps: int):
    waiter = Waiter()

    async def wait_twice() -> None:
        await waiter.wait(600)
        waiter.clear()
        await waiter.wait(600)

    waiting = asyncio.create_task(wait_twice())
    for _ in range(3):
        await asyncio.sleep(0)
    waiter.call()
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=10)
    assert waiting.cancelled()


async def test_an_ear_waits_no_longer_than_told():
    await Waiter().wait(0.001)


async def test_a_watch_that_comes_to_its_end_late_leaves_the_next_one_as_it_is():
    release = asyncio.Event()

    async def watch(watched: WakeUp) -> None:
        watched.begin()
        watched.cover(frozenset({"mails"}))
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    wake_up = WakeUp(watch)
    with wake_up.listening():
        await until(lambda: wake_up.is_watching)
    with wake_up.listening():
        await until(lambda: wake_up._watcher is not None)
        await asyncio.sleep(0)  # the next one has begun
        assert wake_up._ending
        release.set()
        await wake_up.settle()
        assert wake_up.covers(frozenset({"mails"}))
    await wake_up.close()
    assert not wake_up.is_watching


@pytest.mark.parametrize("turns", range(1, 6))
async def test_a_watch_that_is_cancelled_while_it_ends_leaves_no_lock_and_no_listener(
    postgres_url: str, open_stores, turns: int
):
    store = await open_stores(postgres_url)
    database = store._opened.database
    with database.wake_up.listening(frozenset({"mails"})):
        await until(lambda: database.wake_up.covers(frozenset({"mails"})))
        watcher = database.wake_up._watcher
        watcher.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        watcher.cancel()  # as a program does that cancels all its tasks
    await database.wake_up.settle()
    await asyncio.wait([watcher])
    advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    while await rows(postgres_url, advisory) != [(0,)]:  # the server takes a moment to end a session
        await asyncio.sleep(0)
    async with store.transaction() as transaction:
        channels = await transaction.connection.exec_driver_sql("SELECT pg_listening_channels()")
        assert channels.all() == []
