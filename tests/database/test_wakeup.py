"""Waiting for an append."""

import asyncio

import pytest

from esource.database.wakeup import Ear


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_that_comes_together_with_the_call_is_not_lost(steps: int):
    ear = Ear()

    async def wait_twice() -> None:
        await ear.wait(600)
        ear.clear()
        await ear.wait(600)

    waiting = asyncio.create_task(wait_twice())
    for _ in range(3):
        await asyncio.sleep(0)
    ear.call()
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=10)
    assert waiting.cancelled()


async def test_an_ear_waits_no_longer_than_told():
    await Ear().wait(0.001)
