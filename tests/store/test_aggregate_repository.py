from uuid import UUID, uuid4

import pytest
from support.orders import Order, OrderPlaced

from esource import (
    AggregateNotFoundError,
    AggregateRepository,
    EventRegistry,
    InvalidEventError,
    OptimisticLockError,
)
from esource.errors import InvalidOptionError


@pytest.fixture
def repository(store):
    return AggregateRepository(store, Order)


def new_order(repository):
    order = repository.create_new(uuid4())
    order.place("c", 5.0)
    return order


async def test_saving_says_where_in_the_log_it_was_stored(repository, store):
    order = new_order(repository)
    result = await repository.save(order)
    assert (result.new_version, result.global_position) == (1, await store.get_global_position())
    assert await store.wait_for_position(result.global_position) == result.global_position
    nothing = await repository.save(order)
    assert (nothing.new_version, nothing.global_position) == (1, 0)
    async with store.transaction():
        order.ship("t")
        result = await repository.save(order)
    assert (result.new_version, result.global_position) == (2, await store.get_global_position())


async def test_save_and_load(repository, store):
    await repository.save(repository.create_new(uuid4()))
    assert await store.get_global_position() == 0  # nothing to save, nothing written
    order = new_order(repository)
    await repository.save(order)
    assert (order.version, order.has_uncommitted_events) == (1, False)
    order.ship("t")
    await repository.save(order)
    loaded = await repository.load(order.aggregate_id)
    assert type(loaded) is Order
    assert (loaded.version, loaded.state, loaded.has_uncommitted_events) == (2, order.state, False)
    assert (await repository.get_or_raise(order.aggregate_id)).version == 2
    assert (await repository.load_or_create(order.aggregate_id)).version == 2


async def test_an_aggregate_without_events_is_not_found(repository):
    i = uuid4()
    with pytest.raises(AggregateNotFoundError, match=f"Order {i} has no events") as missing:
        await repository.load(i)
    assert (missing.value.aggregate_id, missing.value.aggregate_type) == (i, "Order")
    with pytest.raises(AggregateNotFoundError):
        await repository.get_or_raise(i)
    fresh = await repository.load_or_create(i)
    assert (fresh.version, fresh.aggregate_id) == (0, i)
    assert await repository.exists(i) is False
    assert await repository.get_version(i) == 0


async def test_exists_and_version_need_no_class(repository, store):
    await repository.save(order := new_order(repository))
    store.codec.registry = EventRegistry()  # nothing can be decoded
    assert await repository.exists(order.aggregate_id) is True
    assert await repository.get_version(order.aggregate_id) == 1


async def test_a_conflict_leaves_the_aggregate_as_it_was(repository):
    await repository.save(order := new_order(repository))
    first, second = await repository.load(order.aggregate_id), await repository.load(order.aggregate_id)
    first.ship("first")
    second.ship("second")
    await repository.save(first)
    with pytest.raises(OptimisticLockError) as conflict:
        await repository.save(second)
    assert (conflict.value.expected_version, conflict.value.actual_version) == (1, 2)
    (kept,) = second.uncommitted_events
    assert (kept.tracking_number, second.version) == ("second", 2)
    assert (await repository.load(order.aggregate_id)).state.tracking_number == "first"


async def test_an_event_that_may_not_be_stored_stays_uncommitted(repository):
    order = repository.create_new(uuid4())
    order.place("c", float("nan"))
    with pytest.raises(InvalidEventError):
        await repository.save(order)
    assert order.has_uncommitted_events
    assert not await repository.exists(order.aggregate_id)


@pytest.mark.awaited
async def test_the_type_comes_from_the_class_or_is_given(store):
    assert AggregateRepository(store, Order).aggregate_type == "Order"
    by_function = AggregateRepository(store, lambda i: Order(i), "Order")
    assert by_function.event_store is store
    await by_function.save(order := new_order(by_function))
    assert (await by_function.load(order.aggregate_id)).version == 1
    with pytest.raises(InvalidOptionError, match="pass aggregate_type as well"):
        AggregateRepository(store, lambda i: Order(i))


async def test_a_publisher_hears_of_what_was_stored(store):
    published = []

    class Publisher:
        async def publish(self, events):
            published.append(list(events))

    repository = AggregateRepository(store, Order, event_publisher=Publisher())
    order = new_order(repository)
    order.ship("t")
    expected = order.uncommitted_events
    await repository.save(order)
    await repository.save(order)
    assert published == [expected]
    late = repository.create_new(order.aggregate_id)
    late.place("c", 1.0)
    with pytest.raises(OptimisticLockError):
        await repository.save(late)
    assert published == [expected]


async def test_a_repository_on_a_transaction_saves_in_it(store):
    tenant = UUID(int=1)
    for bound in (store, store.for_tenant(tenant)):
        with pytest.raises(ZeroDivisionError):
            async with bound.transaction() as transaction:
                lost = new_order(AggregateRepository(transaction, Order))
                await AggregateRepository(transaction, Order).save(lost)
                raise ZeroDivisionError
        async with bound.transaction() as transaction:
            repository = AggregateRepository(transaction, Order)
            order = new_order(repository)
            await repository.save(order)
        assert await bound.get_stream_version(order.aggregate_id, "Order") == 1
        assert await bound.get_stream_version(lost.aggregate_id, "Order") == 0


async def test_events_that_the_store_skips_still_count(store):
    repository = AggregateRepository(store, Order)
    order = new_order(repository)
    order.ship("t")
    await repository.save(order)
    store.codec.registry, store.codec.unknown_events = EventRegistry(), "skip"
    store.codec.registry.register(OrderPlaced)
    loaded = await repository.load(order.aggregate_id)
    assert (loaded.version, loaded.state.status) == (2, "placed")
    loaded.ship("again")
    await repository.save(loaded)
    store.codec.registry.clear()
    assert (await repository.load(order.aggregate_id)).version == 3
