"""Reading by stream, by type and all in order, page by page."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from support.leaks import check_connections
from support.orders import OrderPlaced, OrderShipped, placed, several

from esource import DomainEvent, EventRegistry, ReadDirection, ReadOptions, UntypedEvent, register_event
from esource.errors import EventDecodeError, InvalidOptionError, UnknownEventTypeError
from esource.log.streams import stream_name

NOON = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
BACKWARD = ReadDirection.BACKWARD


async def positions(store, **options):
    return [e.global_position async for e in store.read_all(ReadOptions(**options))]


async def versions(store, stream, **options):
    return [e.stream_position async for e in store.read_stream(stream, ReadOptions(**options))]


async def fill(store, count, **fields):
    order = uuid4()
    await store.append_events(order, "Order", several(count, order, **fields))
    return order


# -- all, in order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", list(ReadDirection))
@pytest.mark.parametrize("limit", [None, 250, 251, 1250, 1251, 2600])
async def test_a_read_over_several_pages_is_whole(store, direction, limit):
    count = 2600
    await fill(store, count)
    expected = list(range(1, count + 1))
    if direction is BACKWARD:
        expected.reverse()
    assert await positions(store, direction=direction, limit=limit) == expected[:limit]


async def test_a_stream_over_several_pages_is_whole(store):
    order = await fill(store, 1300)
    await fill(store, 10)
    stream = await store.get_events(order, "Order")
    assert [e.aggregate_version for e in stream.events] == list(range(1, 1301))
    assert stream.version == 1300


@pytest.mark.slow
async def test_large_events_come_in_smaller_pages(store):
    order = uuid4()
    events = [placed(order, metadata={"text": "x" * 100_000}) for _ in range(270)]
    for start in range(0, 270, 30):
        await store.append_events(order, "Order", events[start : start + 30])
    assert await positions(store) == list(range(1, 271))


async def test_times_are_inclusive_and_compared_as_moments(store):
    offset = timezone(timedelta(hours=5, minutes=30))
    for moment in (NOON, NOON + timedelta(microseconds=1), (NOON + HOUR).astimezone(offset), NOON + 2 * HOUR):
        await fill(store, 1, occurred_at=moment)
    assert await positions(store, from_timestamp=NOON) == [1, 2, 3, 4]
    assert await positions(store, from_timestamp=NOON + timedelta(microseconds=1)) == [2, 3, 4]
    assert await positions(store, to_timestamp=NOON) == [1]
    assert await positions(store, from_timestamp=NOON + HOUR, to_timestamp=NOON + HOUR) == [3]
    assert await positions(store, to_timestamp=(NOON + HOUR).astimezone(offset)) == [1, 2, 3]


async def test_conditions_hold_all_at_once(store):
    mine, theirs = uuid4(), uuid4()
    await fill(store, 2, tenant_id=mine)
    await fill(store, 1, tenant_id=theirs)
    await fill(store, 1)
    invoice = uuid4()
    await store.append_events(
        invoice,
        "Invoice",
        [
            OrderPlaced(
                aggregate_id=invoice,
                aggregate_type="Invoice",
                event_type="OrderPlaced",
                customer_id="c",
                total=1,
                tenant_id=mine,
            )
        ],
    )
    sent = OrderShipped(aggregate_id=invoice, aggregate_type="Invoice", tracking_number="t")
    await store.append_events(invoice, "Invoice", [sent])
    assert await positions(store, tenant_id=mine) == [1, 2, 5]
    assert await positions(store, tenant_id=mine, aggregate_types=["Invoice"]) == [5]
    assert await positions(store, event_types={"OrderShipped"}) == [6]
    assert await positions(store, event_types=["OrderShipped", "OrderPlaced"]) == [1, 2, 3, 4, 5, 6]
    assert await positions(store, aggregate_types=("Order",), direction=BACKWARD, limit=3) == [4, 3, 2]
    assert await positions(store, event_types=[]) == []
    assert await positions(store, event_types=["it's", '"quoted"', "a,b{}"]) == []


@pytest.mark.parametrize(
    "options",
    [{"limit": -1}, {"from_position": -1}, {"from_timestamp": datetime(2024, 1, 1)}],
    ids=lambda o: next(iter(o)),
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        ReadOptions(**options)


# -- streams ---------------------------------------------------------------------------------------


async def test_a_stream_is_an_id_and_a_type(store):
    shared = await fill(store, 3)
    await store.append_events(shared, "Invoice", [placed(shared, aggregate_type="Invoice")])
    orders, invoices = await store.get_events(shared, "Order"), await store.get_events(shared, "Invoice")
    assert (len(orders.events), orders.version) == (3, 3)
    assert (len(invoices.events), invoices.version) == (1, 1)
    nothing = await store.get_events(shared, "Shipment")
    assert (nothing.is_empty, nothing.version, nothing.latest_event) == (True, 0, None)
    with pytest.raises(InvalidOptionError, match="Invoice, Order"):
        await store.get_events(shared)


async def test_the_type_may_be_left_out_when_it_is_the_only_one(store):
    order = await fill(store, 2)
    stream = await store.get_events(order)
    assert (stream.aggregate_type, stream.version) == ("Order", 2)
    assert stream.latest_event == stream.events[-1]
    assert (await store.get_events(uuid4())).is_empty


async def test_a_stream_is_read_past_a_version(store):
    order = await fill(store, 5)
    stream = await store.get_events(order, "Order", from_version=3)
    assert [e.aggregate_version for e in stream.events] == [4, 5]
    assert stream.version == 5


@pytest.mark.parametrize("from_version", [2, 10, 2**40])
async def test_the_version_of_a_stream_is_the_stored_one(store, from_version):
    order = await fill(store, 2)
    stream = await store.get_events(order, "Order", from_version=from_version)
    assert (stream.is_empty, stream.version) == (True, 2)


async def test_a_stream_is_read_between_times(store):
    order = uuid4()
    events = [placed(order, occurred_at=NOON + n * HOUR) for n in range(4)]
    await store.append_events(order, "Order", events)
    stream = await store.get_events(order, "Order", from_timestamp=NOON + HOUR, to_timestamp=NOON + 2 * HOUR)
    assert [e.event_id for e in stream.events] == [e.event_id for e in events[1:3]]


@pytest.mark.parametrize("name", ["", "Order", "nonsense:Order", str(UUID(int=1)), f"{UUID(int=1)}:"])
async def test_a_stream_name_that_is_none_is_refused(store, name):
    with pytest.raises(InvalidOptionError, match="stream id"):
        await versions(store, name)


async def test_a_type_may_hold_a_colon(store):
    order = uuid4()
    await store.append_events(order, "Shop:Order", [placed(order, aggregate_type="Shop:Order")])
    [stored] = [e async for e in store.read_all()]
    assert await versions(store, stored.stream_id) == [1]


async def test_events_by_type_come_in_the_order_of_the_log(store):
    tenant = uuid4()
    first = await fill(store, 1, tenant_id=tenant, occurred_at=NOON)
    second = await fill(store, 2, occurred_at=NOON + HOUR)
    await store.append_events(first, "Order", [placed(first, tenant_id=tenant, occurred_at=NOON + HOUR)])
    events = await store.get_events_by_type("Order")
    assert [e.aggregate_id for e in events] == [first, second, second, first]
    assert len(await store.get_events_by_type("Order", tenant_id=tenant)) == 2
    assert len(await store.get_events_by_type("Order", from_timestamp=NOON + HOUR)) == 3
    assert await store.get_events_by_type("Invoice") == []


async def test_single_questions_are_answered(store):
    order = uuid4()
    event = placed(order)
    assert not await store.event_exists(event.event_id)
    assert await store.get_stream_version(order, "Order") == 0
    await store.append_events(order, "Order", [event])
    assert await store.event_exists(event.event_id)
    assert await store.get_stream_version(order, "Order") == 1
    assert await store.get_stream_version(order, "Invoice") == 0
    assert await store.get_global_position() == 1


# -- stored events ---------------------------------------------------------------------------------


async def test_a_stored_event_tells_its_place_without_being_decoded(store):
    order, tenant = uuid4(), uuid4()
    event = placed(order, tenant_id=tenant, actor_id="me", occurred_at=NOON)
    before = datetime.now(timezone.utc) - timedelta(minutes=1)
    await store.append_events(order, "Order", [event])
    decoded = []
    store.codec.decode = lambda row: decoded.append(row) or event
    [stored] = [e async for e in store.read_all()]
    assert (stored.global_position, stored.stream_position) == (1, 1)
    assert (stored.event_id, stored.aggregate_id, stored.tenant_id) == (event.event_id, order, tenant)
    assert (stored.aggregate_type, stored.event_type, stored.actor_id) == ("Order", "OrderPlaced", "me")
    assert stored.stream_id == f"{order}:Order"
    assert stored.occurred_at == NOON
    assert before < stored.stored_at < datetime.now(timezone.utc) + timedelta(minutes=1)
    assert '"customer_id"' in stored.payload
    assert "OrderPlaced" in repr(stored)
    assert not decoded
    assert stored.event is stored.event is event
    assert len(decoded) == 1


async def test_stored_events_are_equal_by_what_is_stored(store):
    await fill(store, 2)
    one, two = [e async for e in store.read_all()]
    again, _ = [e async for e in store.read_all()]
    assert one == again != two
    assert len({one, again, two}) == 2


# -- unknown types ---------------------------------------------------------------------------------


@pytest.fixture
async def mixed(database_url, open_stores):
    """Opens a store that knows only OrderPlaced on a log that also holds an event of an unknown class."""
    registry = EventRegistry()

    @register_event(registry=registry)
    class Vanished(DomainEvent):
        aggregate_type: str = "Order"
        note: str
        parent_id: str

    known = EventRegistry()
    known.register(OrderPlaced)

    async def make(policy, fill_first=True):
        store = await open_stores(database_url, event_registry=known, unknown_events=policy)
        order = uuid4()
        events = [placed(order), Vanished(aggregate_id=order, note="n", parent_id=str(order)), placed(order)]
        known.register(Vanished)
        await store.append_events(order, "Order", events)
        known.unregister("Vanished")
        return store, order

    return make


async def test_an_unknown_type_raises_when_the_event_is_asked_for(mixed):
    store, order = await mixed("raise")
    stored = [e async for e in store.read_all()]
    assert [e.event_type for e in stored] == ["OrderPlaced", "Vanished", "OrderPlaced"]
    with pytest.raises(UnknownEventTypeError, match="Vanished.*OrderPlaced.*unknown_events") as caught:
        _ = stored[1].event
    assert caught.value.event_type == "Vanished"
    with pytest.raises(UnknownEventTypeError):
        await store.get_events(order, "Order")


async def test_unknown_types_can_be_skipped(mixed):
    store, order = await mixed("skip")
    assert await positions(store) == [1, 3]
    assert await versions(store, stream_name("Order", order)) == [1, 3]
    stream = await store.get_events(order, "Order")
    assert ([e.aggregate_version for e in stream.events], stream.version) == ([1, 3], 3)
    assert (await store.append_events(order, "Order", [placed(order)], stream.version)).new_version == 4


async def test_unknown_types_can_be_read_without_their_class(mixed):
    store, order = await mixed("untyped")
    event = (await store.get_events(order, "Order")).events[1]
    assert isinstance(event, UntypedEvent)
    assert (event.event_type, event.note, event.parent_id) == ("Vanished", "n", order)


async def test_a_class_that_is_registered_later_is_used_from_then_on(mixed):
    store, order = await mixed("untyped")
    (before,) = [e.event for e in [e async for e in store.read_all()] if e.event_type == "Vanished"]

    @register_event(event_type="Vanished", registry=store.event_registry)
    class Found(DomainEvent):
        aggregate_type: str = "Order"
        note: str
        parent_id: str

    after = (await store.get_events(order, "Order")).events[1]
    assert (type(before), type(after)) == (UntypedEvent, Found)
    assert after.parent_id == str(order)


async def test_an_event_that_does_not_fit_its_class_says_where_it_is(store):
    order = uuid4()
    registry = EventRegistry()

    @register_event(event_type="OrderPlaced", registry=registry)
    class Smaller(DomainEvent):
        aggregate_type: str = "Order"

    await store.append_events(order, "Order", [placed(order)])
    known, store.codec.registry = store.codec.registry, registry
    await store.append_events(order, "Order", [Smaller(aggregate_id=order)])
    store.codec.registry = known
    with pytest.raises(EventDecodeError, match="global position 2") as caught:
        await store.get_events(order, "Order")
    assert (caught.value.event_type, caught.value.global_position) == ("OrderPlaced", 2)


# -- iterators -------------------------------------------------------------------------------------


async def test_an_abandoned_iterator_leaves_nothing_behind(store):
    """The store's own check on closing is that every connection came back."""
    await fill(store, 1500)
    for _ in range(3):
        async for _event in store.read_all():
            break
    reading = store.read_all()
    await reading.__anext__()
    await reading.aclose()
    async with aclosing(store.read_all(ReadOptions(direction=BACKWARD))) as backward:
        async for stored in backward:
            if stored.global_position < 400:
                break
    await fill(store, 1)
    assert await store.get_global_position() == 1501


async def test_a_store_may_be_closed_right_after_an_iterator_was_abandoned(database_url, open_stores):
    store = await open_stores(database_url)
    await fill(store, 1500)
    async with aclosing(store.read_all()) as events:
        async for _event in events:
            await asyncio.sleep(0)  # lets the next page be asked for
            break
    # No pause in between: nothing may still be under way.
    from support.leaks import close_without_leaks

    await close_without_leaks(store)


@pytest.mark.awaited
async def test_a_cancelled_reader_leaves_nothing_behind(store):
    await fill(store, 1500)

    async def read():
        async for _event in store.read_all():
            await asyncio.sleep(0)

    for moment in range(0, 40, 3):
        task = asyncio.create_task(read())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(await positions(store)) == 1500


async def test_many_readers_at_once_each_see_everything(store):
    await fill(store, 600)
    results = await asyncio.gather(*(positions(store) for _ in range(20)))
    assert all(result == list(range(1, 601)) for result in results)


async def test_a_reader_may_append_while_it_reads(store):
    order = await fill(store, 600)
    seen = 0
    async for stored in store.read_all(ReadOptions(limit=600)):
        seen += 1
        if stored.global_position % 100 == 0:
            await store.append_events(order, "Order", [placed(order)])
    assert seen == 600
    assert await store.get_global_position() == 606


# -- going on after an error -----------------------------------------------------------------------


@pytest.mark.awaited
async def test_a_reader_that_is_cancelled_while_it_waits_goes_on_where_it_was(store):
    await fill(store, 600)
    for options in (ReadOptions(), ReadOptions(limit=550), ReadOptions(direction=BACKWARD)):
        expected = await positions(store, direction=options.direction, limit=options.limit)
        for moment in range(0, 24, 2):
            reader, seen, cancelled = store.read_all(options), [], set()
            while True:
                step = asyncio.ensure_future(anext(reader))
                if len(seen) in (0, 250, 500, len(expected)) and len(seen) not in cancelled:
                    cancelled.add(len(seen))
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    step.cancel()
                try:
                    seen.append((await step).global_position)
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
            assert seen == expected


async def test_a_reader_that_was_left_or_closed_is_at_its_end(store):
    await fill(store, 3)
    reader = store.read_all()
    assert (await anext(reader)).global_position == 1
    with pytest.raises(ZeroDivisionError):
        await reader.athrow(ZeroDivisionError)
    assert [stored async for stored in reader] == []
    reader = store.read_all()
    await anext(reader)
    await reader.aclose()
    assert [stored async for stored in reader] == []


@pytest.mark.awaited
async def test_a_task_can_be_made_of_the_next_event(store):
    await fill(store, 2)
    reader = store.read_all()
    first = await asyncio.create_task(anext(reader))
    never = asyncio.create_task(anext(reader))
    never.cancel()  # before it has begun: nothing is passed over
    await asyncio.wait([never])
    assert [first.global_position] + [stored.global_position async for stored in reader] == [1, 2]


async def test_a_list_whose_decoding_fails_leaves_no_connection_out(store):
    await fill(store, 1500)
    async with store.transaction() as transaction:
        await transaction.connection.exec_driver_sql("UPDATE events SET payload = '{}' WHERE version = 300")
    with pytest.raises(EventDecodeError):
        await store.get_events_by_type("Order")
    check_connections(store)


# -- the last positions ----------------------------------------------------------------------------


async def test_the_last_positions_and_versions_that_a_database_can_count_are_read(store):
    order = await fill(store, 3)
    last = 2**63 - 1
    async with store.transaction() as transaction:
        for version, position in ((3, last), (2, 2**62 + 5)):
            await transaction.connection.exec_driver_sql(
                f"UPDATE events SET global_position = {position} WHERE version = {version}"
            )
        await transaction.connection.exec_driver_sql(
            "UPDATE events SET version = 2147483647 WHERE version = 3"
        )
    everything = [1, 2**62 + 5, last]
    assert await positions(store) == everything
    assert await store.get_global_position() == last
    assert await positions(store, from_position=2**62) == everything[1:]
    assert await positions(store, from_position=last) == []
    assert await positions(store, from_position=2**70) == []
    for beyond in (0, 2**63, 2**70):
        assert await positions(store, from_position=beyond, direction=BACKWARD) == everything[::-1]
        assert await positions(store, from_position=beyond, direction=BACKWARD, limit=2) == everything[:0:-1]
    assert await positions(store, from_position=last, direction=BACKWARD) == everything[1::-1]
    assert await positions(store, from_position=2**62 + 5, direction=BACKWARD) == [1]
    name, greatest = stream_name("Order", order), 2**31 - 1
    assert await versions(store, name, direction=BACKWARD) == [greatest, 2, 1]
    assert await versions(store, name, direction=BACKWARD, from_position=greatest) == [2, 1]
    assert await versions(store, name, direction=BACKWARD, from_position=2**40) == [greatest, 2, 1]
    assert await versions(store, name, from_position=2**40) == []


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": "5"},
        {"limit": True},
        {"limit": -1},
        {"from_position": 1.5},
        {"from_position": -1},
        {"from_timestamp": "2024-01-01"},
        {"to_timestamp": datetime(2024, 1, 1)},
        {"event_types": "OrderPlaced"},
        {"event_types": 5},
        {"aggregate_types": "Order"},
        {"aggregate_types": ["Order", 5]},
        {"tenant_id": "shop"},
        {"direction": "back"},
    ],
    ids=repr,
)
def test_an_option_of_the_wrong_kind_is_refused(wrong):
    with pytest.raises(InvalidOptionError, match=next(iter(wrong))):
        ReadOptions(**wrong)


async def test_a_single_name_is_not_taken_for_its_letters(store):
    with pytest.raises(
        InvalidOptionError, match=r"event_types must be a collection of names, not 'OrderPlaced'"
    ):
        store.subscribe(event_types="OrderPlaced")
