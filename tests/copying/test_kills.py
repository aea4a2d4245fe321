"""A copy survives SIGKILL at any moment. ``ESOURCE_TEST_KILLS=20`` kills more often than the two times here."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from orders import several

from copying.conftest import Pair, fill
from esource import CheckpointRepository, copying

WORKER = Path(__file__).with_name("worker.py")
KILLS = int(os.environ.get("ESOURCE_TEST_KILLS", "2"))


async def start(pair: Pair) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), *pair, stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.slow
async def test_a_copy_that_is_killed_goes_on_where_it_was(pair: Pair, open_stores):
    chance = random.Random(20)
    source = await open_stores(pair.source)
    await fill(source)
    kills = last = rounds = 0
    while kills < KILLS:
        # Something new each time, so that each copy has work to be killed in.
        for _ in range(12):
            [first, *_] = events = several(50)
            await source.append_events(first.aggregate_id, "Order", events, 0)
            await CheckpointRepository(source).save_position(str(uuid4()), 1, uuid4(), "OrderPlaced")
        rounds += 1
        process = await start(pair)
        for _ in range(chance.randrange(1, 10)):
            if not await process.stdout.readline():
                break
        await asyncio.sleep(chance.random() / 100)
        if process.returncode is None:
            process.kill()
            kills += 1
        await process.communicate()
        position = await (await open_stores(pair.target)).get_global_position()
        assert position >= last, "what was copied is gone"
        last = position
    process = await start(pair)
    await process.communicate()
    assert process.returncode == 0
    found = await copying.verify_copy(*pair)
    assert found.is_identical, found.differences
    assert found.events == 18 + 600 * rounds
