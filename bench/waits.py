"""``python -m bench.waits``: how long after an append its projection, which runs in another process, has its effect.

Each client appends one event and waits for the projection, again and again. The line shows the milliseconds of the wait
alone: the projection's own work is in it. It ends with 1 if a median is above the target.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Integer, MetaData, String, Table

from bench.databases import opened
from esource import (
    DomainEvent,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    handles,
    open_store,
    register_event,
)

TARGET_MS = 50
WAITS = 200
CASES = [(1, 1), (4, 1), (1, 8)]
"""Partitions of the projection, and clients."""

table = Table("noted", MetaData(), Column("id", String, primary_key=True), Column("number", Integer))


@register_event
class Noted(DomainEvent):
    aggregate_type: str = "Note"
    number: int


class Notes(Projection):
    async def reset(self, connection: Any) -> None:
        await connection.run_sync(lambda sync: table.drop(sync, checkfirst=True))
        await connection.run_sync(table.create)

    @handles(Noted)
    async def noted(self, event: Noted, context: ProjectionContext) -> None:
        context.write(table.insert(), {"id": str(event.aggregate_id), "number": event.number})


@contextmanager
def worker(url: str, partitions: int) -> Iterator[None]:
    """A process that runs the projection."""
    command = [sys.executable, "-m", "bench.waits", url, str(partitions)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


async def work(url: str, partitions: int) -> None:
    async with open_store(url, enable_tracing=False) as store:
        runner = ProjectionRunner(store, Notes(), partitions=partitions)
        print("ready", flush=True)
        await runner.run()


async def measure(url: str, clients: int) -> list[float]:
    """The milliseconds of each wait."""
    found: list[float] = []
    async with open_store(url, enable_tracing=False) as store:

        async def client(waits: int) -> None:
            for number in range(waits):
                event = Noted(aggregate_id=uuid4(), number=number)
                result = await store.append_events(event.aggregate_id, "Note", [event])
                began = time.perf_counter()
                await store.wait_for(result, projection=Notes, timeout=60)
                found.append(1000 * (time.perf_counter() - began))

        await client(1)  # the worker has begun
        found.clear()
        await asyncio.gather(*(client(WAITS // clients) for _ in range(clients)))
    return sorted(found)


def main() -> int:
    if len(sys.argv) == 3:
        asyncio.run(work(sys.argv[1], int(sys.argv[2])))
        return 0
    print(f"{'database':12} {'partitions':>10} {'clients':>8} {'median':>8} {'p95':>8} {'most':>8}  ms")
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("sqlite-full", "postgresql"):
            with opened(kind, Path(folder), None) as databases:
                for partitions, clients in CASES:
                    address = databases.new(clients).address
                    url = address if "://" in address else f"sqlite:///{address}"
                    asyncio.run(initialize(url))
                    with worker(url, partitions):
                        found = asyncio.run(measure(url, clients))
                    median = statistics.median(found)
                    missed |= median > TARGET_MS
                    late = found[int(len(found) * 0.95)]
                    print(
                        f"{kind:12} {partitions:>10} {clients:>8} {median:>8.1f} {late:>8.1f} {found[-1]:>8.1f}"
                    )
    return int(missed)


async def initialize(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()


if __name__ == "__main__":
    sys.exit(main())
