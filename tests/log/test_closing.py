"""Closing a stream: its tombstone, what is refused afterwards, and what can still be read."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import Order, OrderPlaced, placed, several

from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    EventRegistry,
    ExpectedVersion,
    InvalidEventError,
    OptimisticLockError,
    OutboxRepository,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    ReadOptions,
    Snapshot,
    SnapshotStore,
    StreamClosed,
    StreamClosedError,
    TenantMismatchError,
    handles,
)

ANY, NO_STREAM, STREAM_EXISTS = ExpectedVersion.ANY, ExpectedVersion.NO_STREAM, ExpectedVersion.STREAM_EXISTS
ORDER = uuid4()


@pytest.fixture
async def closed(store):
    """A store in which an order of two events was closed."""
    await store.append_events(ORDER, "Order", several(2, ORDER), 0)
    await store.close_stream(ORDER, "Order", 2, reason="delivered")
    return store


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [ANY, STREAM_EXISTS, NO_STREAM, 1, 2, 3, 4, 2**31 - 1, 2**40])
async def test_every_append_to_a_closed_stream_is_refused_and_writes_nothing(closed, expected):
    before = await closed.get_global_position()
    with pytest.raises(StreamClosedError, match="closed and takes no more events") as caught:
        await closed.append_events(ORDER, "Order", several(2, ORDER), expected)
    assert (caught.value.aggregate_type, caught.value.aggregate_id) == ("Order", ORDER)
    assert not isinstance(caught.value, OptimisticLockError)
    assert await closed.get_global_position() == before


async def test_a_stream_of_the_same_id_and_another_type_is_another_stream(closed):
    event = placed(ORDER, aggregate_type="Invoice")
    assert (await closed.append_events(ORDER, "Invoice", [event], NO_STREAM)).new_version == 1


async def test_others_of_the_same_group_commit_are_stored(closed):
    streams = [uuid4() for _ in range(10)]
    appends = [
        closed.append_events(stream, "Order", [placed(stream)], ANY)
        for pair in zip(streams, [ORDER] * 10, strict=True)
        for stream in pair
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [outcome.new_version for outcome in outcomes[::2]] == [1] * 10
    assert {type(outcome) for outcome in outcomes[1::2]} == {StreamClosedError}


@pytest.mark.parametrize("expected", [ANY, 1])
async def test_what_is_queued_behind_the_close_is_refused_and_what_is_before_it_is_not(store, expected):
    await store.append_events(ORDER, "Order", [placed(ORDER)], 0)
    before, closing, *after = await asyncio.gather(
        store.append_events(ORDER, "Order", [placed(ORDER)], 1),
        store.close_stream(ORDER, "Order"),
        *(store.append_events(ORDER, "Order", [placed(ORDER)], expected) for _ in range(5)),
        return_exceptions=True,
    )
    assert (before.new_version, closing.new_version) == (2, 3)
    assert {type(outcome) for outcome in after} == {StreamClosedError}


async def test_of_a_close_and_an_append_at_one_version_exactly_one_wins(store):
    await store.append_events(ORDER, "Order", [placed(ORDER)], 0)
    with pytest.raises(OptimisticLockError):
        await store.close_stream(ORDER, "Order", 2)
    append, close = await asyncio.gather(
        store.append_events(ORDER, "Order", [placed(ORDER)], 1),
        store.close_stream(ORDER, "Order", 1),
        return_exceptions=True,
    )
    assert append.new_version == 2
    assert isinstance(close, OptimisticLockError)
    assert not await store.is_closed(ORDER, "Order")


async def test_an_append_that_waits_for_the_close_of_another_process_is_refused(shared_store, open_stores):
    """On PostgreSQL its statement takes its snapshot before it is granted the lock of the log."""
    stores = [await open_stores(str(shared_store._opened.database.url.render_as_string(False)))
              for _ in range(2)]  # fmt: skip
    await shared_store.append_events(ORDER, "Order", [placed(ORDER)], 0)
    async with shared_store.transaction() as transaction:
        await transaction.close_stream(ORDER, "Order", 1)
        waiting = [
            asyncio.create_task(other.append_events(ORDER, "Order", [placed(ORDER)], expected))
            for other, expected in zip(stores, (ANY, 1), strict=True)
        ]
        await asyncio.wait(waiting, timeout=0.2)
        assert not any(task.done() for task in waiting)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StreamClosedError}
    assert await shared_store.get_stream_version(ORDER, "Order") == 2


async def test_transactions_and_joined_connections_are_refused_as_well_and_can_go_on(closed):
    other = uuid4()
    async with closed.transaction() as transaction:
        for write in (transaction.append_events, closed.append_events):
            with pytest.raises(StreamClosedError):
                await write(ORDER, "Order", [placed(ORDER)])
        with pytest.raises(StreamClosedError):
            await closed.append_events(ORDER, "Order", [placed(ORDER)], 3, connection=transaction.connection)
        await transaction.append_events(other, "Order", [placed(other)])
    assert await closed.get_stream_version(other, "Order") == 1
    assert await closed.get_stream_version(ORDER, "Order") == 3


async def test_a_close_that_is_rolled_back_has_not_happened(store):
    await store.append_events(ORDER, "Order", [placed(ORDER)], 0)
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as transaction:
            await transaction.close_stream(ORDER, "Order")
            assert await store.is_closed(ORDER, "Order")
            1 / 0  # noqa: B018
    assert not await store.is_closed(ORDER, "Order")
    assert (await store.append_events(ORDER, "Order", [placed(ORDER)], 1)).new_version == 2


async def test_an_earlier_append_may_be_repeated_after_the_close(store):
    events = several(2, ORDER)
    first = await store.append_events(ORDER, "Order", events, 0)
    await store.close_stream(ORDER, "Order")
    for expected in (0, ANY):
        again = await store.append_events(ORDER, "Order", events, expected)
        assert again.idempotent
        assert (again.new_version, again.global_position) == (2, first.global_position)


# -- closing -----------------------------------------------------------------------------------------------


async def test_closing_twice_returns_the_first_result(closed):
    again = await closed.close_stream(ORDER, "Order", 7, reason="again")
    assert (again.success, again.idempotent, again.new_version) == (True, True, 3)
    assert again.global_position == await closed.get_global_position()
    async with closed.transaction() as transaction:
        assert (await transaction.close_stream(ORDER, "Order")).idempotent


async def test_a_stream_without_events_is_closed_only_when_told_so(store):
    with pytest.raises(OptimisticLockError):
        await store.close_stream(ORDER, "Order")
    assert not await store.is_closed(ORDER, "Order")
    assert (await store.close_stream(ORDER, "Order", NO_STREAM)).new_version == 1
    for expected in (NO_STREAM, ANY, 1):
        with pytest.raises(StreamClosedError):
            await store.append_events(ORDER, "Order", [placed(ORDER)], expected)


async def test_a_tombstone_may_come_with_the_last_events_and_only_at_their_end(store):
    end = StreamClosed(aggregate_id=ORDER, aggregate_type="Order")
    with pytest.raises(InvalidEventError, match="last one"):
        await store.append_events(ORDER, "Order", [end, placed(ORDER)])
    await store.append_events(ORDER, "Order", [placed(ORDER), end], 0)
    assert await store.is_closed(ORDER, "Order")


async def test_the_tombstone_goes_through_the_outbox_like_every_event(database_url, open_stores):
    store = await open_stores(database_url, outbox_enabled=True)
    await store.close_stream(ORDER, "Order", NO_STREAM, reason="mistake")
    [entry] = await OutboxRepository(store).get_pending_events()
    assert (entry.event_type, entry.event_data["reason"]) == ("esource.StreamClosed", "mistake")


async def test_a_bound_store_closes_its_own_streams_only(store):
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    theirs = uuid4()
    await red.append_events(ORDER, "Order", [placed(ORDER)])
    await blue.append_events(theirs, "Order", [placed(theirs)])
    for expected in (STREAM_EXISTS, ANY, 1, NO_STREAM):
        with pytest.raises((TenantMismatchError, OptimisticLockError)) as caught:
            await red.close_stream(theirs, "Order", expected)
        assert isinstance(caught.value, TenantMismatchError)
    await red.close_stream(ORDER, "Order")
    assert (await red.close_stream(ORDER, "Order")).idempotent
    assert await red.is_closed(ORDER, "Order")
    assert not await blue.is_closed(ORDER, "Order")
    [*_, tombstone] = (await red.get_events(ORDER, "Order")).events
    assert tombstone.tenant_id == red.tenant_id
    for expected in (ANY, NO_STREAM, 2):
        with pytest.raises(StreamClosedError):
            await red.append_events(ORDER, "Order", [placed(ORDER)], expected)
        with pytest.raises(TenantMismatchError):  # nor is blue told that it is closed
            await blue.append_events(ORDER, "Order", [placed(ORDER)], expected)


# -- reading -----------------------------------------------------------------------------------------------


async def test_a_closed_stream_is_read_as_before_and_ends_with_its_tombstone(closed):
    stream = await closed.get_events(ORDER, "Order")
    assert (stream.version, stream.is_closed, len(stream.events)) == (3, True, 3)
    end = stream.latest_event
    assert isinstance(end, StreamClosed)
    assert (end.reason, end.aggregate_version, end.aggregate_id) == ("delivered", 3, ORDER)
    assert await closed.get_stream_version(ORDER, "Order") == 3
    assert await closed.is_closed(ORDER, "Order")
    read = [stored async for stored in closed.read_stream(f"{ORDER}:Order")]
    assert [stored.stream_position for stored in read] == [1, 2, 3]
    assert [type(event) for event in await closed.get_events_by_type("Order")] == [
        OrderPlaced, OrderPlaced, StreamClosed
    ]  # fmt: skip
    assert not (await closed.get_events(ORDER, "Order", from_version=3)).is_closed


@pytest.mark.parametrize("policy", ["raise", "skip", "untyped"])
async def test_a_tombstone_is_decoded_whatever_the_registry_and_the_policy(database_url, open_stores, policy):
    store = await open_stores(database_url, event_registry=EventRegistry(), unknown_events=policy)
    await store.close_stream(ORDER, "Order", NO_STREAM)
    await store.close_stream(ORDER, "Invoice", NO_STREAM)
    assert [type(stored.event) async for stored in store.read_all()] == [StreamClosed] * 2


class Strict(DeclarativeAggregate[int]):
    """Refuses every event that it has no method for."""

    aggregate_type = "Order"
    unregistered_event_handling = "error"

    def _get_initial_state(self):
        return 0

    @handles(OrderPlaced)
    def _placed(self, event):
        self._state = self.current + 1


async def test_an_aggregate_of_a_closed_stream_loads_and_cannot_be_saved(closed):
    orders = AggregateRepository(closed, Strict)
    order = await orders.load(ORDER)
    assert (order.state, order.version) == (2, 3)
    assert await orders.exists(ORDER)
    order.apply_event(order.create_event(OrderPlaced, customer_id="c", total=1.0))
    with pytest.raises(StreamClosedError):
        await orders.save(order)
    assert order.has_uncommitted_events


async def test_an_aggregate_of_a_closed_stream_loads_from_a_snapshot_before_or_at_its_end(closed):
    snapshots = SnapshotStore(closed)
    orders = AggregateRepository(closed, Strict, snapshot_store=snapshots)
    await snapshots.save_snapshot(Snapshot(ORDER, "Order", 2, {"value": 2}))
    order = await orders.load(ORDER)
    assert (order.state, order.version) == (2, 3)
    await orders.create_snapshot(order)
    order = await orders.load(ORDER)
    assert (order.state, order.version) == (2, 3)


async def test_where_only_the_tombstone_is_left_an_aggregate_is_neither_loaded_nor_begun_anew(store):
    await store.close_stream(ORDER, "Order", NO_STREAM)
    orders = AggregateRepository(store, Order)
    for load in (orders.load, orders.load_or_create):
        with pytest.raises(StreamClosedError):
            await load(ORDER)
    assert await orders.exists(ORDER)
    fresh = orders.create_new(ORDER)
    fresh.place("c", 1.0)
    with pytest.raises(StreamClosedError):
        await orders.save(fresh)


async def test_projections_and_subscriptions_meet_the_tombstone(closed):
    ended = []

    class Ends(Projection):
        progress = "after_event"

        @handles(StreamClosed)
        async def ended(self, event: StreamClosed, context: ProjectionContext) -> None:
            ended.append((event.aggregate_id, event.reason, context.position))

    await ProjectionRunner(closed, Ends()).run(live=False)
    assert ended == [(ORDER, "delivered", await closed.get_global_position())]
    async with closed.subscribe(live=False, event_types=["esource.StreamClosed"]) as subscription:
        assert [stored.event.reason async for stored in subscription] == ["delivered"]
    found = closed.read_all(ReadOptions(event_types=["esource.StreamClosed"]))
    assert [stored.event_type async for stored in found] == ["esource.StreamClosed"]
