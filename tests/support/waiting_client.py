"""A process for the tests that kill workers: appends, waits for the projection, and looks with a new connection.

Called with the database's URL. Each line that it prints is the position of an event whose effect was there after the wait;
anything else is a broken promise. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys

from esource import open_store
from esource.errors import CheckpointNotReachedError
from support.orders import placed
from support.projection_worker import Totals
from support.schemas import rows

SECONDS = 60.0


async def work(url: str) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    options = {"busy_timeout": 30_000, "synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, **options) as store:
        while not ended.done():
            event = placed()
            result = await store.append_events(event.aggregate_id, "Order", [event])
            began = loop.time()
            try:
                await store.wait_for(result, projection=Totals, timeout=SECONDS)
            except CheckpointNotReachedError as error:
                print(f"late: {error}", flush=True)
            if loop.time() - began > SECONDS + 10:
                print(f"hung for {loop.time() - began} s", flush=True)
            found = await rows(url, f"SELECT positions FROM totals WHERE order_id = '{event.aggregate_id}'")
            wanted = [(str(result.global_position),)]
            print(result.global_position if found == wanted else f"early: {found}, not {wanted}", flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
