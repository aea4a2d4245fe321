import asyncio
from uuid import uuid4

import pytest
from support.orders import Order, OrderShipped

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    InMemoryEventStore,
    InMemorySnapshotStore,
    Snapshot,
    SnapshotStore,
)
from esource.errors import InvalidEventError, InvalidOptionError


class Ledger(Order):
    """An order that can be shipped again and again, and remembers what was applied to it."""

    aggregate_type = "Order"

    def __init__(self, aggregate_id):
        super().__init__(aggregate_id)
        self.applied = []

    def _apply(self, event):
        self.applied.append(event.aggregate_version)
        super()._apply(event)

    def ship_again(self):
        self.apply_event(self.create_event(OrderShipped, tracking_number=f"t{self.version + 1}"))


def keeping(store, mode="sync", factory=Ledger, snapshots=None):
    return AggregateRepository(
        store,
        factory,
        snapshot_store=snapshots or SnapshotStore(store),
        snapshot_threshold=3,
        snapshot_mode=mode,
    )


async def grown(repository, count, order=None):
    order = order or repository.create_new(uuid4())
    for _ in range(count):
        if order.version:
            order.ship_again()
        else:
            order.place("c", 1.0)
        await repository.save(order)
    return order


async def snapshot_version(store, order):
    found = await SnapshotStore(store).get_snapshot(order.aggregate_id, "Order")
    return found and found.version


async def test_a_snapshot_is_taken_at_the_threshold_and_used(store):
    repository = keeping(store)
    order = await grown(repository, 2)
    assert await snapshot_version(store, order) is None
    await grown(repository, 2, order)
    assert await snapshot_version(store, order) == 3
    loaded = await repository.load(order.aggregate_id)
    assert (loaded.version, loaded.state, loaded.applied) == (4, order.state, [4])


async def test_a_save_that_passes_the_threshold_takes_one_too(store):
    repository = keeping(store)
    order = repository.create_new(uuid4())
    order.place("c", 1.0)
    for _ in range(3):
        order.ship_again()
    await repository.save(order)
    assert await snapshot_version(store, order) == 4
    assert (await repository.load(order.aggregate_id)).applied == []


@pytest.mark.awaited
async def test_background_snapshots_are_awaited_and_of_the_moment_they_were_due(store):
    gate = asyncio.Event()

    class Gated(SnapshotStore):
        async def save_snapshot(self, snapshot):
            await gate.wait()
            return await super().save_snapshot(snapshot)

    repository = keeping(store, "background", snapshots=Gated(store))
    order = await grown(repository, 4)  # returns although the snapshot has not been taken
    assert await snapshot_version(store, order) is None
    gate.set()
    assert await repository.await_pending_snapshots() == 1
    assert await repository.await_pending_snapshots() == 0
    found = await SnapshotStore(store).get_snapshot(order.aggregate_id, "Order")
    assert (found.version, found.state["tracking_number"]) == (3, "t3")


async def test_manual_snapshots_are_only_taken_when_asked_for(store):
    repository = keeping(store, "manual")
    with pytest.raises(InvalidOptionError, match="without events has no snapshot"):
        await repository.create_snapshot(repository.create_new(uuid4()))
    order = await grown(repository, 4)
    assert await snapshot_version(store, order) is None
    taken = await repository.create_snapshot(order)
    assert (taken.version, taken.state["status"]) == (4, "shipped")
    assert await snapshot_version(store, order) == 4
    order.ship_again()
    with pytest.raises(InvalidOptionError, match="uncommitted events"):
        await repository.create_snapshot(order)
    with pytest.raises(InvalidOptionError, match="needs a snapshot_store"):
        await AggregateRepository(store, Order).create_snapshot(order)


@pytest.mark.parametrize(
    "options",
    [
        {"snapshot_threshold": 0},
        {"snapshot_threshold": 5, "snapshot_store": None},
        {"snapshot_mode": "sometimes"},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidOptionError, match="snapshot_"):
        AggregateRepository(
            InMemoryEventStore(), Order, **{"snapshot_store": InMemorySnapshotStore(), **options}
        )


async def test_another_schema_version_is_replayed(store):
    class Newer(Ledger):
        schema_version = 2

    order = await grown(keeping(store), 3)
    repository = keeping(store, factory=Newer)
    loaded = await repository.load(order.aggregate_id)
    assert (loaded.applied, loaded.state) == ([1, 2, 3], order.state)
    await repository.create_snapshot(loaded)
    assert (await repository.load(order.aggregate_id)).applied == []


async def test_a_snapshot_that_does_not_fit_is_replayed(store, caplog):
    repository = keeping(store)
    order = await grown(repository, 3)
    for state in ({}, {"order_id": "no id"}, {"order_id": [1]}):
        caplog.clear()
        await SnapshotStore(store).save_snapshot(Snapshot(order.aggregate_id, "Order", 3, state))
        loaded = await repository.load(order.aggregate_id)
        assert (loaded.version, loaded.state, loaded.applied) == (3, order.state, [1, 2, 3])
        assert "cannot be used; replaying all events" in caplog.text


async def test_a_restore_that_fails_half_way_leaves_nothing_behind(store):
    class Clumsy(Ledger):
        def _restore_from_snapshot(self, state, version):
            super()._restore_from_snapshot(state, version)
            raise LookupError

    repository = keeping(store, factory=Clumsy)
    order = await grown(repository, 3)
    assert (await repository.load(order.aggregate_id)).applied == [1, 2, 3]


async def test_an_aggregate_that_writes_its_state_itself_is_compared_with_what_it_reads(store, caplog):
    class Forgetful(Ledger):
        def _serialize_state(self):
            return {**super()._serialize_state(), "total": 0.0}

    class Renaming(Ledger):
        def _serialize_state(self):
            return {"kept": super()._serialize_state()}

        def _restore_from_snapshot(self, state, version):
            super()._restore_from_snapshot(state["kept"], version)

    order = await grown(keeping(store, factory=Forgetful), 3)
    assert "state.total: comes back as another float" in caplog.text
    with pytest.raises(InvalidEventError, match=r"state\.total"):
        await keeping(store, factory=Forgetful).create_snapshot(order)
    assert (await keeping(store, factory=Forgetful).load(order.aggregate_id)).applied == [1, 2, 3]
    order = await grown(keeping(store, factory=Renaming), 3)
    assert (await keeping(store, factory=Renaming).load(order.aggregate_id)).applied == []


async def test_a_snapshot_newer_than_the_events_is_ignored(store, caplog):
    repository = keeping(store)
    order = await grown(repository, 2)
    state = order._serialize_state()
    snapshots = SnapshotStore(store)
    await snapshots.save_snapshot(Snapshot(order.aggregate_id, "Order", 9, state))
    loaded = await repository.load(order.aggregate_id)
    assert (loaded.version, loaded.applied) == (2, [1, 2])
    assert "newer than its events (version 9, stored 2)" in caplog.text
    other = uuid4()
    await snapshots.save_snapshot(Snapshot(other, "Order", 9, {**state, "order_id": str(other)}))
    with pytest.raises(AggregateNotFoundError):
        await repository.load(other)


@pytest.mark.parametrize("mode", ["sync", "background"])
@pytest.mark.awaited
async def test_a_snapshot_that_fails_never_fails_a_save(store, mode, caplog):
    class Failing(SnapshotStore):
        async def save_snapshot(self, snapshot):
            raise OSError("disk on fire")

    repository = keeping(store, mode, snapshots=Failing(store))
    order = await grown(repository, 4)
    await repository.await_pending_snapshots()
    assert "disk on fire" in caplog.text
    assert (await repository.load(order.aggregate_id)).version == 4

    class Odd(Ledger):
        def _serialize_state(self):
            raise TypeError("no words for it")

    repository = keeping(store, mode, factory=Odd)
    order = await grown(repository, 3)
    assert "no words for it" in caplog.text
    assert not order.has_uncommitted_events


@pytest.mark.awaited
async def test_a_snapshot_store_that_is_down_only_costs_time(store, caplog):
    class Down(SnapshotStore):
        async def get_snapshot(self, aggregate_id, aggregate_type):
            raise OSError("out of reach")

    order = await grown(keeping(store), 3)
    loaded = await keeping(store, snapshots=Down(store)).load(order.aggregate_id)
    assert loaded.applied == [1, 2, 3]
    assert "out of reach" in caplog.text
