"""A directory on two PostgreSQL servers, at work while one of them dies and a log moves from one to the other."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from adversity.faults.cluster import Cluster, own_cluster
from sqlalchemy import text
from support.orders import placed
from support.read_models import Journal, until

from esource import EventStore, OutboxRelay, ProjectionRunner, StoredEvent
from esource.directory import Crew, Directory
from esource.errors import DatabaseError

LEASE = 1.0
"""Seconds that a worker waits for another one that died with its server."""

ON_FIRST = ["log0", "log1", "log2", "log3"]
ON_SECOND = ["log4", "log5", "log6", "log7"]
LOGS = [*ON_FIRST, *ON_SECOND]

pytestmark = [pytest.mark.slow, pytest.mark.awaited]


@pytest.fixture
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    with own_cluster() as first, own_cluster() as second:
        yield first, second


class Work:
    """Writers for all logs, and what they were told is stored."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.stored: dict[str, list] = defaultdict(list)
        self._is_over = False
        self._tasks: list[asyncio.Task] = []

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._write(name)) for name in LOGS]

    async def end(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def more(self, names, count: int = 10) -> None:
        """Wait until so many events more are stored in each of these logs."""
        goal = {name: len(self.stored[name]) + count for name in names}
        await until(lambda: all(len(self.stored[name]) >= goal[name] for name in names), 120)

    async def _write(self, name: str) -> None:
        store = await self._directory.log(name)
        while not self._is_over:
            event = placed()
            while True:
                try:
                    await store.append_events(event.aggregate_id, "Order", [event])
                except DatabaseError:
                    await asyncio.sleep(0.05)  # in doubt: the same event is not stored twice
                else:
                    break
            self.stored[name].append(event.event_id)
            await asyncio.sleep(0.005)


async def all_of(store: EventStore) -> list[StoredEvent]:
    return [each async for each in store.read_all()]


async def journal_of(store: EventStore) -> list[int]:
    """The positions in the read model of a log, in the order in which they came there."""
    async with store.reading() as connection:
        rows = await connection.execute(text("SELECT position FROM journal_1 ORDER BY number"))
        return list(rows.scalars())


async def strike(
    first: Cluster, second: Cluster, directory: Directory, work: Work, published: Counter
) -> None:
    work.begin()
    await work.more(LOGS)

    # A server dies: the logs on the other go on, and so do their followers; then it comes back.
    await asyncio.to_thread(second.stop)
    await work.more(ON_FIRST)
    ids = {event_id for name in ON_FIRST for event_id in work.stored[name]}
    await until(lambda: published.keys() >= ids, 60)
    await asyncio.to_thread(second.start)
    await work.more(LOGS)

    # A log moves to the other server while it is written to.
    await directory.move("log0", second.url.update_query_dict({"schema": "log0"}), reset=["journal"])
    await work.more(LOGS)
    await work.end()


async def test_nothing_is_lost_or_handled_twice_when_a_server_dies_and_a_log_moves(servers, open_directories):
    first, second = servers
    url = first.url.render_as_string()
    directory = await open_directories(url, outbox_enabled=True)
    for name in ON_FIRST:
        await directory.create(name)
    for name in ON_SECOND:
        await directory.create(name, at=second.url.update_query_dict({"schema": name}))
    published: Counter = Counter()

    class Broker:
        async def publish(self, entry):
            published[entry.event_id] += 1

    def project(store):
        return ProjectionRunner(
            store, Journal(), lease_seconds=LEASE, restart_seconds=0.1, max_restart_seconds=1
        )

    def relay(store):
        return OutboxRelay(store, Broker(), lease_seconds=LEASE, max_retry_seconds=1)

    others = [await open_directories(url, refresh_seconds=0.5) for _ in range(2)]
    crews = [
        Crew(each, what, follow, lease_seconds=LEASE)
        for each in others
        for what, follow in (("journal", project), ("relay", relay))
    ]
    work = Work(directory)
    async with AsyncExitStack() as stack:
        for crew in crews:
            await stack.enter_async_context(crew)
        stack.push_async_callback(work.end)
        await strike(first, second, directory, work, published)
        stored = {name: await all_of(await directory.log(name)) for name in LOGS}

        async def are_done():
            for name in LOGS:
                if await journal_of(await directory.log(name)) != [
                    each.global_position for each in stored[name]
                ]:
                    return False
            return True

        await until(are_done, 120)
        everything = {each.event_id for name in LOGS for each in stored[name]}
        await until(lambda: published.keys() >= everything, 120)
    for name in LOGS:
        ids = [each.event_id for each in stored[name]]
        assert sorted(ids) == sorted(work.stored[name]), name  # nothing lost, nothing twice
        assert len(set(ids)) == len(ids)
        assert [each.global_position for each in stored[name]] == sorted(
            each.global_position for each in stored[name]
        )
    assert published.keys() == everything
    # At least once is promised: what was at hand when a server died or a log moved may be published again.
    assert sum(published.values()) - len(published) <= 100 * len(crews)
    assert [outcome.error for outcome in await directory.verify()] == [None] * 8
    assert (await directory.log("log0")).name == (await directory.log("log4")).name.replace("log4", "log0")
