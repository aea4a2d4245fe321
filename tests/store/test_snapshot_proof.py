"""A snapshot is believed if the log holds the event that it was taken of."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from support.orders import Order, OrderShipped

from esource import (
    AggregateRepository,
    EventStore,
    InMemoryEventStore,
    InMemorySnapshotStore,
    InvalidOptionError,
    Snapshot,
    SnapshotStore,
)


class Ledger(Order):
    """An order that remembers which versions were applied to it."""

    aggregate_type = "Order"

    def __init__(self, aggregate_id):
        super().__init__(aggregate_id)
        self.applied: list[int] = []

    def _apply(self, event):
        self.applied.append(event.aggregate_version)
        super()._apply(event)

    def ship_again(self, number: str = "t"):
        self.apply_event(self.create_event(OrderShipped, tracking_number=number))


def keeping(store, snapshots, **options):
    return AggregateRepository(store, Ledger, snapshot_store=snapshots, **options)


async def grown(repository, aggregate_id, count, mark="t"):
    """An order of so many events, saved one by one."""
    order = repository.create_new(aggregate_id)
    order.place("c", 1.0)
    await repository.save(order)
    for _ in range(count - 1):
        order.ship_again(mark)
        await repository.save(order)
    return order


async def test_a_snapshot_of_a_log_that_was_restored_from_a_backup_is_not_believed(store: EventStore, caplog):
    snapshots = InMemorySnapshotStore()  # kept apart, so that no backup of the log takes it along
    order_id = uuid4()
    lost = InMemoryEventStore(enable_tracing=False)
    await grown(keeping(lost, snapshots, snapshot_threshold=3), order_id, 3, "GHOST")
    await lost.close()
    repository = keeping(store, snapshots, snapshot_threshold=2)
    with caplog.at_level(logging.WARNING, "esource"):
        order = await grown(keeping(store, None), order_id, 4, "real")
        loaded = await repository.load(order_id)
    assert (loaded.version, loaded.applied, loaded.state) == (4, [1, 2, 3, 4], order.state)
    assert "was not taken of its events" in caplog.text
    # The next snapshot takes the place of the false one, although that is not an older one.
    loaded.ship_again("real")
    loaded.ship_again("real")
    await repository.save(loaded)
    assert (await repository.load(order_id)).applied == []
    await snapshots.close()


async def test_a_false_snapshot_of_a_later_version_is_replaced_too(store: EventStore):
    snapshots = InMemorySnapshotStore()
    order_id = uuid4()
    lost = InMemoryEventStore(enable_tracing=False)
    await grown(keeping(lost, snapshots, snapshot_threshold=9), order_id, 9, "GHOST")
    await lost.close()
    await grown(keeping(store, None), order_id, 2)
    repository = keeping(store, snapshots, snapshot_threshold=3)
    loaded = await repository.load(order_id)
    assert loaded.applied == [1, 2]
    loaded.ship_again()
    await repository.save(loaded)
    assert (await repository.load(order_id)).applied == []
    assert (await snapshots.get_snapshot(order_id, "Order")).version == 3
    await snapshots.close()


async def test_a_snapshot_is_believed_on_the_store_that_it_was_taken_of(store: EventStore):
    repository = keeping(store, SnapshotStore(store), snapshot_threshold=2)
    order = await grown(repository, uuid4(), 3)
    assert (await repository.load(order.aggregate_id)).applied == [3]
    snapshot = await repository.create_snapshot(await repository.load(order.aggregate_id))
    assert snapshot.event_id is not None
    assert await SnapshotStore(store).get_snapshot(order.aggregate_id, "Order") == snapshot
    assert (await repository.load(order.aggregate_id)).applied == []


async def test_a_snapshot_is_not_taken_of_an_aggregate_that_was_loaded_from_what_was_rolled_back(store):
    repository = keeping(store, SnapshotStore(store))
    order = await grown(repository, uuid4(), 1)
    with pytest.raises(LookupError):
        async with store.transaction():
            ghost = await repository.load(order.aggregate_id)
            ghost.ship_again("GHOST")
            await repository.save(ghost)
            ghost = await repository.load(order.aggregate_id)
            raise LookupError
    order.ship_again("real")
    await repository.save(order)
    with pytest.raises(InvalidOptionError, match="load it anew"):
        await repository.create_snapshot(ghost)
    assert not await SnapshotStore(store).snapshot_exists(order.aggregate_id, "Order")


async def test_a_snapshot_saved_by_hand_takes_its_proof_from_the_log(store: EventStore):
    repository = keeping(store, SnapshotStore(store))
    order = await grown(repository, uuid4(), 2)
    by_hand = Snapshot(order.aggregate_id, "Order", 2, order._serialize_state())
    await SnapshotStore(store).save_snapshot(by_hand)
    found = await SnapshotStore(store).get_snapshot(order.aggregate_id, "Order")
    assert found.event_id == (await store.get_events(order.aggregate_id, "Order")).events[-1].event_id
    assert replace(found, event_id=None) == by_hand
    assert (await repository.load(order.aggregate_id)).applied == []


async def test_a_snapshot_without_proof_is_believed_if_it_is_younger_than_its_event(store: EventStore):
    repository = keeping(store, InMemorySnapshotStore())
    order = await grown(repository, uuid4(), 2)
    stored = [event async for event in store.read_stream(f"{order.aggregate_id}:Order")][-1]
    for seconds, applied in ((1, []), (-1, [1, 2])):
        snapshots = InMemorySnapshotStore()
        await snapshots.save_snapshot(
            Snapshot(
                order.aggregate_id,
                "Order",
                2,
                order._serialize_state(),
                created_at=stored.stored_at + timedelta(seconds=seconds),
            )
        )
        assert (await keeping(store, snapshots).load(order.aggregate_id)).applied == applied
        await snapshots.close()


async def test_the_proof_is_no_part_of_the_state_that_an_aggregate_sees(store: EventStore):
    seen = []

    class Strict(Ledger):
        def _restore_from_snapshot(self, state, version):
            seen.append(set(state))
            super()._restore_from_snapshot(state, version)

    snapshots = SnapshotStore(store)
    repository = AggregateRepository(store, Strict, snapshot_store=snapshots, snapshot_threshold=1)
    order = await grown(repository, uuid4(), 1)
    assert (await repository.load(order.aggregate_id)).applied == []
    assert seen == [set(order._serialize_state())]


async def test_unknown_types_that_are_skipped_do_not_matter_to_the_proof(store, database_url):
    """The event at the snapshot's version may be of a type that this program does not know."""
    from support.orders import OrderPlaced

    from esource.domain.registry import EventRegistry

    registry = EventRegistry()
    registry.register(OrderPlaced)
    order = await grown(keeping(store, None), uuid4(), 3)
    from esource.store.store import EventStore as Store

    blind = Store(store._opened.database, registry, unknown_events="skip", enable_tracing=False)
    snapshots = SnapshotStore(store)
    repository = AggregateRepository(blind, Ledger, snapshot_store=snapshots)
    loaded = await repository.load(order.aggregate_id)
    assert (loaded.version, loaded.applied) == (3, [1])
    await repository.create_snapshot(loaded)
    again = await repository.load(order.aggregate_id)
    assert (again.version, again.applied) == (3, [])
