"""What many logs of a directory cost one process: opening their stores, their connections, memory, and appends.

    python -m bench.logs                          # 1000 logs in schemas of an embedded PostgreSQL
    python -m bench.logs --logs 100 --files       # SQLite files

Making the logs takes longer than measuring them. Ends with 1 if opening the last store took a millisecond, or needed a
connection.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from esource import DomainEvent, register_event
from esource.directory import Directory
from esource.testing import server


@register_event
class Noted(DomainEvent):
    aggregate_type: str = "Note"
    text: str


def resident() -> float:
    """MiB of memory that the process has."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def append_one(store) -> float:
    event = Noted(aggregate_id=uuid4(), text="a note")
    began = time.perf_counter()
    await store.append_events(event.aggregate_id, "Note", [event], 0)
    return time.perf_counter() - began


async def measure(url: str, count: int) -> bool:
    names = [f"log{number:04}" for number in range(count)]
    async with Directory(url) as making:
        began = time.perf_counter()
        free = asyncio.Semaphore(4)

        async def make(name: str) -> None:
            async with free:
                await making.create(name)

        await asyncio.gather(*map(make, names))
        print(f"made {count} logs in {time.perf_counter() - began:.0f} s")
    gc.collect()
    async with Directory(url) as directory:
        before = resident()
        took = []
        for name in names:
            began = time.perf_counter()
            await directory.log(name)
            took.append(time.perf_counter() - began)
        last = took[-1] * 1000
        connected = connections(directory)
        print(
            f"opened {count} stores: median {statistics.median(took) * 1000:.3f} ms, the last {last:.3f} ms; "
            f"{(resident() - before) * 1024 / count:.0f} KiB each, {connected} connections"
        )
        stores = [await directory.log(name) for name in names]
        first = [await append_one(store) for store in stores]
        second = [await append_one(store) for store in stores]
        one = [await append_one(stores[-1]) for _ in range(min(count, 200))]
        print(
            f"one append to each, one after another: median {statistics.median(first) * 1000:.2f} ms, once more "
            f"{statistics.median(second) * 1000:.2f} ms; to one log {statistics.median(one) * 1000:.2f} ms; "
            f"{connections(directory)} connections"
        )
        began = time.perf_counter()
        await asyncio.gather(*map(append_one, stores))
        seconds = time.perf_counter() - began
        gc.collect()
        print(
            f"one append to each, all at once: {count / seconds:.0f} a second, {connections(directory)} connections, "
            f"{resident() - before:.0f} MiB more than before the stores were opened"
        )
    return last < 1 and connected <= 1


def connections(directory: Directory) -> int:
    """The connections that all its stores have; that of the directory's own tables is among them."""
    return sum(
        one.connections.engine.pool.checkedin() + one.connections.engine.pool.checkedout()
        for one in directory.places._servers.values()
        if one.connections.is_ready
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.logs", description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=1000, help="how many")
    parser.add_argument("--files", action="store_true", help="in SQLite files")
    chosen = parser.parse_args()
    if chosen.files:
        with tempfile.TemporaryDirectory() as folder:
            return not asyncio.run(measure(f"sqlite:///{folder}/logs.db", chosen.logs))
    with server.postgres_server() as at, server.new_database(at) as url:
        return not asyncio.run(measure(url, chosen.logs))


if __name__ == "__main__":
    sys.exit(main())
