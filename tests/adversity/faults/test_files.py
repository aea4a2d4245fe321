"""What can happen to a SQLite file under a store: our errors, nothing acknowledged lost, and work goes on afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.effort import examples
from support.orders import several
from support.tally import Tally, chance

from esource import CheckpointRepository, EventStore, SQLiteEventStore
from esource.errors import (
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
)


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


class Writer:
    """Appends to a store, and remembers what was acknowledged and what was refused."""

    def __init__(self, store: EventStore, fault: str) -> None:
        self.store = store
        self.tally = Tally(fault, "sqlite")
        self.acknowledged: list[UUID] = []
        self.draw = chance(fault)

    async def append(self, count: int = 1, text: str = "") -> None:
        events = several(count, metadata={"text": text})
        result = await self.store.append_events(events[0].aggregate_id, "Order", events, 0)
        assert result.new_version == count
        self.acknowledged += [event.event_id for event in events]

    async def append_many(self, count: int) -> None:
        await asyncio.gather(*(self.append(self.draw.randint(1, 3)) for _ in range(count)))

    async def append_in_transaction(self) -> None:
        events = several(3, metadata={"text": "x" * 2000})
        async with self.store.transaction() as tx:
            await tx.append_events(events[0].aggregate_id, "Order", events, 0)
            await tx.checkpoints.save_position("p", 1, uuid4(), "OrderPlaced")
        self.acknowledged += [event.event_id for event in events]

    async def refused(self, kind: type[DatabaseError], *works: Awaitable[Any]) -> None:
        """Each of these ends in that error."""
        for work in works:
            with pytest.raises(kind) as caught:
                await work
            assert caught.value.__cause__ is not None
            self.tally.errors += 1

    async def event_ids(self) -> list[UUID]:
        return [stored.event_id async for stored in self.store.read_all()]

    async def conclude(self) -> None:
        self.tally.judge(self.acknowledged, await self.event_ids())
        self.tally.conclude()


def connection_of(store: EventStore) -> Any:
    return store._opened.database.connections.writers.idle[-1].driver


async def test_a_disk_that_fills_up_at_any_page_refuses_whole_appends_and_goes_on_with_space(
    path: Path, open_stores
):
    store = await open_stores(f"sqlite:///{path}", outbox_enabled=True)
    writer = Writer(store, "disk full (max_page_count)")
    await writer.append(2)
    for spare in range(examples(6)):
        connection = connection_of(store)
        [(pages,)] = await connection.execute_fetchall("PRAGMA page_count")
        await connection.execute_fetchall(f"PRAGMA max_page_count = {pages + spare % 6}")
        refused = 0
        while not refused:  # what still fits may be stored
            works = [writer.append(20, "x" * 2000), writer.append(), writer.append_in_transaction()]
            for result in await asyncio.gather(*works, return_exceptions=True):
                assert result is None or type(result) is DatabaseFullError, result
                refused += result is not None
        writer.tally.injected += 1
        writer.tally.errors += refused
        await writer.event_ids()
        await connection_of(store).execute_fetchall("PRAGMA max_page_count = 1000000")
        await writer.append_many(3)
        await writer.append_in_transaction()
    await writer.conclude()
    # No half batch: an outbox row for each event, and each stream whole.
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT count(*) FROM events").fetchone() == (len(writer.acknowledged),)
        assert raw.execute("SELECT count(*) FROM event_outbox").fetchone() == (len(writer.acknowledged),)
    raw.close()


FULL = """
import asyncio, resource, sys
from pathlib import Path
from support.orders import several
from esource import SQLiteEventStore
from esource.errors import DatabaseError

folder, rounds, is_mounted = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "mounted"
ballast = folder / "ballast"

def fill():
    if not is_mounted:
        largest = max(file.stat().st_size for file in folder.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 50_000, resource.RLIM_INFINITY))
        return
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass

def make_room():
    if is_mounted:
        ballast.unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

async def append(store, stored, text):
    events = several(5, metadata={"text": text})
    await store.append_events(events[0].aggregate_id, "Order", events, 0)
    stored += [event.event_id for event in events]

async def main():
    stored, errors = [], 0
    async with SQLiteEventStore(folder / "events.db", enable_tracing=False) as store:
        await store.initialize()
        for _ in range(rounds):
            fill()
            for _ in range(10):
                try:
                    await append(store, stored, "x" * 20_000)
                except DatabaseError:
                    errors += 1
            make_room()
            await append(store, stored, "x")
        log = [event.event_id async for event in store.read_all()]
    print(rounds, errors, len(stored), len(set(stored) - set(log)), len(log) - len(set(log)), len(log) - len(stored))

asyncio.run(main())
"""


def can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_file_system_without_space_refuses_whole_appends_and_goes_on_with_space(tmp_path: Path):
    """A small file system where this user may mount one, else a limit for the size of a file."""
    is_mounted = sys.platform == "linux" and can_mount()
    mode = "mounted" if is_mounted else "limited"
    mount = f'mount -t tmpfs -o size=2m none "{tmp_path}" && ' if is_mounted else ""
    run = [sys.executable, "-c", FULL, str(tmp_path), str(examples(2)), mode]
    done = subprocess.run(
        [*(["unshare", "-m"] if is_mounted else []), "sh", "-c", f'{mount}exec "$@"', "sh", *run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    injected, errors, written, lost, duplicated, unknown = map(int, done.stdout.split())
    assert errors
    assert unknown == 0, "an append that was refused is stored"
    kind = "tmpfs" if is_mounted else "largest file"
    Tally(f"disk full ({kind})", "sqlite", injected, errors, written, lost, duplicated).conclude()


async def test_a_file_that_may_not_be_written_refuses_and_goes_on_when_it_may(path: Path, open_stores):
    store = await open_stores(f"sqlite:///{path}")
    writer = Writer(store, "read-only file")
    for _ in range(examples(2)):
        await writer.append_many(3)
        # Permissions do not bind every user that tests run as; this PRAGMA binds all.
        connection = connection_of(store)
        await connection.execute_fetchall("PRAGMA query_only = ON")
        await writer.refused(DatabaseReadOnlyError, writer.append(), writer.append_in_transaction())
        writer.tally.injected += 1
        await connection.execute_fetchall("PRAGMA query_only = OFF")
        await writer.append()
    await writer.conclude()


async def test_a_lock_beyond_the_busy_timeout_refuses_and_goes_on_when_it_is_free(path: Path, open_stores):
    store = await open_stores(f"sqlite:///{path}", busy_timeout=20)
    writer = Writer(store, "locked beyond busy_timeout")
    for _ in range(examples(3)):
        await writer.append_many(3)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await writer.refused(
            DatabaseBusyError,
            writer.append(),
            writer.append_in_transaction(),
            CheckpointRepository(store).save_position("p", 1, uuid4(), "OrderPlaced"),
        )
        assert len(await writer.event_ids()) == len(writer.acknowledged)
        writer.tally.injected += 1
        other.execute("ROLLBACK")
        other.close()
        await writer.append_in_transaction()
    await writer.conclude()


@pytest.mark.parametrize("wreck", ["page", "header", "text", "cut"])
async def test_a_damaged_file_is_an_error_of_ours_and_its_backup_works(path: Path, tmp_path, wreck):
    async with SQLiteEventStore(path, enable_tracing=False) as store:
        writer = Writer(store, f"damaged file ({wreck})")
        for _ in range(10):
            await writer.append(20, "x" * 500)
    backup = shutil.copy(path, tmp_path / "backup.db")
    data = bytearray(path.read_bytes())
    if wreck == "page":  # all but the first, which says what tables there are
        data[4096:] = writer.draw.randbytes(len(data) - 4096)
    elif wreck == "header":
        data[:100] = bytes(100)
    elif wreck == "text":
        data = bytearray(b"shopping: milk, bread, events " * 1000)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    store = SQLiteEventStore(path, enable_tracing=False)
    broken = Writer(store, "")
    for work in (store.open, broken.append, broken.append_in_transaction, broken.event_ids, store.initialize):
        try:
            await work()
        except DatabaseUnavailableError as error:
            assert str(path) in str(error)
            assert ("restore a backup" in str(error)) == ("malformed" in str(error))
            writer.tally.errors += 1
    await store.close()
    writer.tally.injected += 1
    assert writer.tally.errors >= 2
    for file in path.parent.glob("events.db-*"):
        file.unlink()
    shutil.copy(backup, path)
    async with SQLiteEventStore(path, enable_tracing=False) as store:
        writer.store = store
        await store.initialize()
        await writer.append()
        await writer.conclude()


@pytest.mark.parametrize("deed", ["moved", "deleted", "replaced"])
async def test_a_file_that_is_taken_away_in_the_middle_of_work_takes_no_more_appends(
    path: Path, tmp_path, deed
):
    """To an open connection a deleted file is as good as any: SQLite would go on, and all of it be lost."""
    store = SQLiteEventStore(path, enable_tracing=False)
    await store.initialize()
    writer = Writer(store, f"file {deed} underneath")
    await writer.append_many(5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = list(path.parent.glob("events.db*"))
    for file in files:
        shutil.move(file, elsewhere)
    if deed == "replaced":
        async with SQLiteEventStore(path, enable_tracing=False) as other:
            await other.initialize()
    writer.tally.injected += 1
    for work in (
        writer.append,
        writer.append_in_transaction,
        lambda: CheckpointRepository(store).save_position("p", 1, uuid4(), "OrderPlaced"),
    ):
        with pytest.raises(DatabaseUnavailableError, match="deleted or replaced"):
            await work()
        writer.tally.errors += 1
    if deed == "moved":  # and put back: as if nothing had been
        for file in files:
            shutil.move(elsewhere / file.name, file)
        await writer.append_many(3)
        await writer.append_in_transaction()
        await writer.conclude()
        await store.close()
        return
    await store.close()
    # A store that is opened again takes what is there now, and begins anew where nothing is.
    await store.initialize()
    writer.acknowledged.clear()
    await writer.append()
    await writer.append_in_transaction()
    await writer.conclude()
    await store.close()
