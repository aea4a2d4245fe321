"""A store bound to a tenant: what it reads, what it writes, and what it refuses without a word too many."""

from __future__ import annotations

import asyncio
import traceback
from uuid import UUID, uuid4

import pytest
from support.orders import Order, OrderPlaced, OrderShipped, placed, several

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    AppendCondition,
    AppendConditionError,
    DuplicateEventError,
    ExpectedVersion,
    Lease,
    OptimisticLockError,
    OutboxRelay,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    Query,
    QueryItem,
    ReadDirection,
    ReadOptions,
    SnapshotStore,
    TenantMismatchError,
    handles,
)
from esource.errors import InvalidOptionError
from esource.tables.selecting import COUNTED_PLACES

RED = UUID("00000000-0000-7000-8000-00000000000a")
BLUE = UUID("00000000-0000-7000-8000-00000000000b")
ANY, NO_STREAM, STREAM_EXISTS = ExpectedVersion.ANY, ExpectedVersion.NO_STREAM, ExpectedVersion.STREAM_EXISTS
OURS, THEIRS, NOBODYS = uuid4(), uuid4(), uuid4()


@pytest.fixture
async def red(store):
    """The view of one tenant on a store in which another tenant and nobody in particular wrote as well."""
    red = store.for_tenant(RED)
    await store.append_events(NOBODYS, "Order", several(3, NOBODYS))
    await red.append_events(OURS, "Order", several(2, OURS), 0)
    await store.for_tenant(BLUE).append_events(THEIRS, "Order", several(4, THEIRS, customer_id="secret"), 0)
    return red


async def log_of(store, options=None):
    return [(stored.aggregate_id, stored.stream_position) async for stored in store.read_all(options)]


# -- writing -----------------------------------------------------------------------------------------------


async def test_an_event_without_a_tenant_gets_the_stores(store, red):
    assert {event.tenant_id for event in (await red.get_events(OURS)).events} == {RED}
    assert {event.tenant_id for event in (await store.get_events(THEIRS)).events} == {BLUE}
    assert {event.tenant_id for event in (await store.get_events(NOBODYS)).events} == {None}


async def test_an_event_that_names_the_stores_tenant_is_taken(red):
    assert (await red.append_events(OURS, "Order", [placed(OURS, tenant_id=RED)], 2)).new_version == 3


async def test_an_event_of_another_tenant_is_refused_with_all_that_came_with_it(store, red):
    before = await log_of(store)
    with pytest.raises(TenantMismatchError, match=str(BLUE)) as caught:
        await red.append_events(OURS, "Order", [placed(OURS), placed(OURS, tenant_id=BLUE)], 2)
    assert caught.value.tenant_id == RED
    assert await log_of(store) == before


@pytest.mark.parametrize("stream", [THEIRS, NOBODYS], ids=["another tenant's", "nobody's"])
@pytest.mark.parametrize("expected", [ANY, NO_STREAM, STREAM_EXISTS, 1, 3, 4])
async def test_a_stream_of_somebody_else_is_never_appended_to(store, red, stream, expected):
    before = await log_of(store)
    with pytest.raises(TenantMismatchError, match="not a stream of its own") as caught:
        await red.append_events(stream, "Order", [placed(stream)], expected)
    assert await log_of(store) == before
    said = "".join(traceback.format_exception(caught.value))
    assert "secret" not in said
    assert str(BLUE) not in said
    assert "version 4" not in said


async def test_the_same_goes_inside_a_transaction_and_for_a_transaction_of_the_applications(red, store):
    before = await log_of(store)
    with pytest.raises(TenantMismatchError):
        async with red.transaction() as transaction:
            await transaction.append_events(OURS, "Order", [placed(OURS)], 2)
            await transaction.append_events(THEIRS, "Order", [placed(THEIRS)])
    with pytest.raises(TenantMismatchError):
        async with store.transaction():
            await red.append_events(THEIRS, "Order", [placed(THEIRS)], 0)
    async with store.transaction() as transaction:
        result = await red.append_events(OURS, "Order", [placed(OURS)], connection=transaction.connection)
        assert await red.get_stream_version(OURS, "Order") == result.new_version == 3
    assert await log_of(store) == [*before, (OURS, 3)]


async def test_versions_are_checked_as_ever_in_a_stream_of_its_own(red):
    for expected in (NO_STREAM, 1, 3):
        with pytest.raises(OptimisticLockError) as caught:
            await red.append_events(OURS, "Order", [placed(OURS)], expected)
        assert caught.value.actual_version == 2
    for expected, version in ((2, 3), (ANY, 4), (STREAM_EXISTS, 5)):
        assert (await red.append_events(OURS, "Order", [placed(OURS)], expected)).new_version == version


@pytest.mark.parametrize("expected", [STREAM_EXISTS, 1])
async def test_what_expects_a_stream_that_nobody_has_conflicts(red, expected):
    new = uuid4()
    with pytest.raises(OptimisticLockError) as caught:
        await red.append_events(new, "Order", [placed(new)], expected)
    assert caught.value.actual_version == 0


async def test_an_append_may_be_repeated_and_says_so(red):
    new = uuid4()
    events = several(2, new)
    for expected in (ANY, ANY, NO_STREAM):
        result = await red.append_events(new, "Order", events, expected)
        assert result.new_version == 2
    assert result.idempotent


async def test_an_event_id_that_is_taken_is_said_to_be_and_no_more(store, red):
    [theirs, *_] = (await store.get_events(THEIRS)).events
    [ours, *_] = (await store.get_events(OURS)).events
    with pytest.raises(DuplicateEventError, match="elsewhere") as caught:
        await red.append_events(OURS, "Order", [placed(OURS, event_id=theirs.event_id)], 2)
    assert str(THEIRS) not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(DuplicateEventError, match="version 1"):
        await red.append_events(OURS, "Order", [placed(OURS, event_id=ours.event_id)], 2)


async def test_an_empty_append_tells_the_version_of_a_stream_of_its_own_only(red):
    assert (await red.append_events(OURS, "Order", [])).new_version == 2
    assert (await red.append_events(THEIRS, "Order", [])).new_version == 0


@pytest.mark.parametrize("expected", [ANY, NO_STREAM])
async def test_of_tenants_that_begin_one_stream_at_once_one_has_it(
    shared_store, shared_database_url, open_stores, expected
):
    """In one process and in two, twenty streams: no stream ends up with two tenants."""
    other = await open_stores(shared_database_url)
    tenants = [uuid4() for _ in range(4)]
    views = [store.for_tenant(tenant) for tenant in tenants for store in (shared_store, other)]
    streams = [uuid4() for _ in range(20)]
    outcomes = await asyncio.gather(
        *(
            view.append_events(stream, "Order", [placed(stream)], expected)
            for stream in streams
            for view in views
        ),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert {type(error) for error in refused} <= {TenantMismatchError, OptimisticLockError}
    for stream in streams:
        events = (await shared_store.get_events(stream)).events
        assert len({event.tenant_id for event in events}) == 1
        assert len(events) == (2 if expected == ANY else 1)


# -- reading -----------------------------------------------------------------------------------------------


async def test_reading_gives_its_own_events_only(red):
    assert await log_of(red) == [(OURS, 1), (OURS, 2)]
    assert await log_of(red, ReadOptions(direction=ReadDirection.BACKWARD, limit=1)) == [(OURS, 2)]
    assert len(await red.get_events_by_type("Order")) == 2
    assert (await red.get_events(OURS, "Order")).version == 2
    assert [stored.stream_position async for stored in red.read_stream(f"{OURS}:Order")] == [1, 2]
    assert await red.get_stream_version(OURS, "Order") == 2
    assert await red.get_global_position() == 5


@pytest.mark.parametrize("stream", [THEIRS, NOBODYS], ids=["another tenant's", "nobody's"])
async def test_what_is_not_its_own_is_not_there(store, red, stream):
    event = (await store.get_events(stream)).events[0]
    assert await store.event_exists(event.event_id)
    assert not await red.event_exists(event.event_id)
    assert await red.get_stream_version(stream, "Order") == 0
    assert (await red.get_events(stream)).is_empty
    assert (await red.get_events(stream, "Order", from_version=2)).version == 0
    assert [stored async for stored in red.read_stream(f"{stream}:Order")] == []


async def test_asking_for_another_tenant_is_refused(red):
    with pytest.raises(TenantMismatchError):
        await log_of(red, ReadOptions(tenant_id=BLUE))
    with pytest.raises(TenantMismatchError):
        await red.get_events_by_type("Order", tenant_id=BLUE)
    with pytest.raises(TenantMismatchError):
        red.subscribe(tenant_id=BLUE)
    with pytest.raises(TenantMismatchError):
        red.for_tenant(BLUE)
    assert await log_of(red, ReadOptions(tenant_id=RED)) == await log_of(red.for_tenant(RED))


async def test_a_subscription_follows_its_own_events_with_a_checkpoint_of_its_own(store, red):
    async def seen(view):
        events = []
        async with view.subscribe(checkpoint="audit", live=False) as subscription:
            async for stored in subscription:
                events.append(stored.aggregate_id)
                await subscription.save()
        return events

    assert await seen(red) == [OURS, OURS]
    assert await seen(red) == []
    assert await seen(store.for_tenant(BLUE)) == [THEIRS] * 4
    assert await seen(store) == [NOBODYS] * 3 + [OURS] * 2 + [THEIRS] * 4


async def test_a_live_subscription_wakes_up_for_its_own_events(store, red):
    async with red.subscribe(2, poll_seconds=60) as subscription:
        seen = [(await anext(subscription)).stream_position for _ in range(2)]
        waiting = asyncio.ensure_future(anext(subscription))
        await store.append_events(THEIRS, "Order", [placed(THEIRS)])
        await red.append_events(OURS, "Order", [placed(OURS)])
        seen.append((await waiting).stream_position)
    assert seen == [1, 2, 3]


# -- wherever a store is taken -----------------------------------------------------------------------------


async def test_a_repository_on_it_loads_and_saves_its_own_aggregates_only(store, red):
    published = []

    class Publisher:
        async def publish(self, events):
            published.extend(events)

    orders = AggregateRepository(red, Order, event_publisher=Publisher())
    order = orders.create_new(uuid4())
    order.place("c-1", 5.0)
    await orders.save(order)
    assert (await orders.load(order.aggregate_id)).current.total == 5.0
    assert [event.tenant_id for event in published] == [RED]
    with pytest.raises(AggregateNotFoundError):
        await AggregateRepository(store.for_tenant(BLUE), Order).load(order.aggregate_id)
    with pytest.raises(AggregateNotFoundError):
        await orders.load(THEIRS)
    assert not await orders.exists(THEIRS)


async def test_a_snapshot_of_another_tenants_aggregate_leads_nowhere(store, red):
    """Whether or not the snapshot store is bound: the events decide."""
    theirs = AggregateRepository(store.for_tenant(BLUE), Order, snapshot_store=SnapshotStore(store))
    await theirs.create_snapshot(await theirs.load(THEIRS))
    for snapshots in (SnapshotStore(store), SnapshotStore(red)):
        with pytest.raises(AggregateNotFoundError):
            await AggregateRepository(red, Order, snapshot_store=snapshots).load(THEIRS)


async def test_a_view_borrows_the_stores_connections(store, red):
    async with red as entered:
        assert entered is red
    assert red.is_connected
    assert store.is_connected
    assert red.tenant_id == RED
    assert store.tenant_id is None
    assert isinstance(red, type(store))


async def test_a_view_of_a_store_that_is_not_open_opens_it(store):
    await store.close()
    async with store.for_tenant(RED):
        assert store.is_connected


def test_a_tenant_is_a_uuid(tmp_path):
    from esource import SQLiteEventStore

    with pytest.raises(InvalidOptionError, match="tenant_id"):
        SQLiteEventStore(tmp_path / "events.db").for_tenant("red")


async def test_events_come_back_equal_with_the_tenant_that_they_got(red):
    new = uuid4()
    event = OrderPlaced(aggregate_id=new, customer_id="c", total=1.5, actor_id="Zoë", metadata={"a": 1})
    await red.append_events(new, "Order", [event])
    [found] = (await red.get_events(new)).events
    assert found == event.model_copy(update={"tenant_id": RED})


class Counting(Projection):
    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        """Nothing: it is only to be refused."""


async def test_what_works_for_all_tenants_is_not_run_on_a_bound_store(red):
    for make in (
        lambda: ProjectionRunner(red, Counting()),
        lambda: OutboxRelay(red, None),
        lambda: Lease(red, "mailer"),
    ):
        with pytest.raises(InvalidOptionError, match="for_tenant"):
            make()


async def test_a_bound_subscription_counts_its_own_lag_only(store, red):
    subscription = red.subscribe(live=False)
    assert (await subscription.health()).lag_events == 2
    assert [event.aggregate_id async for event in subscription] == [OURS, OURS]


async def test_a_tag_that_many_tenants_share_is_looked_up_among_the_events_of_the_one(shared_store):
    """Beyond these numbers the lookup begins with the tenant's events, not with the places of the tag."""
    red, blue, green = (shared_store.for_tenant(uuid4()) for _ in range(3))
    hot, both = Query(QueryItem(tags=["hot"])), Query(QueryItem(tags=["hot", "warm"]))
    await red.append(several(COUNTED_PLACES // 2), tags=["hot", "warm"])
    await blue.append(several(2), tags=["hot", "warm"])
    await blue.append([OrderShipped(tracking_number="1")], tags=["hot"])
    await red.append(several(COUNTED_PLACES // 2 + 10), tags=["hot", "warm"])
    await blue.append(several(1), tags=["warm"])
    last = await blue.append([OrderShipped(tracking_number="2")], tags=["hot", "warm"])
    log = [stored async for stored in shared_store.read_all()]
    shipped = Query(QueryItem(types=[OrderShipped], tags=["hot"]))
    either = Query(QueryItem(types=[OrderShipped], tags=["hot", "warm"]), QueryItem(tags=["warm"]))
    for query in (hot, both, shipped, either):
        for store in (red, blue, green):
            tenant_id = store.reader.tenant_id
            for after in (0, 501, 503):
                wanted = [
                    stored.global_position
                    for stored in log
                    if stored.tenant_id == tenant_id
                    and stored.global_position > after
                    and query.matches(stored.event_type, stored.tags)
                ]
                found = await store.read_query(query, after)
                assert [stored.global_position for stored in found.events] == wanted
                condition = AppendCondition(query, after)
                if wanted:
                    with pytest.raises(AppendConditionError) as caught:
                        await store.append([OrderShipped(tracking_number="x")], condition=condition)
                    assert caught.value.global_position == wanted[0]
                else:
                    assert (
                        await store.append([OrderShipped(tracking_number="y")], condition=condition)
                    ).success
    assert (
        await blue.append(
            [OrderShipped(tracking_number="3")], condition=AppendCondition(both, last.global_position)
        )
    ).success
