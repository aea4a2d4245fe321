"""A network that resets, holds back or swallows: what an append says is true, and the store works on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import product
from typing import Any, TypeVar
from uuid import UUID

import pytest
from support.effort import examples
from support.orders import OrderPlaced, placed, several
from support.tally import Tally, chance

from adversity.faults.proxy import Proxy
from esource import EventStore
from esource.errors import DatabaseUnavailableError, OptimisticLockError

T = TypeVar("T")

IMPATIENT = {"connect_args": {"timeout": 1.0, "command_timeout": 1.0}}
"""For black holes: nobody but the client itself can say that it has waited for long enough. A busy machine may take as
long by itself: then a call that is repeated is answered all the same."""

BREAKS = [
    *product(["cut"], ["before", "after", "middle"]),
    ("hole", "after"),
    *(pytest.param("hole", moment, marks=pytest.mark.slow) for moment in ("before", "middle")),
]

FOREVER = 60.0
"""Longer than anything here may take, on any machine."""


def bounded(work: Awaitable[T]) -> Awaitable[T]:
    return asyncio.wait_for(work, FOREVER)


def append(store: EventStore, events: list[OrderPlaced], version: int = 0) -> Awaitable[Any]:
    return bounded(store.append_events(events[0].aggregate_id, "Order", events, version))


async def event_ids(store: EventStore) -> list[UUID]:
    return [stored.event_id async for stored in store.read_all()]


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "moment"), BREAKS)
async def test_an_append_whose_connection_breaks_is_answered_truthfully(
    proxy: Proxy, postgres_url: str, open_stores, harm, moment
):
    store = await open_stores(proxy.url, **(IMPATIENT if harm == "hole" else {}))
    direct = await open_stores(postgres_url)
    draw = chance(f"{harm} {moment}")
    tally = Tally(f"connection {harm} {moment} the append's answer", "postgresql")
    acknowledged: list[UUID] = []
    for round_ in range(examples(1 if harm == "hole" else 5)):
        marker = f"marker-{round_}-"
        fault = proxy.arm(marker.encode(), moment, harm)
        struck = several(draw.randint(1, 3), customer_id=marker)
        others = [several(draw.randint(1, 3)) for _ in range(draw.randint(0, 3))]
        results = await asyncio.gather(append(store, struck), *(append(store, events) for events in others))
        assert fault.fired.is_set()
        tally.injected += 1
        for events, result in zip([struck, *others], results, strict=True):
            assert result.new_version == len(events)
            acknowledged += [event.event_id for event in events]
        # A version that is taken is a conflict, whatever happened on the way to finding out.
        again = proxy.arm(b"rival-", moment, harm)
        with pytest.raises(OptimisticLockError):
            await append(store, [placed(struck[0].aggregate_id, customer_id="rival-")])
        assert again.fired.is_set()
        tally.injected += 1
    later = placed()
    assert (await append(store, [later])).new_version == 1
    tally.judge([*acknowledged, later.event_id], await event_ids(direct))
    tally.conclude()


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "moment"), BREAKS)
async def test_a_transaction_whose_commit_is_not_answered_says_so_and_can_be_repeated(
    proxy: Proxy, postgres_url: str, open_stores, harm, moment
):
    store = await open_stores(proxy.url, **(IMPATIENT if harm == "hole" else {}))
    direct = await open_stores(postgres_url)
    tally = Tally(f"connection {harm} {moment} the answer to a COMMIT", "postgresql")
    acknowledged: list[UUID] = []

    async def write(events: list[OrderPlaced]) -> bool:
        async with store.transaction() as tx:
            result = await tx.append_events(events[0].aggregate_id, "Order", events, 0)
            assert result.new_version == len(events)
            return result.idempotent

    for _ in range(examples(1 if harm == "hole" else 3)):
        events = several(2)
        fault = proxy.arm(b"COMMIT\0", moment, harm)
        with pytest.raises(DatabaseUnavailableError, match="not known whether the transaction is stored"):
            await bounded(write(events))
        assert fault.fired.is_set()
        tally.injected += 1
        tally.errors += 1
        # What the server was told to commit is stored; what never reached it is not.
        assert await bounded(write(events)) == (moment != "before")
        acknowledged += [event.event_id for event in events]
    tally.judge(acknowledged, await event_ids(direct))
    tally.conclude()


@pytest.mark.slow
@pytest.mark.parametrize("expected", [0, -1], ids=["at a version", "at any version"])
async def test_an_append_that_arrives_after_it_was_given_up_and_repeated_is_stored_once(
    proxy: Proxy, postgres_url: str, open_stores, expected
):
    store = await open_stores(proxy.url, **IMPATIENT)
    direct = await open_stores(postgres_url)
    tally = Tally("append delivered after its client gave it up", "postgresql")
    acknowledged: list[UUID] = []
    await append(store, several(2))  # its statement is known to the connection: the next is one round trip
    for round_ in range(examples(1)):
        late = several(2, customer_id=f"late-{round_}-")
        fault = proxy.arm(f"late-{round_}-".encode(), "before", "hold")
        assert (await append(store, late, expected)).new_version == 2
        fault.let_go.set()
        await fault.delivered.wait()
        tally.injected += 1
        acknowledged += [event.event_id for event in late]
        # The log's lock is taken in turn: when this one is stored, the late one has had its turn as well.
        after = placed()
        await append(direct, [after])
        acknowledged.append(after.event_id)
    tally.judge(acknowledged, (await event_ids(direct))[2:])
    tally.conclude()


@pytest.mark.parametrize("moment", ["before", "after", "middle"])
async def test_an_append_that_is_only_late_is_stored_once(proxy: Proxy, open_stores, moment):
    store = await open_stores(proxy.url)
    tally = Tally(f"connection slow {moment} the append's answer", "postgresql")
    slow = several(3, customer_id="slow-")
    fault = proxy.arm(b"slow-", moment, "hold")
    waiting = asyncio.create_task(append(store, slow))
    await fault.fired.wait()
    others = [placed() for _ in range(3)]
    results = asyncio.gather(*(append(store, [event]) for event in others))
    fault.let_go.set()
    assert (await waiting).new_version == 3
    assert [result.new_version for result in await results] == [1, 1, 1]
    tally.injected += 1
    tally.judge([event.event_id for event in [*slow, *others]], await event_ids(store))
    tally.conclude()


@pytest.mark.slow
async def test_when_the_network_swallows_everything_each_call_ends_in_a_clear_error(
    proxy: Proxy, postgres_url: str, open_stores
):
    store = await open_stores(proxy.url, retry_seconds=0.2, **IMPATIENT)
    direct = await open_stores(postgres_url)
    tally = Tally("network swallows everything, then comes back", "postgresql")
    kept = placed()
    await append(store, [kept])
    acknowledged, doubtful = [kept.event_id], []

    async def transact(event: OrderPlaced) -> None:
        async with store.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event])

    for _ in range(examples(1)):
        proxy.swallow_all()
        one, two = placed(), placed()
        results = await asyncio.gather(
            append(store, [one]),
            bounded(store.get_global_position()),
            bounded(transact(two)),
            bounded(event_ids(store)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [DatabaseUnavailableError] * 4, results
        tally.injected += 1
        tally.errors += len(results)
        doubtful += [one.event_id, two.event_id]
        proxy.restore()
        # At once, although every connection that was held has become a hole.
        assert (await append(store, [one])).new_version == 1
        acknowledged.append(one.event_id)
    stored = await event_ids(direct)
    assert set(stored) <= {*acknowledged, *doubtful}
    tally.judge(acknowledged, stored)
    tally.conclude()


@pytest.mark.awaited
async def test_a_caller_that_loses_patience_leaves_no_dead_connection_to_the_next_one(
    proxy: Proxy, open_stores, monkeypatch
):
    """Without any timeout of the driver's: what was cancelled in a hole is never answered."""
    monkeypatch.setattr("esource.dialect.postgresql.backend.SETTLE_SECONDS", 0.2)
    store = await open_stores(proxy.url)
    tally = Tally("caller cancelled in a black hole", "postgresql")
    await append(store, [placed()])
    for moment in ("before", "after"):
        for name, work in (
            ("append", lambda: store.append_events(lost.aggregate_id, "Order", [lost])),
            ("read", lambda: store.event_exists(lost.event_id)),
        ):
            lost = placed(customer_id=f"{name}-{moment}")
            trigger = lost.customer_id.encode() if name == "append" else lost.event_id.bytes
            fault = proxy.arm(trigger, moment, "hole")
            task = asyncio.create_task(work())
            await fault.fired.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await bounded(task)
            tally.injected += 1
            assert (await append(store, [placed()])).success
            assert await bounded(store.get_global_position()) > 0
    tally.conclude()


@pytest.mark.slow
@pytest.mark.awaited  # the task that waits is cancelled
async def test_a_subscription_whose_network_swallows_everything_can_be_closed(
    proxy: Proxy, open_stores, monkeypatch
):
    """Its connection that listens has no statement under way, and no end."""
    monkeypatch.setattr("esource.dialect.postgresql.backend.SETTLE_SECONDS", 0.2)
    store = await open_stores(proxy.url)
    await append(store, [placed()])
    subscription = store.subscribe()
    assert await subscription.__anext__()
    waiting = asyncio.create_task(subscription.__anext__())
    while not store._opened.database.wake_up.is_watching:
        await asyncio.sleep(0.001)
    proxy.swallow_all()
    waiting.cancel()
    await asyncio.wait([waiting])
    await bounded(subscription.close())
    proxy.restore()


@pytest.mark.parametrize("read", ["the end of the log", "a page"])
async def test_a_subscription_whose_read_is_swallowed_is_closed_within_its_limit(
    monkeypatch, proxy: Proxy, open_stores, read: str
):
    """The task, or the thread, that reads gets the end of the iteration."""
    monkeypatch.setattr("esource.dialect.postgresql.backend.SETTLE_SECONDS", 0.2)
    store = await open_stores(proxy.url)
    store._opened.database.close_seconds = 0.2
    events = several(2000 if read == "a page" else 1)
    await append(store, events)
    subscription = store.subscribe()
    if read == "a page":
        await subscription.__anext__()

    async def read_on() -> int:
        return len([stored async for stored in subscription])

    proxy.swallow_all()
    reading = asyncio.create_task(read_on())
    while not (subscription._looking if subscription._pages is None else subscription._pages.fetching):
        await asyncio.sleep(0.001)
    await bounded(subscription.close())
    assert await bounded(reading) < len(events)
    with pytest.raises(StopAsyncIteration):
        await subscription.__anext__()
    proxy.restore()
    assert await bounded(store.get_global_position()) == len(events)


async def test_a_store_whose_idle_connections_are_swallowed_can_be_closed(
    proxy: Proxy, open_stores, monkeypatch
):
    monkeypatch.setattr("esource.dialect.postgresql.backend.SETTLE_SECONDS", 0.2)
    store = await open_stores(proxy.url)
    await append(store, [placed()])
    proxy.swallow_all()
    await bounded(store.close())


async def test_what_ends_a_transaction_is_not_hidden_by_a_connection_that_is_gone(proxy: Proxy, open_stores):
    store = await open_stores(proxy.url)

    class Refused(Exception):
        pass

    async def fail(error: type[BaseException]) -> None:
        event = placed()
        async with store.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event])
            proxy.cut_all()
            raise error

    for error in (Refused, asyncio.CancelledError):
        with pytest.raises(error):
            await bounded(fail(error))
    assert (await append(store, [placed()])).global_position > 0
    assert len(await event_ids(store)) == 1
