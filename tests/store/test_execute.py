import asyncio
import gc
from uuid import uuid4

import pytest
from support.orders import Order, OrderPlaced, OrderShipped

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    OptimisticLockError,
    Retry,
    SnapshotStore,
    StreamClosedError,
    sync,
)
from esource.errors import InvalidEventError, InvalidOptionError
from esource.store import turns

SHORT = Retry(attempts=3, first_seconds=0.001, longest_seconds=0.001)


class Tally(Order):
    """An order that may be placed again and again, and counts how often."""

    aggregate_type = "Order"

    def add(self, total: float = 1.0) -> None:
        self.apply_event(OrderPlaced(customer_id=str(self.version), total=total))


@pytest.fixture
def orders(store):
    return AggregateRepository(store, Order, retry=SHORT)


@pytest.fixture
def tallies(store):
    return AggregateRepository(store, Tally, retry=SHORT)


def reads_of(repository):
    """Notes the aggregates that the repository loads."""
    found, find = [], repository._find

    async def noted(aggregate_id):
        aggregate = await find(aggregate_id)
        found.append(aggregate)
        return aggregate

    repository._find = noted
    return found


async def test_a_command_is_loaded_called_and_saved_in_one_call(orders, store):
    i = uuid4()
    placed = await orders.execute_or_create(i, Order.place, "c", total=5.0)
    shipped = await orders.execute(i, Order.ship, "TRACK-1")
    assert (placed.new_version, shipped.new_version) == (1, 2)
    assert shipped.global_position == await store.get_global_position()
    assert (await orders.load(i)).state.tracking_number == "TRACK-1"


async def test_a_command_may_be_a_coroutine_function_or_any_function_of_the_aggregate(orders):
    i = uuid4()

    async def place(order, total):
        await asyncio.sleep(0)
        order.place("c", total)

    await orders.execute_or_create(i, place, 5.0)
    await orders.execute(i, lambda order: order.ship("t"))
    assert (await orders.load(i)).state.status == "shipped"


async def test_a_command_needs_an_aggregate_unless_it_may_create_one(orders):
    with pytest.raises(AggregateNotFoundError):
        await orders.execute(uuid4(), Order.ship, "t")


async def test_a_command_that_records_nothing_stores_nothing(orders, store):
    await orders.execute_or_create(i := uuid4(), Order.place, "c", 1.0)
    for _ in range(2):
        result = await orders.execute(i, lambda order: None)
        assert (result.success, result.new_version, result.global_position) == (True, 1, 0)
    assert await store.get_global_position() == 1


@pytest.mark.parametrize("command", ["ship", None])
async def test_what_is_no_command_is_refused(orders, command):
    with pytest.raises(InvalidOptionError, match=r"a function of the aggregate, as Order\.ship"):
        await orders.execute(uuid4(), command)


async def test_the_method_of_another_object_is_refused(orders):
    with pytest.raises(InvalidOptionError, match=r"the method of the class \(Order\.ship\)"):
        await orders.execute(uuid4(), orders.create_new(uuid4()).ship, "t")


async def test_commands_of_one_process_wait_for_each_other_instead_of_conflicting(store):
    """Each repository has its own cache; the turns are those of the store."""
    i, once = uuid4(), Retry(attempts=1)
    several = [AggregateRepository(store, Tally, retry=once, cache_size=0) for _ in range(3)]
    await several[0].execute_or_create(i, Tally.add)
    results = await asyncio.gather(*(several[n % 3].execute(i, Tally.add) for n in range(30)))
    assert sorted(result.new_version for result in results) == list(range(2, 32))
    assert sorted(int(event.customer_id) for event in (await store.get_events(i, "Order")).events) == list(
        range(31)
    )


async def test_a_command_takes_its_aggregate_from_the_cache(tallies):
    i, loaded = uuid4(), reads_of(tallies)
    await tallies.execute_or_create(i, Tally.add)
    for _ in range(3):
        await tallies.execute(i, Tally.add)
    assert loaded == [None]
    assert (await tallies.load(i)).version == 4


async def test_the_cache_keeps_those_that_were_used_last(store):
    tallies = AggregateRepository(store, Tally, cache_size=2)
    a, b, c = uuid4(), uuid4(), uuid4()
    for i in (a, b, a, c):
        await tallies.execute_or_create(i, Tally.add)
    loaded = reads_of(tallies)
    await tallies.execute(a, Tally.add)
    assert loaded == []
    await tallies.execute(b, Tally.add)
    assert len(loaded) == 1


async def test_without_a_cache_each_command_loads(store):
    tallies = AggregateRepository(store, Tally, cache_size=0)
    loaded, i = reads_of(tallies), uuid4()
    await tallies.execute_or_create(i, Tally.add)
    await tallies.execute(i, Tally.add)
    assert len(loaded) == 2


async def test_an_aggregate_that_others_have_changed_is_loaded_again(
    shared_store, shared_database_url, open_stores
):
    here = AggregateRepository(shared_store, Tally, retry=SHORT)
    there = AggregateRepository(await open_stores(shared_database_url), Tally, retry=SHORT)
    await here.execute_or_create(i := uuid4(), Tally.add)
    for version in range(2, 10, 2):
        assert (await there.execute(i, Tally.add)).new_version == version
        assert (await here.execute(i, Tally.add)).new_version == version + 1


async def test_a_refusal_is_decided_on_what_is_stored(shared_store, shared_database_url, open_stores):
    """The cached order was not yet shipped, or already: neither decides."""
    here = AggregateRepository(shared_store, Order)
    there = AggregateRepository(await open_stores(shared_database_url), Order)

    def ship_once(order: Order) -> None:
        if order.state.status != "shipped":
            raise ValueError("not shipped yet")
        order.apply_event(OrderShipped(tracking_number="again"))

    def note_shipping(order: Order) -> None:
        if order.state.status == "shipped":
            order.apply_event(OrderShipped(tracking_number="noted"))

    for command in (ship_once, note_shipping):
        i = uuid4()
        await here.execute_or_create(i, Order.place, "c", 1.0)
        await there.execute(i, Order.ship, "t")
        assert (await here.execute(i, command)).new_version == 3


async def test_a_command_is_tried_again_after_a_conflict_and_not_for_ever(orders, store):
    await orders.execute_or_create(i := uuid4(), Order.place, "c", 1.0)
    seen = []

    async def late(order, conflicts):
        seen.append(order.version)
        if len(seen) <= conflicts:
            await store.append_events(i, "Order", [OrderPlaced(customer_id="x", total=1.0)])
        order.ship("t")

    assert (await orders.execute(i, late, 2)).new_version == 4
    assert seen == [1, 2, 3]  # the first one came from the cache
    seen.clear()
    with pytest.raises(OptimisticLockError):
        await orders.execute(await placed_anew(orders, i), late, 99)


async def placed_anew(orders, i):
    await orders.execute(i, lambda order: order.apply_event(OrderPlaced(customer_id="y", total=1.0)))
    return i


async def test_a_conflict_that_the_command_itself_meets_is_its_own(orders, store):
    await orders.execute_or_create(i := uuid4(), Order.place, "c", 1.0)
    calls = []

    async def conflicts(order):
        calls.append(order)
        await store.append_events(uuid4(), "Order", [OrderPlaced(customer_id="x", total=1.0)], 7)

    with pytest.raises(OptimisticLockError):
        await orders.execute(i, conflicts)
    assert len(calls) == 2  # on the cached one, and on the stored one


class Trouble(Exception):
    """Raised by commands that have changed the state."""


def spoil(order):
    order.add(99.0)
    order.state.customer_id = "spoiled"
    raise Trouble


async def test_a_command_that_raises_leaves_nothing_behind(tallies, store):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    with pytest.raises(Trouble):
        await tallies.execute(i, spoil)
    seen = []
    assert (
        await tallies.execute(i, lambda order: (seen.append(order.state.customer_id), order.add()))
    ).new_version == 2
    assert seen == ["0"]
    assert [event.total for event in (await store.get_events(i, "Order")).events] == [1.0, 1.0]


async def test_an_append_that_is_refused_leaves_nothing_behind(tallies):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    with pytest.raises(InvalidEventError):
        await tallies.execute(i, Tally.add, float("nan"))
    await tallies.execute(i, Tally.add, 2.0)
    assert (await tallies.load(i)).state.total == 2.0


async def test_a_command_that_is_cancelled_leaves_nothing_behind_and_holds_nobody_up(tallies):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    begun = asyncio.Event()

    async def hang(order):
        order.add(99.0)
        begun.set()
        await asyncio.Event().wait()

    hanging = asyncio.create_task(tallies.execute(i, hang))
    await begun.wait()
    waiting = asyncio.create_task(tallies.execute(i, Tally.add))
    given_up = asyncio.create_task(tallies.execute(i, Tally.add))
    await asyncio.sleep(0)
    given_up.cancel()
    hanging.cancel()
    assert (await waiting).new_version == 2
    assert [task.cancelled() for task in await asyncio.wait([hanging, given_up]) for task in task] == [
        True,
        True,
    ]


async def test_after_an_append_whose_outcome_is_unknown_the_log_is_asked(tallies, store):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    append = store.append_events

    async def lost(*arguments, **options):
        await append(*arguments, **options)
        raise ConnectionError("the answer was lost")

    store.append_events = lost
    with pytest.raises(ConnectionError):
        await tallies.execute(i, Tally.add)
    store.append_events = append
    loaded = reads_of(tallies)
    assert (await tallies.execute(i, Tally.add)).new_version == 3
    assert [order.version for order in loaded] == [3]


async def test_a_closed_stream_refuses_a_command_at_once(tallies, store):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    await store.close_stream(i, "Order")
    calls = []
    with pytest.raises(StreamClosedError):
        await tallies.execute(i, lambda order: (calls.append(order), order.add()))
    assert len(calls) == 1


async def test_inside_a_transaction_a_command_belongs_to_it_and_is_not_cached(tallies, store):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    with pytest.raises(Trouble):
        async with store.transaction():
            assert (await tallies.execute(i, Tally.add)).new_version == 2
            assert (await tallies.execute(i, Tally.add)).new_version == 3
            raise Trouble
    assert (await tallies.execute(i, Tally.add)).new_version == 2
    async with store.transaction():
        await tallies.execute(i, Tally.add)
        loaded = reads_of(tallies)
        await tallies.execute(i, Tally.add)
    assert [order.version - 1 for order in loaded] == [3]
    assert (await tallies.load(i)).version == 4


async def test_a_transaction_does_not_wait_for_a_command_that_waits_for_it(tallies, shared_store):
    tallies = AggregateRepository(shared_store, Tally, retry=SHORT)
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(order):
        begun.set()
        await go_on.wait()
        order.add()

    outside = asyncio.create_task(tallies.execute(i, slow))
    await begun.wait()
    async with shared_store.transaction():
        await tallies.execute(i, Tally.add)
        go_on.set()
    assert (await outside).new_version == 3


async def test_a_command_on_the_same_aggregate_inside_a_command_is_refused(tallies):
    await tallies.execute_or_create(i := uuid4(), Tally.add)

    async def nested(order):
        await asyncio.gather(tallies.execute(i, Tally.add))

    with pytest.raises(InvalidOptionError, match="would wait for that one"):
        await tallies.execute(i, nested)
    assert (await tallies.load(i)).version == 1


async def test_commands_that_execute_commands_on_each_others_aggregates_do_not_hang(tallies):
    a, b = uuid4(), uuid4()
    for i in (a, b):
        await tallies.execute_or_create(i, Tally.add)
    met = [asyncio.Event(), asyncio.Event()]
    calls = {a: 0, b: 0}

    async def across(order, other, mine, theirs):
        calls[order.aggregate_id] += 1
        mine.set()
        await theirs.wait()
        if calls[order.aggregate_id] == 1:
            await tallies.execute(other, Tally.add)
        order.add()

    await asyncio.gather(
        tallies.execute(a, across, b, met[0], met[1]), tallies.execute(b, across, a, met[1], met[0])
    )
    assert [(await tallies.load(i)).version for i in (a, b)] == [3, 3]


async def test_a_task_that_a_command_has_started_may_execute_one_afterwards(tallies):
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    go_on, started = asyncio.Event(), []

    async def later():
        await go_on.wait()
        return await tallies.execute(i, Tally.add)

    async def starts(order):
        started.append(asyncio.create_task(later()))
        order.add()

    await tallies.execute(i, starts)
    go_on.set()
    assert (await started[0]).new_version == 3


async def test_a_publisher_may_execute_a_command_on_the_same_aggregate(store):
    told = []

    class Publisher:
        async def publish(self, events):
            told.extend(event.customer_id for event in events)
            if len(told) == 1:
                await tallies.execute(events[0].aggregate_id, Tally.add)

    tallies = AggregateRepository(store, Tally, event_publisher=Publisher())
    await tallies.execute_or_create(uuid4(), Tally.add)
    assert told == ["0", "1"]


async def test_a_publisher_that_fails_does_not_make_a_command_fail(store, caplog):
    class Publisher:
        async def publish(self, events):
            raise Trouble

    tallies = AggregateRepository(store, Tally, event_publisher=Publisher())
    await tallies.execute_or_create(i := uuid4(), Tally.add)
    assert (await tallies.execute(i, Tally.add)).new_version == 2
    assert [record.message.split(":")[0].endswith("their publisher failed") for record in caplog.records] == [
        True,
        True,
    ]


async def test_commands_take_snapshots_and_start_from_them(store):
    tallies = AggregateRepository(store, Tally, snapshot_store=SnapshotStore(store), snapshot_threshold=3)
    i = uuid4()
    for _ in range(4):
        await tallies.execute_or_create(i, Tally.add)
    snapshot = await SnapshotStore(store).get_snapshot(i, "Order")
    assert snapshot.version == 3
    fresh = AggregateRepository(store, Tally, snapshot_store=SnapshotStore(store))
    assert (await fresh.execute(i, Tally.add)).new_version == 5


async def test_each_tenant_has_its_own_aggregates(store):
    red, blue = uuid4(), uuid4()
    reds, blues = (AggregateRepository(store.for_tenant(t), Tally, retry=SHORT) for t in (red, blue))
    await reds.execute_or_create(i := uuid4(), Tally.add)
    await reds.execute(i, Tally.add)
    with pytest.raises(AggregateNotFoundError):
        await blues.execute(i, Tally.add)
    assert {event.tenant_id for event in (await store.get_events(i, "Order")).events} == {red}


async def test_the_turn_of_a_stream_is_forgotten_when_nobody_wants_it(tallies, store):
    await tallies.execute_or_create(uuid4(), Tally.add)
    gc.collect()
    assert len(turns._turns[store._database]._locks) == 0


@pytest.mark.parametrize("size", [-1, 1.5, None])
def test_a_cache_of_no_size_is_refused(store, size):
    with pytest.raises(InvalidOptionError, match="cache_size"):
        AggregateRepository(store, Tally, cache_size=size)


def test_programs_without_an_event_loop_execute_commands_in_their_own_thread(shared_database_url):
    with sync.open_store(shared_database_url) as store:
        tallies = sync.AggregateRepository(store, Tally)
        tallies.execute_or_create(i := uuid4(), Tally.add)

        def nested(order):
            assert store.get_stream_version(i, "Order") == 1  # the command may use the synchronous side
            order.add(2.0)

        assert tallies.execute(i, nested).new_version == 2
        with store.transaction():
            assert tallies.execute(i, Tally.add, total=3.0).new_version == 3
        assert tallies.load(i).state.total == 3.0
