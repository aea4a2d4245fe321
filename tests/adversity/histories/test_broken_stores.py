"""Stores that are broken on purpose, in one way each: their histories show it.

The clients are tasks here, on several stores of one process, so that a store can be broken from outside.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import literal_column
from support.effort import examples, seed
from support.schemas import execute

from adversity.histories import client
from adversity.histories.checker import check
from adversity.histories.client import Client
from adversity.histories.history import Recorder, load
from esource import AppendConditionError, EventStore, ExpectedVersion, OptimisticLockError, ReadOptions
from esource.dialect.backend import STANDARD
from esource.dialect.postgresql import append as postgresql_append
from esource.errors import ConstraintError
from esource.tables.append_function import CREATE
from esource.tables.statement import Statement

ROUNDS = 20
"""One round most often shows it; which operations meet in it is up to the machine, so they may go on."""


async def kinds(stores: list[EventStore], last: EventStore, folder: Path, wanted: str) -> set[str]:
    """The anomalies in a history of clients on these stores, which ends when it shows the wanted kind."""
    recorders = [Recorder(folder / f"client{n}", f"client{n}") for n in range(2 * len(stores))]
    clients = [
        Client(stores[n % len(stores)], recorder, f"client{n}", seed())
        for n, recorder in enumerate(recorders)
    ]
    recorder = Recorder(folder / "last", "last")
    found: set[str] = set()
    for _ in range(ROUNDS):
        await asyncio.gather(*(client.work(examples(50)) for client in clients))
        await Client(last, recorder, "last", 0).read_log(0, None)
        anomalies = check(load(sorted(folder.iterdir())))
        print(*anomalies, sep="\n")
        found = {anomaly.kind for anomaly in anomalies}
        if wanted in found:
            break
    for each in [*recorders, recorder]:
        each.close()
    return found


class Broken:
    """A store of which one method does something else."""

    def __init__(self, store: EventStore, chance: random.Random) -> None:
        self.store = store
        self.chance = chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class IgnoresVersions(Broken):
    async def append_events(self, *arguments: Any, **options: Any) -> Any:
        return await self.store.append_events(*arguments[:3], ExpectedVersion.ANY, **options)


class ForgetsAppends(Broken):
    async def append_events(self, *arguments: Any, **options: Any) -> Any:
        if "connection" in options or self.chance.random() < 0.8:
            return await self.store.append_events(*arguments, **options)
        try:
            async with self.store.transaction():
                result = await self.store.append_events(*arguments, **options)
                raise KeyError
        except KeyError:
            return result


class AppendsOneByOne(Broken):
    async def append_events(self, stream: Any, kind: str, events: Any, expected: int, **options: Any) -> Any:
        for number, event in enumerate(events):
            follows = expected if number == 0 or expected < 0 else expected + number
            result = await self.store.append_events(stream, kind, [event], follows, **options)
            await asyncio.sleep(0)
        return result


class CommitsWhatIsRolledBack(Broken):
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        yield SimpleNamespace(connection=None)

    async def append_events(self, *arguments: Any, **options: Any) -> Any:
        options.pop("connection", None)
        return await self.store.append_events(*arguments, **options)


class ReadsTheLogAsItWas(Broken):
    """As a cache does, or a replica that lags."""

    kept: list[Any]

    async def read_all(self, options: ReadOptions) -> Any:
        if not hasattr(self, "kept") or self.chance.random() < 0.1:
            self.kept = [stored async for stored in self.store.read_all()]
        for stored in [s for s in self.kept if s.global_position > options.from_position][: options.limit]:
            yield stored


class RefusesByOldVersions(Broken):
    async def append_events(self, stream: Any, kind: str, events: Any, expected: int, **options: Any) -> Any:
        if expected > 0 and self.chance.random() < 0.3:
            raise OptimisticLockError(kind, stream, expected, expected - 1)
        return await self.store.append_events(stream, kind, events, expected, **options)


class IgnoresConditions(Broken):
    async def append_events(self, *arguments: Any, **options: Any) -> Any:
        options.pop("condition", None)
        return await self.store.append_events(*arguments, **options)


class JudgesBeforeTheLock(Broken):
    async def append_events(self, *arguments: Any, **options: Any) -> Any:
        condition = options.pop("condition", None)
        if condition is not None:
            found = await self.store.read_query(condition.query, condition.after)
            if found.events:
                return await self.store.append_events(*arguments, **options, condition=condition)
        return await self.store.append_events(*arguments, **options)


class InventsMatches(Broken):
    async def append_events(self, stream: Any, kind: str, events: Any, expected: int, **options: Any) -> Any:
        condition = options.get("condition")
        if condition is not None and self.chance.random() < 0.3:
            after = condition.after
            raise AppendConditionError(
                kind, stream, expected, after=after, global_position=after + 1, event_type="x"
            )
        return await self.store.append_events(stream, kind, events, expected, **options)


SLOW = (JudgesBeforeTheLock, InventsMatches)
BREAKS = {
    IgnoresConditions: "excluded",
    JudgesBeforeTheLock: "excluded",
    InventsMatches: "unjustified",
    IgnoresVersions: "accepted",
    ForgetsAppends: "lost",
    AppendsOneByOne: "torn",
    CommitsWhatIsRolledBack: "torn",
    ReadsTheLogAsItWas: "missed",
    RefusesByOldVersions: "unjustified",
}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(broken, id=broken.__name__, marks=[pytest.mark.slow] * (broken in SLOW))
        for broken in BREAKS
    ],
)
async def test_the_history_of_a_store_shows_that_it(broken, sqlite_url, open_stores, tmp_path):
    stores = [await open_stores(sqlite_url, busy_timeout=60_000) for _ in range(2)]
    chance = random.Random(seed())
    folder = tmp_path / "histories"
    folder.mkdir()
    kind = BREAKS[broken]
    assert kind in await kinds([broken(store, chance) for store in stores], stores[0], folder, kind)


async def test_the_history_shows_that_postgresql_appends_without_the_order_lock(
    postgres_url, open_stores, tmp_path, monkeypatch
):
    stores = [await open_stores(postgres_url) for _ in range(2)]
    backend = stores[0]._opened.database.backend  # one for all stores of a process
    await execute(postgres_url, CREATE.replace("pg_advisory_xact_lock(", "num_nonnulls("))
    monkeypatch.setattr(postgresql_append, "lock_log", literal_column("1"))
    lock = Statement(postgresql_append.lock_statement(STANDARD))
    monkeypatch.setattr(backend, "_lock", lock.on(backend.sqlalchemy_dialect).text)
    # Two may now find the same version free.
    monkeypatch.setattr(client, "ABORTS", (*client.ABORTS, ConstraintError))
    assert "skipped" in await kinds(stores, stores[0], tmp_path, "skipped")
