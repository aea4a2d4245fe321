"""A relay process for the tests that kill: writes what it publishes to its standard output."""

from __future__ import annotations

import asyncio
import sys

from esource import OutboxRelay, open_store


class Printer:
    async def publish(self, entry):
        print(entry.aggregate_id, entry.event_id, flush=True)
        await asyncio.sleep(0.002)


async def main(url: str, lease_seconds: float) -> None:
    async with open_store(url, enable_tracing=False) as store:
        relay = OutboxRelay(
            store, Printer(), batch_size=20, lease_seconds=lease_seconds, enable_metrics=False
        )
        print("ready", flush=True)
        await relay.run()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
