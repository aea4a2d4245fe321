"""Migrations that are killed half-way and run twice at once, up and down, with data: all or nothing, and no row lost."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from support.effort import examples
from support.orders import several
from support.schemas import described, rows, run_at_once
from support.tally import Tally, chance

from esource import EventStore, Snapshot, SnapshotStore, open_store, schema

MIGRATE = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from esource import schema

url, way, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
statements = 0

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global statements
    statements += 1
    if statements == last:
        os.kill(os.getpid(), signal.SIGKILL)

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(schema.upgrade(url) if way == "up" else schema.downgrade(url, "0001"))
"""

EVENTS = "SELECT event_id, version, payload FROM events ORDER BY global_position"
SNAPSHOTS = "SELECT aggregate_id, version FROM snapshots ORDER BY aggregate_id"


async def fill(url: str) -> None:
    """A store with data beside its log."""
    async with open_store(url, enable_tracing=False) as store:
        await store.initialize()
        for _ in range(20):
            events = several(5)
            await store.append_events(events[0].aggregate_id, "Order", events, 0)
            await SnapshotStore(store).save_snapshot(Snapshot(events[0].aggregate_id, "Order", 5, {"a": 1}))


async def data(url: str) -> list[Any]:
    return [await rows(url, EVENTS), await rows(url, SNAPSHOTS)]


async def migrate(url: str, way: str) -> int:
    """Migrate; how many statements it took."""
    statements = []

    def count(*_: object) -> None:
        statements.append(1)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        await (schema.upgrade(url) if way == "up" else schema.downgrade(url, "0001"))
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return len(statements)


async def killed(url: str, way: str, folder: Path, last: int) -> None:
    """Migrate in a process of its own, which is killed before that statement."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MIGRATE, url, way, str(last)),
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(b"go\n")
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_migration_that_is_killed_anywhere_has_changed_nothing(
    empty_database_url: str, tmp_path, way
):
    url = empty_database_url
    tally = Tally(f"migration {way} killed", "sqlite" if url.startswith("sqlite") else "postgresql")
    await fill(url)
    kept = await data(url)
    tally.written = len(kept[0])
    back = "down" if way == "up" else "up"
    if way == "up":
        await migrate(url, back)
    before = await described(url)
    statements = await migrate(url, way)
    after = await described(url)
    assert after != before
    await migrate(url, back)
    draw = chance(f"migration {way} {url[:6]}")
    for last in sorted(draw.sample(range(2, statements + 1), min(examples(1), statements - 1))):
        await killed(url, way, tmp_path, last)
        tally.injected += 1
        # A server may not have noticed yet: the next migration waits for it. What it finds is whole.
        assert await described(url) == before
        found = await data(url)
        tally.lost += len(kept[0]) - len(found[0])
        assert found == kept
    await migrate(url, way)
    assert await described(url) == after
    assert await data(url) == kept
    tally.conclude()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_migration_that_runs_twice_at_once_is_done_once(empty_database_url: str, tmp_path, way):
    url = empty_database_url
    tally = Tally(f"migration {way} twice at once", "sqlite" if url.startswith("sqlite") else "postgresql")
    await fill(url)
    kept = await data(url)
    tally.written = len(kept[0])
    if way == "up":
        await schema.downgrade(url, "0001")
    for _ in range(examples(1)):
        await run_at_once(MIGRATE, [[url, way, "0"]] * 2, tmp_path)
        tally.injected += 1
        assert await schema.current(url) == (schema.HEAD if way == "up" else "0001")
        assert await data(url) == kept
        await (schema.downgrade(url, "0001") if way == "up" else schema.upgrade(url))
    await schema.upgrade(url)
    async with open_store(url, enable_tracing=False) as store:
        await append_once(store)
    tally.conclude()


async def append_once(store: EventStore) -> None:
    events = several(2)
    assert (await store.append_events(events[0].aggregate_id, "Order", events, 0)).new_version == 2
