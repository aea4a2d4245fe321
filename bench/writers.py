"""What several logs on one PostgreSQL server win: processes that all write to one log, beside as many that write to one each.

    python -m bench.writers                       # 8 processes, 3 rounds of 4 seconds for each load
    python -m bench.writers --writers 4 --rounds 5

Beside them, with the driver alone: plain INSERTs of the same row into one table with the columns and indexes of `events`, without
a lock (as pgbench would), behind one lock, and behind a lock of its own for each process. Each writer has one connection, and
commits each event by itself. The loads take turns, and the median is told; so is the processor's time for each commit, of
the writers and of the server, which says more than the rate on a machine that is busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from esource import DomainEvent, register_event
from esource.directory import Directory
from esource.testing import server

COLUMNS = "event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload, created_at"
INSERT = (
    f"INSERT INTO plain ({COLUMNS}) "  # noqa: S608 - no one's words
    "SELECT $1, $2, 'Note', 'Noted', 1, now(), $3::jsonb, now()"
)
LOADS = {
    "esource, one log": ("log", False),
    "esource, a log each": ("log", True),
    "INSERT, no lock": (INSERT, False),
    "INSERT, one lock": (f"WITH held AS (SELECT pg_advisory_xact_lock(1)::text) {INSERT} FROM held", False),
    "INSERT, a lock each": (
        f"WITH held AS (SELECT pg_advisory_xact_lock($4)::text) {INSERT} FROM held",
        True,
    ),
}


@register_event
class Noted(DomainEvent):
    aggregate_type: str = "Note"
    text: str


async def write(url: str, load: str, number: int, seconds: float, begin: Any) -> tuple[int, float]:
    how, has_own = LOADS[load]
    if how == "log":
        async with Directory(url, enable_tracing=False) as directory:
            store = await directory.log(f"log{number}" if has_own else "log0")

            async def append() -> None:
                event = Noted(aggregate_id=uuid4(), text="a note")
                await store.append_events(event.aggregate_id, "Note", [event], 0)

            return await repeat(append, seconds, begin)
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(how)
        text = json.dumps({"text": "a note"})
        own = (number,) if has_own else ()

        async def insert() -> None:
            await statement.fetch(uuid4(), uuid4(), text, *own)

        return await repeat(insert, seconds, begin)
    finally:
        await connection.close()


async def repeat(work: Any, seconds: float, begin: Any) -> tuple[int, float]:
    """How often it was done, and the processor's time of this process for that."""
    await work()
    begin.wait()
    end, count, used = time.monotonic() + seconds, 0, time.process_time()
    while time.monotonic() < end:
        await work()
        count += 1
    return count, time.process_time() - used


def work(url: str, load: str, number: int, seconds: float, begin: Any, counts: Any) -> None:
    counts.put(asyncio.run(write(url, load, number, seconds, begin)))


def server_seconds(postmaster: int) -> float:
    """The processor's time of a server's processes, of those that have ended, too."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(stat.parent.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(
    url: str, postmaster: int, load: str, writers: int, seconds: float
) -> tuple[float, float, float]:
    """Commits a second; microseconds of the processor for each, of the writers and of the server."""
    context = multiprocessing.get_context("fork")  # which imports nothing anew
    begin, counts = context.Barrier(writers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(url, load, number, seconds, begin, counts))
        for number in range(writers)
    ]
    for process in processes:
        process.start()
    begin.wait()
    used, began = server_seconds(postmaster), time.monotonic()
    found = [counts.get() for _ in processes]
    took, used = time.monotonic() - began, server_seconds(postmaster) - used
    for process in processes:
        process.join()
    total = sum(count for count, _ in found)
    return total / max(took, seconds), sum(spent for _, spent in found) / total * 1e6, used / total * 1e6


async def prepare(url: str, writers: int) -> int:
    """Make the logs and the table; the number of the server's first process."""
    async with Directory(url, enable_tracing=False) as directory:
        for number in range(writers):
            await directory.create(f"log{number}")
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE plain (LIKE log0.events INCLUDING ALL)")
    folder = await connection.fetchval("SHOW data_directory")
    await connection.close()
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])  # noqa: ASYNC240 - one line


def compare(url: str, writers: int, rounds: int, seconds: float) -> None:
    postmaster = asyncio.run(prepare(url, writers))
    found: dict[str, list[tuple[float, float, float]]] = {load: [] for load in LOADS}
    for _ in range(rounds):
        for load, results in found.items():
            results.append(measured(url, postmaster, load, writers, seconds))
    first = None
    print(f"{'':22} commits/s  (least, most)  of the first   CPU µs: writer, server")
    for load, results in found.items():
        rates, clients, servers = zip(*results, strict=True)
        rate = statistics.median(rates)
        first = first or rate
        print(
            f"{load:22} {rate:9.0f}  ({min(rates):.0f}, {max(rates):.0f})  {rate / first:12.2f}   "
            f"{statistics.median(clients):.0f}, {statistics.median(servers):.0f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.writers", description=__doc__.splitlines()[0])
    parser.add_argument("--writers", type=int, default=8, help="how many processes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load has its turn")
    parser.add_argument("--seconds", type=float, default=4, help="how long a turn takes")
    chosen = parser.parse_args()
    with server.postgres_server() as at, server.new_database(at) as url:
        compare(url, chosen.writers, chosen.rounds, chosen.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
