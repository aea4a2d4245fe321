"""What an append promises: all of its events or none, in order, with truthful positions."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import OrderShipped, placed, several

from esource import AppendResult, ExpectedVersion, InvalidEventError


async def log_of(store):
    return [(e.stream_position, e.event_id) async for e in store.read_all()]


async def test_a_result_names_the_version_and_position_of_the_last_event(store):
    order = uuid4()
    first = await store.append_events(order, "Order", several(2, order), 0)
    second = await store.append_events(order, "Order", several(3, order), 2)
    assert first == AppendResult(success=True, new_version=2, global_position=2)
    assert second == AppendResult(success=True, new_version=5, global_position=5)


async def test_a_batch_keeps_its_order(store):
    order = uuid4()
    events = several(500, order)
    result = await store.append_events(order, "Order", events, 0)
    assert result.new_version == 500
    assert await log_of(store) == [(n, e.event_id) for n, e in enumerate(events, start=1)]


@pytest.mark.parametrize("length", [9, 10, 11, 49, 50, 51, 69, 121])
async def test_a_batch_of_any_length_is_stored_whole(store, length):
    order = uuid4()
    events = [placed(order, aggregate_version=version, total=version) for version in range(1, length + 1)]
    result = await store.append_events(order, "Order", events, 0)
    assert result == AppendResult(success=True, new_version=length, global_position=length)
    assert (await store.get_events(order, "Order")).events == events


@pytest.mark.parametrize("tenants", ["none", "one", "two", "at both ends", "in between"])
async def test_each_event_of_a_batch_keeps_its_own_type_actor_tenant_and_text(store, tenants):
    one, two = uuid4(), uuid4()
    of = {
        "none": [None] * 4,
        "one": [one] * 4,
        "two": [one, one, two, one],
        "at both ends": [one, None, None, one],
        "in between": [None, one, None, None],
    }
    order, chosen = uuid4(), of[tenants]
    common = [
        {
            "aggregate_id": order,
            "aggregate_version": number,
            "tenant_id": tenant,
            "actor_id": tenant and f"actor of {tenant}",
            "metadata": {"text": f"{tenant}\x1f\n,{number}", "nothing": ""},
        }
        for number, tenant in enumerate(chosen, 1)
    ]
    events = [placed(**fields) for fields in common]
    if tenants == "two":
        events[1] = OrderShipped(tracking_number="", **common[1])
    await store.append_events(order, "Order", events, 0)
    assert (await store.get_events(order, "Order")).events == events
    found = [stored async for stored in store.read_all()]
    assert [(each.event_type, each.tenant_id, each.actor_id) for each in found] == [
        (event.event_type, event.tenant_id, event.actor_id) for event in events
    ]


async def test_one_append_may_be_larger_than_a_shared_batch(store):
    order = uuid4()
    result = await store.append_events(order, "Order", several(2500, order), 0)
    assert (result.new_version, result.global_position) == (2500, 2500)
    assert await store.get_stream_version(order, "Order") == 2500


async def test_a_bad_event_keeps_the_whole_batch_out(store):
    order = uuid4()
    batch = [placed(order), placed(order, metadata={"thing": object()}), placed(order)]
    with pytest.raises(InvalidEventError, match="metadata"):
        await store.append_events(order, "Order", batch, 0)
    # What was refused must not come along with the next append either.
    await store.append_events(order, "Order", [placed(order)], 0)
    assert await store.get_global_position() == 1
    assert len(await log_of(store)) == 1


async def test_an_empty_append_writes_nothing_and_tells_the_version(store):
    order = uuid4()
    assert await store.append_events(order, "Order", [], 0) == AppendResult(True, 0)
    await store.append_events(order, "Order", several(2, order), 0)
    assert (await store.append_events(order, "Order", [], ExpectedVersion.ANY)).new_version == 2
    assert await store.get_global_position() == 2


async def test_events_may_come_as_any_sequence(store):
    order = uuid4()
    assert (await store.append_events(order, "Order", tuple(several(2, order)))).new_version == 2


async def test_an_event_of_another_stream_is_refused(store):
    order = uuid4()
    with pytest.raises(InvalidEventError, match="not to Order"):
        await store.append_events(order, "Order", [placed(order), placed()], 0)
    with pytest.raises(InvalidEventError) as caught:
        await store.append_events(order, "Invoice", [placed(order)], 0)
    assert caught.value.field == "aggregate_type"
    assert await store.get_global_position() == 0


async def test_positions_may_have_holes_and_reading_goes_on_behind_them(store):
    first, lost, last = uuid4(), uuid4(), uuid4()
    await store.append_events(first, "Order", [placed(first)])
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            await tx.append_events(lost, "Order", several(3, lost))
            raise RuntimeError
    await store.append_events(last, "Order", [placed(last)])
    events = [e async for e in store.read_all()]
    assert [e.aggregate_id for e in events] == [first, last]
    assert events[0].global_position < events[1].global_position == await store.get_global_position()
