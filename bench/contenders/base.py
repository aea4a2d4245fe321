"""What the workloads need of a contender, and the content that all of them store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID, uuid4

T = TypeVar("T")

CONTENT: dict[str, Any] = {
    "customer": "c-4711",
    "product": "Espresso machine, 15 bar",
    "quantity": 3,
    "price": 249.9,
    "reference": UUID("6f9619ff-8b86-4011-b42d-00c04fc964ff"),
    "note": "leave it at the back door",
}
"""The fields of every event, equal everywhere."""

AGGREGATE_TYPE = "Order"

FOLDER = "BENCH_FOLDER"
"""The variable of the environment with the folder for what a contender's own server writes."""

Items = list[tuple[str, ...]]
"""A query: events of the type that all workloads append, with all tags of any of these."""


@dataclass(frozen=True)
class Target:
    """A database to open."""

    kind: str
    """sqlite-full, sqlite-normal, postgresql or memory."""
    address: str
    """A path, a URL, or ``:memory:``."""
    writers: int = 1
    """Connections that a pooled contender gets."""
    ready: bool = False
    """Whether the contender made its tables there before."""

    @property
    def synchronous(self) -> str:
        return "FULL" if self.kind == "sqlite-full" else "NORMAL"


class Contender:
    """One library or driver, opened on one database."""

    conflicts: tuple[type[BaseException], ...] = ()
    """What an append raises when the stream is at another version."""

    async def open(self, target: Target) -> None:
        """Connect, and make the tables if there are none."""
        raise NotImplementedError

    async def close(self) -> None: ...

    async def durability(self) -> dict[str, str]:
        """The settings that decide whether a commit survives a power cut, as read back."""
        return {}

    def versions(self) -> dict[str, str]:
        """What was measured: package names with their versions."""
        return {}

    def new_stream(self) -> Any:
        return uuid4()

    def event(self, stream: Any, version: int) -> Any:
        """A typed event for this place, built before the clock starts."""
        raise NotImplementedError

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        """Append under a version check, durable on return."""
        raise NotImplementedError

    async def version(self, stream: Any) -> int:
        raise NotImplementedError

    async def append_on_top(self, stream: Any, event: Any) -> int:
        """Read the version, append behind it, and again until it succeeds; the number of conflicts."""
        refused = 0
        while True:
            try:
                await self.append(stream, [event], await self.version(stream))
            except self.conflicts:
                refused += 1
            else:
                return refused

    async def execute(self, stream: Any, event: Any) -> int:
        """The same as a command on an aggregate, where the library has a call for it."""
        return await self.append_on_top(stream, event)

    async def load(self, stream: Any) -> int:
        """Decode the whole stream; the number of typed events."""
        raise NotImplementedError

    async def read_all(self) -> int:
        """Decode the whole log, event by event; the number of typed events."""
        raise NotImplementedError

    async def read_envelopes(self) -> int:
        """Read the whole log without needing the events themselves."""
        raise NotImplementedError

    async def project(self, events: int) -> int:
        """Bring a fresh read model up to date with the log of so many events, one row per stream that
        counts its lines, in the same database; the lines that it has counted."""
        raise NotImplementedError

    async def new_aggregate(self, events: int) -> Any:
        """Save an aggregate of so many events; its id."""
        raise NotImplementedError

    async def change_aggregate(self, identifier: Any) -> None:
        """Load an aggregate, give one command, save."""
        raise NotImplementedError

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        """Append a typed event with tags, unless one that the query selects has come past a position; its own position."""
        raise NotImplementedError

    async def read_decision(self, items: Items) -> int:
        """Decode what a query selects, and learn the head of the log; the number of typed events."""
        raise NotImplementedError

    async def enrol(self, students: list[str], courses: list[str]) -> int:
        """Register each, and then every student for every course: no course takes more students than there are, no student
        more courses than there are, and nobody twice. The number of events that it took."""
        raise NotImplementedError

    async def prepare_move(self, source: Target) -> None:
        """What may be done before the clock starts: opening the source."""

    async def move(self, source: Target) -> None:
        """Bring the whole log of another database into this one, which has its tables and nothing else."""
        raise NotImplementedError

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def concurrently(self, works: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run these at the same time."""
        return list(await asyncio.gather(*works))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what the worker wants of it, to its end."""
        return asyncio.run(work)


class BlockingContender(Contender):
    """A contender without async: no event loop runs, its methods block and never suspend, and concurrency is threads."""

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop

    async def concurrently(self, works: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        if len(works) == 1:
            return [_run_blocking(works[0])]
        with ThreadPoolExecutor(len(works)) as threads:
            return list(threads.map(_run_blocking, works))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return _run_blocking(work)


def _run_blocking(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("a blocking contender suspended")


def server_address(url: str) -> dict[str, str]:
    """A PostgreSQL URL in parts; the host may be a socket folder in the query."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return {
        "user": unquote(parts.username or query.get("user", "postgres")),
        "password": unquote(parts.password or ""),
        "host": parts.hostname or query.get("host", "localhost"),
        "port": str(parts.port or query.get("port", "5432")),
        "dbname": parts.path.lstrip("/"),
    }


async def asyncpg_durability(connection: Any) -> dict[str, str]:
    return {
        name: await connection.fetchval(f"SHOW {name}")
        for name in ("fsync", "synchronous_commit", "full_page_writes")
    }


SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
"""What ``PRAGMA synchronous`` answers."""
