"""An event id is stored once: repeating an append is safe, reusing an id is an error."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import OrderPlaced, placed, several

from esource import DuplicateEventError, ExpectedVersion, OptimisticLockError

ANY = ExpectedVersion.ANY


async def size_of(store):
    return len([e async for e in store.read_all()])


@pytest.mark.parametrize("expected", [0, ANY, ExpectedVersion.STREAM_EXISTS])
async def test_repeating_an_append_returns_the_first_result(store, expected):
    order, other = uuid4(), uuid4()
    await store.append_events(other, "Order", [placed(other)])
    events = several(3, order)
    first = await store.append_events(order, "Order", events, 0)
    again = await store.append_events(order, "Order", events, expected)
    assert not first.idempotent
    assert (again.success, again.idempotent) == (True, True)
    assert (again.new_version, again.global_position) == (first.new_version, first.global_position) == (3, 4)
    assert await size_of(store) == 4


async def test_repeating_an_append_is_safe_after_later_events(store):
    order = uuid4()
    events = several(2, order)
    first = await store.append_events(order, "Order", events, 0)
    await store.append_events(order, "Order", several(2, order), 2)
    again = await store.append_events(order, "Order", events, 0)
    assert again.idempotent
    assert (again.new_version, again.global_position) == (first.new_version, first.global_position)
    assert await store.get_stream_version(order, "Order") == 4


async def test_repeating_a_later_append_is_safe(store):
    order = uuid4()
    await store.append_events(order, "Order", several(2, order), 0)
    events = several(2, order)
    await store.append_events(order, "Order", events, 2)
    assert (await store.append_events(order, "Order", events, 2)).idempotent


async def test_an_event_that_was_read_back_repeats_itself(store):
    order = uuid4()
    event = placed(order, total=0.1, metadata={"z": 1, "a": "é", "n": [1.0, 10**20]}, actor_id="me")
    await store.append_events(order, "Order", [event], 0)
    [read] = (await store.get_events(order, "Order")).events
    assert (await store.append_events(order, "Order", [read], 0)).idempotent


@pytest.mark.parametrize("expected", [0, ANY])
async def test_the_same_id_in_another_stream_is_an_error(store, expected):
    order, other = uuid4(), uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    moved = event.model_copy(update={"aggregate_id": other})
    with pytest.raises(DuplicateEventError, match="stored already") as caught:
        await store.append_events(other, "Order", [moved], expected)
    assert caught.value.event_id == event.event_id
    assert caught.value.found == f"Order {order} version 1, global position 1"
    assert await store.get_stream_version(other, "Order") == 0


async def test_the_same_id_under_another_aggregate_type_is_an_error(store):
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError):
        await store.append_events(
            order, "Invoice", [event.model_copy(update={"aggregate_type": "Invoice"})], 0
        )


@pytest.mark.parametrize(
    "change",
    [{"total": 2.0}, {"actor_id": "someone"}, {"tenant_id": uuid4()}, {"event_type": "OrderSent"}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("expected", [0, ANY])
async def test_the_same_id_with_other_content_is_an_error(store, change, expected):
    order = uuid4()
    event = placed(order)
    store.event_registry.register(OrderPlaced, "OrderSent")
    await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError):
        await store.append_events(order, "Order", [event.model_copy(update=change)], expected)
    store.event_registry.unregister("OrderSent")
    assert await size_of(store) == 1


async def test_the_same_id_at_another_version_is_an_error(store):
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [placed(order), event], 0)
    with pytest.raises(DuplicateEventError, match="version 2"):
        await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError, match="version 2"):
        await store.append_events(order, "Order", [event], 2)


async def test_the_same_id_twice_in_one_append_is_an_error(store):
    order = uuid4()
    event = placed(order)
    with pytest.raises(DuplicateEventError, match="earlier in the same append"):
        await store.append_events(order, "Order", [event, placed(order), event], 0)
    assert await size_of(store) == 0


@pytest.mark.parametrize("expected", [0, 1, ANY])
async def test_a_batch_that_is_stored_in_part_is_an_error(store, expected):
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError) as caught:
        await store.append_events(order, "Order", [event, placed(order)], expected)
    assert caught.value.event_id == event.event_id
    assert await size_of(store) == 1


async def test_a_new_event_before_a_stored_one_is_an_error(store):
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError):
        await store.append_events(order, "Order", [placed(order), event], 1)
    with pytest.raises((DuplicateEventError, OptimisticLockError)):
        await store.append_events(order, "Order", [placed(order), event], 0)
    assert await size_of(store) == 1


async def test_events_in_another_order_are_not_the_same_append(store):
    order = uuid4()
    one, two = several(2, order)
    await store.append_events(order, "Order", [one, two], 0)
    with pytest.raises(DuplicateEventError):
        await store.append_events(order, "Order", [two, one], 0)


async def test_repeating_an_append_beside_others_is_still_safe(store):
    order, other = uuid4(), uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    new, again, mixed = await asyncio.gather(
        store.append_events(other, "Order", [placed(other)], 0),
        store.append_events(order, "Order", [event], 0),
        store.append_events(order, "Order", [placed(order)], 1),
    )
    assert (new.idempotent, again.idempotent, mixed.idempotent) == (False, True, False)
    assert (again.new_version, again.global_position) == (1, 1)
    assert mixed.new_version == 2


@pytest.mark.parametrize("expected", [1, ANY, ExpectedVersion.STREAM_EXISTS])
async def test_repeating_an_append_behind_a_new_one_to_its_stream_is_still_safe(store, expected):
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    # The second shares a batch with the first, and expects what only the first result explains.
    warm, new, again = await asyncio.gather(
        store.append_events(uuid4(), "Order", []),
        store.append_events(order, "Order", [placed(order)], expected),
        store.append_events(order, "Order", [event], 0),
    )
    assert new.new_version == 2
    assert again.idempotent
    assert again.new_version == 1


async def test_one_append_sent_twice_at_once_is_stored_once(store):
    order = uuid4()
    events = several(2, order)
    results = await asyncio.gather(*(store.append_events(order, "Order", events, 0) for _ in range(5)))
    assert sorted(r.idempotent for r in results) == [False, True, True, True, True]
    assert {(r.new_version, r.global_position) for r in results} == {(2, 2)}
    assert await size_of(store) == 2


async def test_a_duplicate_does_not_touch_the_outbox(database_url, open_stores):
    store = await open_stores(database_url, outbox_enabled=True)
    order = uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    await store.append_events(order, "Order", [event], 0)
    with pytest.raises(DuplicateEventError):
        await store.append_events(order, "Order", [OrderPlaced(**{**event.model_dump(), "total": 9.0})], ANY)
    from esource import OutboxRepository

    assert len(await OutboxRepository(store).get_pending_events()) == 1


@pytest.mark.parametrize(("first", "second"), [(True, 1), (1, 1.0), (False, 0), (None, 0), ("1", 1)])
async def test_values_that_python_calls_equal_are_other_content(store, first, second):
    event = placed(metadata={"deep": [first]})
    other = event.model_copy(update={"metadata": {"deep": [second]}})
    await store.append_events(event.aggregate_id, "Order", [event])
    with pytest.raises(DuplicateEventError):
        await store.append_events(event.aggregate_id, "Order", [other])
    assert (await store.append_events(event.aggregate_id, "Order", [event])).idempotent
