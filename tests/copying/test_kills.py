"""A copy survives SIGKILL at any moment. ``ESOURCE_TEST_EFFORT=10`` kills twenty times."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from support.effort import examples
from support.orders import several
from support.pairs import Pair, fill
from support.tally import Tally, chance

from esource import CheckpointRepository, copying

WORKER = Path(__file__).parents[1] / "support" / "copy_worker.py"
KILLS = examples(2)


async def start(pair: Pair) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), *pair, stdout=asyncio.subprocess.PIPE
    )


@pytest.mark.slow
async def test_a_copy_that_is_killed_goes_on_where_it_was(pair: Pair, open_stores):
    draw = chance("copy killed")
    tally = Tally("SIGKILL of a copy", " to ".join(url.split(":")[0] for url in pair))
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
        for _ in range(draw.randrange(1, 10)):
            if not await process.stdout.readline():
                break
        await asyncio.sleep(draw.random() / 100)
        if process.returncode is None:
            process.kill()
            kills += 1
            tally.injected += 1
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
    tally.written = found.events
    tally.conclude()
