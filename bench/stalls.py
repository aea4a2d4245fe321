"""How long the event loop stands still while a task appends: with a thread for each connection, and in the caller's thread.

    python -m bench.stalls [--seconds S] [--folder FOLDER]

A ticker of the loop wants a turn each millisecond while one task appends without a pause; how late its turns are is
measured, alone and while another process writes to the same file. It is no benchmark against others.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from esource import DomainEvent, SQLiteEventStore, register_event

TICK_SECONDS = 0.001

WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("CREATE TABLE IF NOT EXISTS other (x)")
print("ready", flush=True)
while True:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO other VALUES (1)")
    time.sleep(0.002)
    connection.execute("COMMIT")
    time.sleep(0.002)
"""


@register_event
class Ticked(DomainEvent):
    event_type: str = "bench.Ticked"
    text: str = "x" * 100


async def measure(file: Path, seconds: float, **options) -> tuple[float, list[float]]:
    """Appends a second, and how late the ticks were, in milliseconds, in their order of size."""
    late: list[float] = []
    over = False

    async def tick() -> None:
        while not over:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late.append((time.perf_counter() - due) * 1000)

    async with SQLiteEventStore(file, enable_tracing=False, **options) as store:
        await store.initialize()
        ticking = asyncio.create_task(tick())
        appends, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            await store.append_events(uuid4(), "Bench", [Ticked()])
            appends += 1
        over = True
        await ticking
    return appends / seconds, sorted(late)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each case runs")
    parser.add_argument("--folder", type=Path, help="where the files are: the disk that is measured")
    arguments = parser.parse_args()
    print(
        f"{'synchronous':12}{'other':8}{'execution':11}{'appends/s':>10}{'99.9 %':>10}{'longest':>10}   ms late"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for synchronous in ("NORMAL", "FULL"):
            for other in (False, True):
                for execution in ("thread", "caller"):
                    file = Path(folder) / f"{synchronous}-{other}-{execution}.db"
                    writer = None
                    if other:
                        writer = subprocess.Popen(
                            [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True
                        )
                        assert writer.stdout is not None
                        writer.stdout.readline()
                    try:
                        rate, late = asyncio.run(
                            measure(file, arguments.seconds, synchronous=synchronous, execution=execution)
                        )
                    finally:
                        if writer is not None:
                            writer.kill()
                            writer.communicate()
                    print(
                        f"{synchronous:12}{'writes' if other else 'none':8}{execution:11}{rate:10.0f}"
                        f"{late[int(len(late) * 0.999)]:10.1f}{late[-1]:10.1f}"
                    )


if __name__ == "__main__":
    main()
