"""The probes: what is done, and how it is judged. Every judgement is a count, by the name of its row."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.contenders.base import Target
from bench.probes.process import Process, marks

Counts = dict[str, int | str]
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """One contender on one database of its own, whose tables are made."""

    python: str
    name: str
    folder: Path
    target: Target
    scale: float
    """How much of everything."""

    def start(self, task: str, **params: Any) -> Process:
        return Process(self.python, self.name, self.folder, task, self.target, **params)

    def many(self, count: int) -> int:
        return max(1, round(count * self.scale))

    def log(self) -> list[str]:
        """The marks of everything that is stored, as a follower sees them that comes when all is over."""
        return marks(self.start("follow").result(), "seen")


def judged(stored: list[str], log: list[str]) -> Counts:
    """What was acknowledged against what is there."""
    return {
        "acknowledged": len(stored),
        "lost": len(set(stored) - set(log)),
        "duplicated": sum(count - 1 for count in Counter(log).values()),
    }


def errors(lines: Lines) -> int:
    return sum("error" in line for line in lines)


def follow(run: Run) -> Counts:
    """A reader goes through the log while sixteen tasks in two processes append one to five events at a time."""
    reader = run.start("follow")
    reader.until(1)
    writers = [run.start("write", tasks=8, appends=run.many(60), seed=seed) for seed in (1, 2)]
    said = [line for writer in writers for line in writer.result()]
    lines = reader.result()  # which ends its standard input
    log, seen = run.log(), marks(lines, "seen")
    return {
        **judged(marks(said, "stored"), log),
        "skipped by the reader": len(set(log) - set(seen)),
        "seen twice": len(seen) - len(set(seen)),
        "errors": errors(said) + errors(lines),
    }


def compete(run: Run) -> Counts:
    """Two processes with four tasks each append to three streams at the version that they have just read."""
    processes = [run.start("compete", tasks=4, attempts=run.many(100), streams=3) for _ in range(2)]
    lines = [line for process in processes for line in process.result()]
    places = Counter(tuple(line["place"]) for line in lines if "place" in line)
    return {
        **judged(marks(lines, "stored"), run.log()),
        "refused as conflicts": sum("refused" in line for line in lines),
        "two acknowledged at one version": sum(count - 1 for count in places.values()),
        "errors": errors(lines),
    }


def repeat(run: Run) -> Counts:
    """Every append is sent twice, with the same event ids at the same version, as after an answer that was lost."""
    lines = run.start("repeat", appends=run.many(100)).result()
    return {
        **judged(marks(lines, "stored"), run.log()),
        "told that it is stored": sum("again" in line for line in lines),
        "told a conflict or an error": sum("refused" in line for line in lines),
    }


def killed(run: Run) -> Counts:
    """Processes with eight tasks each are killed in the middle of their appends, one after the other."""
    stored: list[str] = []
    kills = run.many(5)
    for seed in range(kills):
        victim = run.start("write", tasks=8, appends=10**6, seed=seed)
        victim.until(100 + 7 * seed)
        victim.kill()
        stored += marks(victim.lines(), "stored")
    return {"kills": kills, **judged(stored, run.log())}


def cut(run: Run) -> Counts:
    """The server ends connections while eight tasks append; who gets an error sends the same events again."""
    writer = run.start("write", tasks=8, appends=run.many(400), seed=1)
    writer.until(20)
    ended = asyncio.run(_end_backends(run.target.address, run.many(30), lambda: writer.is_running))
    lines = writer.result()
    log = run.log()
    refused = [line["conflict"] for line in lines if "conflict" in line]
    return {
        "connections ended": ended,
        **judged(marks(lines, "stored"), log),
        "errors": errors(lines),
        "told a conflict with itself": sum(set(events) <= set(log) for events in refused),
    }


async def _end_backends(address: str, times: int, goes_on: Callable[[], bool]) -> int:
    connection = await asyncpg.connect(address)
    ended = 0
    try:
        while ended < times and goes_on():
            await asyncio.sleep(0.03)
            ended += await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE "
                "datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
                "ORDER BY (state = 'idle'), random() LIMIT 1) AS one"
            )
    finally:
        await connection.close()
    return ended


def locked(run: Run) -> Counts:
    """Another program holds the write lock for a second, several times, while four tasks append."""
    writer = run.start("write", tasks=4, appends=10**6, seed=1)
    times = run.many(5)
    for _ in range(times):
        writer.until(len(writer.lines()) + 20)
        with closing(sqlite3.connect(run.target.address, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(1)
            other.execute("ROLLBACK")
    writer.until(len(writer.lines()) + 20)
    writer.kill()
    lines = writer.lines()
    return {"times locked": times, **judged(marks(lines, "stored"), run.log()), "errors": errors(lines)}


def values(run: Run) -> Counts:
    """Values of the declared types are appended and read back."""
    lines = run.start("values").result()
    counts: Counts = {}
    for became in ("kept", "refused", "changed", "unreadable"):
        names = [line["value"] for line in lines if line["became"] == became]
        counts[became] = len(names)
        if names and became != "kept":
            counts[f"{became}:"] = ", ".join(names)
    return counts


PROBES: dict[str, tuple[Callable[[Run], Counts], tuple[str, ...]]] = {
    "follow": (follow, ("sqlite-normal", "postgresql")),
    "compete": (compete, ("sqlite-normal", "postgresql")),
    "repeat": (repeat, ("sqlite-normal", "postgresql")),
    "killed": (killed, ("sqlite-normal", "postgresql")),
    "cut": (cut, ("postgresql",)),
    "locked": (locked, ("sqlite-normal",)),
    "values": (values, ("sqlite-normal", "postgresql")),
}
"""Each with the databases that it applies to."""

BAD = (
    "lost",
    "duplicated",
    "skipped by the reader",
    "seen twice",
    "two acknowledged at one version",
    "changed",
)
"""What no store may do."""
