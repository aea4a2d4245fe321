"""What is kept in memory (aggregates, publishers, snapshots) goes the way of its transaction."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest
from support.orders import Order, OrderShipped

from esource import (
    AggregateRepository,
    EventStore,
    InMemorySnapshotStore,
    OptimisticLockError,
    SnapshotStore,
)


class Longer(Order):
    aggregate_type = "Order"

    def ship_again(self) -> None:
        self.apply_event(self.create_event(OrderShipped, tracking_number=f"t{self.version + 1}"))


class Told:
    """A publisher that remembers, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.events: list[list[str]] = []
        self.failures = failures

    async def publish(self, events) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the broker is away")
        self.events.append([event.event_type for event in events])


def order_of(repository: AggregateRepository) -> Longer:
    order = repository.create_new(uuid4())
    order.place("c", 1.0)
    return order


async def versions(store: EventStore, *orders: Order) -> list[int]:
    return [await store.get_stream_version(order.aggregate_id, "Order") for order in orders]


class Changed(Exception):
    """A reason to roll back."""


@pytest.fixture
def repository(store: EventStore) -> AggregateRepository:
    return AggregateRepository(store, Longer)


async def test_a_save_that_was_rolled_back_can_be_repeated(store: EventStore, repository):
    order = order_of(repository)
    for _ in range(3):
        with pytest.raises(Changed):
            async with store.transaction():
                await repository.save(order)
                assert not order.has_uncommitted_events
                raise Changed
        assert [event.event_type for event in order.uncommitted_events] == ["OrderPlaced"]
        assert await versions(store, order) == [0]
    async with store.transaction():
        await repository.save(order)
    assert await versions(store, order) == [1]
    assert not order.has_uncommitted_events
    assert (await repository.load(order.aggregate_id)).state == order.state


async def test_a_conflict_of_one_aggregate_gives_back_what_another_saved(store: EventStore, repository):
    sender, receiver = order_of(repository), order_of(repository)
    await repository.save(receiver)
    stale = await repository.load(receiver.aggregate_id)
    receiver.ship("t")
    await repository.save(receiver)
    stale.ship("u")
    with pytest.raises(OptimisticLockError):
        async with store.transaction():
            await repository.save(sender)
            await repository.save(stale)
    assert await versions(store, sender) == [0]
    fresh = await repository.load(receiver.aggregate_id)
    fresh.ship_again()
    async with store.transaction():
        await repository.save(sender)
        await repository.save(fresh)
    assert await versions(store, sender, receiver) == [1, 3]


async def test_several_saves_are_given_back_in_their_order(store: EventStore, repository):
    order = order_of(repository)
    with pytest.raises(Changed):
        async with store.transaction():
            await repository.save(order)
            order.ship("t")
            await repository.save(order)
            order.ship_again()
            raise Changed
    assert [event.aggregate_version for event in order.uncommitted_events] == [1, 2, 3]
    await repository.save(order)
    assert await versions(store, order) == [3]


async def test_a_savepoint_gives_back_what_was_saved_inside_and_no_more(store: EventStore, repository):
    outer, inner, kept = order_of(repository), order_of(repository), order_of(repository)
    async with store.transaction():
        await repository.save(outer)
        with pytest.raises(Changed):
            async with store.transaction():
                await repository.save(inner)
                raise Changed
        assert inner.has_uncommitted_events
        assert not outer.has_uncommitted_events
        async with store.transaction():
            await repository.save(kept)
    assert await versions(store, outer, inner, kept) == [1, 0, 1]
    await repository.save(inner)
    assert await versions(store, inner) == [1]


async def test_an_outer_rollback_gives_back_what_a_savepoint_kept(store: EventStore, repository):
    order = order_of(repository)
    with pytest.raises(Changed):
        async with store.transaction():
            async with store.transaction():
                await repository.save(order)
            raise Changed
    assert order.has_uncommitted_events
    await repository.save(order)
    assert await versions(store, order) == [1]


async def test_a_cancelled_transaction_gives_back_what_was_saved(store: EventStore, repository):
    order, saved = order_of(repository), asyncio.Event()

    async def work() -> None:
        async with store.transaction():
            await repository.save(order)
            saved.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await saved.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order.has_uncommitted_events
    await repository.save(order)
    assert await versions(store, order) == [1]


async def test_a_bound_store_s_transaction_gives_back_as_well(store: EventStore):
    bound = store.for_tenant(uuid4())
    repository = AggregateRepository(bound, Longer)
    order = order_of(repository)
    with pytest.raises(Changed):
        async with bound.transaction():
            await repository.save(order)
            raise Changed
    assert order.has_uncommitted_events
    await repository.save(order)
    assert (await repository.load(order.aggregate_id)).version == 1


# A publisher.


async def test_a_publisher_is_told_after_the_commit(store: EventStore):
    told = Told()
    repository = AggregateRepository(store, Longer, event_publisher=told)
    order = order_of(repository)
    async with store.transaction():
        await repository.save(order)
        order.ship("t")
        await repository.save(order)
        assert told.events == []
    assert told.events == [["OrderPlaced"], ["OrderShipped"]]


async def test_a_publisher_is_not_told_of_what_was_rolled_back(store: EventStore):
    told = Told()
    repository = AggregateRepository(store, Longer, event_publisher=told)
    order = order_of(repository)
    with pytest.raises(Changed):
        async with store.transaction():
            await repository.save(order)
            raise Changed
    assert told.events == []
    await repository.save(order)
    assert told.events == [["OrderPlaced"]]


async def test_a_publisher_that_failed_is_told_by_the_next_save(store: EventStore):
    told = Told(failures=2)
    repository = AggregateRepository(store, Longer, event_publisher=told)
    order = order_of(repository)
    with pytest.raises(ConnectionError):
        await repository.save(order)
    assert not order.has_uncommitted_events
    order.ship("t")
    with pytest.raises(ConnectionError):
        await repository.save(order)
    assert await versions(store, order) == [2]
    await repository.save(order)
    assert told.events == [["OrderPlaced"], ["OrderShipped"]]
    await repository.save(order)
    assert told.events == [["OrderPlaced"], ["OrderShipped"]]


async def test_a_publisher_that_fails_after_a_commit_does_not_say_that_it_was_rolled_back(store, caplog):
    told = Told(failures=1)
    repository = AggregateRepository(store, Longer, event_publisher=told)
    order = order_of(repository)
    with caplog.at_level(logging.WARNING, "esource"):
        async with store.transaction():
            await repository.save(order)
    assert "the broker is away" in caplog.text
    assert await versions(store, order) == [1]
    await repository.save(order)
    assert told.events == [["OrderPlaced"]]


# Snapshots.


@pytest.mark.parametrize("mode", ["sync", "background"])
async def test_no_snapshot_is_taken_of_what_was_rolled_back(store: EventStore, mode):
    elsewhere = InMemorySnapshotStore()
    for snapshots in (SnapshotStore(store), elsewhere):
        repository = AggregateRepository(
            store, Longer, snapshot_store=snapshots, snapshot_threshold=1, snapshot_mode=mode
        )
        order = order_of(repository)
        with pytest.raises(Changed):
            async with store.transaction():
                await repository.save(order)
                await asyncio.sleep(0)
                raise Changed
        await repository.await_pending_snapshots()
        assert await snapshots.get_snapshot(order.aggregate_id, "Order") is None
        async with store.transaction():
            await repository.save(order)
        await repository.await_pending_snapshots()
        assert (await snapshots.get_snapshot(order.aggregate_id, "Order")).version == 1
    await elsewhere.close()


async def test_a_cancelled_background_snapshot_does_not_cancel_who_waits_for_it(store: EventStore):
    repository = AggregateRepository(
        store, Longer, snapshot_store=SnapshotStore(store), snapshot_threshold=1, snapshot_mode="background"
    )
    await repository.save(order_of(repository))
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert await repository.await_pending_snapshots() <= 1
