"""Cancellation at each suspension in turn: whole or absent, nothing left checked out, and the store works on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.effort import examples
from support.leaks import check_connections
from support.orders import OrderPlaced, placed, several
from support.read_models import Journal, rows
from support.tally import Tally

from adversity.faults.stepping import cancelled_at
from esource import (
    CheckpointRepository,
    EventStore,
    OutboxRelay,
    ProjectionRunner,
    Snapshot,
    SnapshotStore,
    copying,
    open_store,
)

SIZE = 3
"""Events of an append."""


@pytest.fixture
async def store(database_url: str, open_stores) -> EventStore:
    return await open_stores(database_url, outbox_enabled=True)


def kind_of(store: EventStore) -> str:
    return store._opened.database.backend.name


async def at_rest(store: EventStore) -> None:
    """What was begun runs to its end; then nothing is held that should not be."""
    await store._appender.drain()
    async with store.transaction():  # SQLite's thread ends what it had begun, whoever waits for that
        pass
    check_connections(store)


async def at_every_suspension(
    tally: Tally,
    work: Callable[[], Awaitable[Any]],
    check: Callable[[Any], Awaitable[None]],
    *,
    stride: int = 1,
) -> None:
    """Cancel the work at its first suspension, at the next, and so on, until it comes to its end before."""
    number = 1
    while True:
        got_there, result = await cancelled_at(number, work)
        await check(result)
        if not got_there:
            return
        tally.injected += 1
        number += stride


def conclude(tally: Tally, store: EventStore) -> None:
    """Fail if anything went wrong, or if the fault never struck. In memory there are works that never wait."""
    if tally.injected or not store._opened.database.connections.are_in_caller:
        tally.conclude()


class Appends:
    """Works that append; each to a stream of its own, in each try."""

    def __init__(self, store: EventStore) -> None:
        self.store = store
        self.events: list[OrderPlaced] = []
        self.acknowledged: list[UUID] = []

    def fresh(self) -> list[OrderPlaced]:
        self.events = several(SIZE)
        return self.events

    async def write(self, events: list[OrderPlaced], expected: int = 0) -> None:
        await self.store.append_events(events[0].aggregate_id, "Order", events, expected)

    async def alone(self) -> bool:
        await self.write(self.fresh())
        return True

    async def in_company(self) -> bool:
        events = self.fresh()
        others = [asyncio.create_task(self.write(several(SIZE))) for _ in range(2)]
        try:
            await asyncio.sleep(0)
            await self.write(events)
        finally:
            await asyncio.wait(others)
        return True

    async def repeated(self) -> bool:
        """Known already, which is found out with the log locked."""
        events = self.fresh()
        await self.write(events)
        await self.write(events)
        return True

    async def in_transaction(self) -> bool:
        events = self.fresh()
        async with self.store.transaction() as tx:
            await tx.append_events(events[0].aggregate_id, "Order", events[:1], 0)
            await tx.checkpoints.save_position("p", 1, events[0].event_id, "OrderPlaced")
            async with self.store.transaction():
                await tx.append_events(events[0].aggregate_id, "Order", events[1:], 1)
            await tx.snapshots.save_snapshot(Snapshot(events[0].aggregate_id, "Order", SIZE, {}))
        return True

    async def that_fails(self) -> bool:
        events = self.fresh()
        try:
            async with self.store.transaction() as tx:
                await tx.append_events(events[0].aggregate_id, "Order", events, 0)
                raise KeyError
        except KeyError:
            return False

    async def check(self, result: bool | None) -> None:
        await at_rest(self.store)
        stream = self.events[0].aggregate_id
        version = await self.store.get_stream_version(stream, "Order")
        assert version in {True: (SIZE,), False: (0,), None: (0, SIZE)}[result], "half an append"
        if result:
            self.acknowledged += [event.event_id for event in self.events]
        event = placed(stream)
        assert (await self.store.append_events(stream, "Order", [event], version)).new_version == version + 1


@pytest.mark.parametrize("way", ["alone", "in_company", "repeated", "in_transaction", "that_fails"])
async def test_an_append_is_whole_or_absent_wherever_it_is_cancelled(store: EventStore, way):
    tally = Tally(f"append {way.replace('_', ' ')} cancelled at each await", kind_of(store))
    appends = Appends(store)
    for _ in range(examples(1)):
        await at_every_suspension(tally, getattr(appends, way), appends.check)
    log = [stored.event_id async for stored in store.read_all()]
    tally.judge(appends.acknowledged, log)
    outbox = await rows_of_outbox(store)
    assert outbox == log, "the outbox is not the log's"
    conclude(tally, store)


async def rows_of_outbox(store: EventStore) -> list[UUID]:
    async with store.transaction() as tx:
        query = "SELECT event_id FROM event_outbox ORDER BY global_position"
        return [UUID(str(row[0])) for row in await tx.connection.exec_driver_sql(query)]


async def test_a_store_that_is_cancelled_while_it_opens_leaves_nothing_behind(database_url: str, open_stores):
    first = await open_stores(database_url)
    tally = Tally("opening cancelled at each await", kind_of(first))
    opened: list[EventStore] = []

    async def open_and_append() -> None:
        store = open_store(database_url, enable_tracing=False)
        opened.append(store)
        await store.open()
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event])

    async def check(_: None) -> None:
        await opened[-1].close()
        assert await first.get_global_position() >= 0

    if database_url == "sqlite://":  # each is a database of its own, without tables
        open_and_append = lambda: _open_in_memory(opened)
    await at_every_suspension(tally, open_and_append, check)
    tally.conclude()


async def _open_in_memory(opened: list[EventStore]) -> None:
    opened.append(open_store("sqlite://", enable_tracing=False))
    await opened[-1].initialize()


async def test_reading_and_saving_can_be_cancelled_anywhere(store: EventStore):
    stream = uuid4()
    for _ in range(2):
        await store.append_events(stream, "Order", several(300, stream))
    checkpoints, snapshots = CheckpointRepository(store), SnapshotStore(store)

    async def read_all() -> int:
        return len([event async for event in store.read_all()])

    async def read_some() -> int:
        async with aclosing(store.read_all()) as events:
            async for _ in events:
                break
        return (await store.get_events(stream, "Order")).version

    async def follow() -> int:
        async with store.subscribe(from_position=597) as events:
            for _ in range(3):
                await events.__anext__()
        return 600

    async def save() -> int:
        await snapshots.save_snapshot(Snapshot(stream, "Order", 600, {"a": 1}))
        await checkpoints.save_position("p", 600, stream, "OrderPlaced")
        saved = await snapshots.get_snapshot(stream, "Order")
        assert saved is not None
        return (await checkpoints.get_position("p")) or saved.version

    for work in (read_all, read_some, follow, save):
        tally = Tally(f"{work.__name__} cancelled at each await", kind_of(store))

        async def check(result: int | None) -> None:
            assert result in (None, 600)
            await store._opened.database.wake_up.settle()
            await at_rest(store)
            assert await store.get_global_position() == 600

        await at_every_suspension(tally, work, check)
        conclude(tally, store)


async def test_followers_that_are_cancelled_anywhere_go_on_without_a_gap_or_a_repetition(store: EventStore):
    journal, published = Journal(), []

    class Publisher:
        async def publish(self, entry: Any) -> None:
            published.append(entry.event_id)
            await asyncio.sleep(0)

    async def project() -> None:
        await store.append_events((event := placed()).aggregate_id, "Order", [event])
        await ProjectionRunner(store, journal, owner="only").run(live=False)

    async def relay() -> None:
        await store.append_events((event := placed()).aggregate_id, "Order", [event])
        await OutboxRelay(store, Publisher(), enable_metrics=False).drain()

    async def check(_: None) -> None:
        await store._opened.database.wake_up.settle()
        await at_rest(store)

    for work in (project, relay):
        tally = Tally(f"{work.__name__} cancelled at each await", kind_of(store))
        await at_every_suspension(tally, work, check)
        await work()
        log = [stored async for stored in store.read_all()]
        if work is project:
            positions = [stored.global_position for stored in log]
            tally.judge_follower(positions, await rows(store, journal.table, "position"))
        else:
            tally.judge_follower([stored.event_id for stored in log], published, repeats=True)
        tally.conclude()


@pytest.mark.parametrize("direction", ["to", "from"])
async def test_a_copy_that_is_cancelled_anywhere_goes_on_to_be_whole(
    sqlite_url: str, postgres_url: str, open_stores, direction
):
    source, target = (sqlite_url, postgres_url) if direction == "to" else (postgres_url, sqlite_url)
    writer = await open_stores(source)
    tally = Tally(f"copy {direction} PostgreSQL cancelled at each await", "both")

    async def copy() -> None:
        await writer.append_events((event := placed()).aggregate_id, "Order", [event])
        await copying.copy(source, target)

    async def check(_: None) -> None:
        await at_rest(writer)

    await at_every_suspension(tally, copy, check, stride=max(1, 12 // examples(1)))
    await copying.copy(source, target)
    found = await copying.verify_copy(source, target)
    assert found.is_identical, found.differences
    tally.written = found.events
    tally.conclude()
