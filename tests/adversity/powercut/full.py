"""A PostgreSQL whose disk fills up: a program for a mount namespace of its own, where it may mount a small disk.

    full.py data|log FOLDER ROUNDS

Prints what it counted as one line of JSON. The small disk has the tables, or the server's write-ahead log; the rest is
in the folder. Only root mounts, so that the server's user is another.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.orders import several

from adversity.faults.cluster import Cluster
from esource import EventStore, open_store, schema
from esource.errors import DatabaseError
from esource.testing.server import on_server

MEGABYTES = 24
"""More than an empty database takes."""
WHOLE = 5
"""Events of every append here, each to a stream of its own."""
DATABASE = "shop"


class Full:
    """The small disk, the server that needs it, and what was appended."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.rounds = rounds
        self.disk = folder / "small"
        self.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", self.disk], check=True)
        data = folder / "data"
        data.mkdir(mode=0o700)
        self.cluster = Cluster(str(data))
        shutil.chown(self.disk, self.cluster.user)
        self.data = data
        self.url = self.cluster.url.set(database=DATABASE).render_as_string()
        self.stored: list[UUID] = []
        self.errors: Counter[str] = Counter()

    def fill(self) -> None:
        with (self.disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 14))

    def make_room(self) -> None:
        (self.disk / "ballast").unlink()

    async def append(self, store: EventStore, size: int = 10, *, in_transaction: bool = False) -> None:
        # What repeats itself would be compressed to nothing.
        events = several(WHOLE, metadata={"text": random.randbytes(size // 2).hex()})
        stream = events[0].aggregate_id
        try:
            if in_transaction:
                async with store.transaction() as transaction:
                    await transaction.append_events(stream, "Order", events[:2], 0)
                    await transaction.append_events(stream, "Order", events[2:], 2)
            else:
                await store.append_events(stream, "Order", events, 0)
        except DatabaseError as error:
            self.errors[type(error).__name__] += 1
        else:
            self.stored += [event.event_id for event in events]

    async def until_refused(self, store: EventStore) -> None:
        before = self.errors.total()
        while self.errors.total() == before:
            await asyncio.gather(*(self.append(store, 20_000) for _ in range(4)))
        await self.append(store, 200_000)
        await self.append(store, 200_000, in_transaction=True)

    async def data_is_full(self) -> None:
        self.cluster.start()
        on_server(
            self.cluster.url,
            f"CREATE TABLESPACE small LOCATION '{self.disk}'",
            f"CREATE DATABASE {DATABASE} TABLESPACE small",
        )
        await schema.upgrade(self.url)
        async with open_store(self.url, enable_tracing=False) as store:
            for _ in range(self.rounds):
                await self.append(store)
                self.fill()
                await self.until_refused(store)
                assert len([stored async for stored in store.read_all()]) == len(self.stored)
                self.make_room()
                await self.append(store)

    async def log_is_full(self) -> None:
        self.cluster.call("pg_resetwal", "--wal-segsize=1")
        shutil.copytree(self.data / "pg_wal", self.disk / "pg_wal")
        shutil.rmtree(self.data / "pg_wal")
        for path in (self.disk, *self.disk.rglob("*")):
            shutil.chown(path, self.cluster.user)
        (self.data / "pg_wal").symlink_to(self.disk / "pg_wal")
        sizes = {"min_wal_size": "2MB", "max_wal_size": "8MB"}
        self.cluster.start(**sizes)
        on_server(self.cluster.url, f"CREATE DATABASE {DATABASE}")
        await schema.upgrade(self.url)
        async with open_store(self.url, enable_tracing=False, retry_seconds=1) as store:
            for _ in range(self.rounds):
                await self.append(store)
                self.fill()
                await self.until_refused(store)
                self.make_room()
                self.stop()  # if it has not ended by itself
                self.cluster.start(**sizes)
                await self.append(store)

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.cluster.stop()


async def main(kind: str, folder: Path, rounds: int) -> None:
    full = Full(folder, rounds)
    try:
        await (full.data_is_full() if kind == "data" else full.log_is_full())
        async with open_store(full.url, enable_tracing=False) as store:
            log = [stored async for stored in store.read_all()]
    finally:
        full.stop()
    ids = {stored.event_id for stored in log}
    said = {
        "errors": full.errors,
        "written": len(full.stored),
        "lost": len(set(full.stored) - ids),
        "duplicated": len(log) - len(ids),
        "unknown": len(ids - set(full.stored)),
        "halves": sum(count != WHOLE for count in Counter(stored.aggregate_id for stored in log).values()),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
