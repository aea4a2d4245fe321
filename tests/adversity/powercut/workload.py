"""What is going on when the power is cut: the writer of the torture tests (`adversity.torture.writer`), under strace.

    workload.py sqlite FILE SEED FULL|NORMAL WAL|DELETE
    workload.py postgresql FOLDER SEED SYNCHRONOUS_COMMIT

Both reach a checkpoint of the database's own several times, which is when most of what a log protects is rewritten.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Engine, event

sys.path.insert(0, str(Path(__file__).parents[2]))

from adversity.faults.cluster import Cluster
from adversity.torture.writer import write
from esource import open_store
from esource.testing.server import dsn

EVENTS = 200
TASKS = 4
CHECKPOINTS = 5
"""Of PostgreSQL's; SQLite makes them as its log grows."""
DATABASE = "shop"


async def on_sqlite(file: str, seed: int, synchronous: str, journal: str) -> None:
    @event.listens_for(Engine, "connect")
    def checkpoint_often(connection: Any, record: Any) -> None:
        # The default of a thousand pages would let a run end before its first checkpoint.
        connection.cursor().execute("PRAGMA wal_autocheckpoint = 30")

    options: dict[str, Any] = {"synchronous": synchronous, "wal_mode": journal == "WAL"}
    async with open_store(f"sqlite:///{file}", enable_tracing=False, **options) as store:
        await store.initialize()
    await write(f"sqlite:///{file}", TASKS, EVENTS, seed, **options)


async def checkpoint(connection: asyncpg.Connection) -> None:
    await connection.execute("SELECT pg_switch_wal()")
    await connection.execute("CHECKPOINT")


async def on_postgresql(folder: str, seed: int, synchronous_commit: str) -> None:
    """The server starts here, so that strace follows all its processes; it reads its files itself (`io_method`)."""
    cluster = Cluster(folder)
    # What nobody waits for is written late, so that there is something to lose.
    late = {"wal_writer_delay": "10s"}
    cluster.start(fsync="on", synchronous_commit=synchronous_commit, io_method="sync", **late)
    try:
        url = cluster.url.set(database=DATABASE)
        connection = await asyncpg.connect(**dsn(url))
        for number in range(CHECKPOINTS):
            share = write(url.render_as_string(), TASKS, EVENTS // CHECKPOINTS, seed + number)
            await asyncio.gather(share, checkpoint(connection))
        await connection.close()
    finally:
        cluster.stop("fast")


if __name__ == "__main__":
    kind, place, seed, *settings = sys.argv[1:]
    if kind == "sqlite":
        asyncio.run(on_sqlite(place, int(seed), *settings))
    else:
        asyncio.run(on_postgresql(place, int(seed), *settings))
