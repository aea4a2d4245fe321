"""A failure, or a relay that hangs, holds up its own stream and nobody else's, however many rows wait behind it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import placed, several
from support.relays import Gate, Sink, append, relay_of, stats_of

from esource import OutboxRepository
from esource.publishing.claims import Claims, Fairness

BATCH = 4


async def one_long_stream_and_ten_others(store):
    """More rows behind the first than a relay claims at a time, and then those of five other streams; both."""
    long = several(3 * BATCH)
    await append(store, *long)
    others = [several(2) for _ in range(5)]
    for step in range(2):
        for stream in others:
            await append(store, stream[step])
    return long, others


def ids_of(streams):
    return {stream[0].aggregate_id: [event.event_id for event in stream] for stream in streams}


@pytest.mark.parametrize("by_hand", [False, True], ids=["rows of the log", "rows added by hand"])
@pytest.mark.parametrize("given_up", [False, True], ids=["tried again later", "given up and blocking"])
async def test_rows_behind_a_failed_one_do_not_fill_the_window(
    database_url, open_stores, sink, by_hand, given_up
):
    store = await open_stores(database_url, outbox_enabled=not by_hand)
    outbox = OutboxRepository(store)
    long, others = several(3 * BATCH), [several(2) for _ in range(5)]
    for events in (long, *others):
        if by_hand:
            for event in events:
                await outbox.add_event(event)
        else:
            await append(store, *events)
    sink.failing[long[0].event_id] = 1000
    relay = relay_of(
        store,
        sink,
        batch_size=BATCH,
        retry_seconds=3600,
        max_retry_seconds=3600,
        max_attempts=1 if given_up else 10,
        block_failed_streams=True,
    )
    assert await relay.drain() == 10
    assert sink.by_stream() == ids_of(others)
    assert await stats_of(store) == ((len(long) - 1, 10, 1) if given_up else (len(long), 10, 0))

    await append(store, *several(1))
    assert await relay.drain() == (0 if by_hand else 1)
    [first, *_] = await outbox.get_failed_events() if given_up else await outbox.get_pending_events()
    await outbox.mark_published(first.id)
    sink.failing.clear()
    assert await relay.drain() == len(long) - 1
    assert sink.by_stream()[long[0].aggregate_id] == [event.event_id for event in long[1:]]


async def test_a_sound_relay_is_not_stuck_behind_one_that_hangs(shared_database_url, open_stores, sink):
    store, other = [await open_stores(shared_database_url, outbox_enabled=True) for _ in range(2)]
    long, others = await one_long_stream_and_ten_others(store)
    hanging = Gate()
    at_work = asyncio.create_task(relay_of(store, hanging, batch_size=BATCH).run_once())
    await hanging.reached.wait()

    sound = relay_of(other, sink, batch_size=BATCH)
    assert await sound.drain() == 10
    assert sink.by_stream() == ids_of(others)

    hanging.opened.set()
    await at_work
    await sound.drain()
    assert [*hanging.ids, *sink.ids[10:]] == [event.event_id for event in long]


async def test_what_follows_a_failed_row_is_published_as_soon_as_that_one_is(store, sink):
    """No row but the one that failed waits for a pause of its own."""
    events = several(3)
    await append(store, *events)
    sink.failing[events[0].event_id] = 1
    relay = relay_of(store, sink, retry_seconds=3600, max_retry_seconds=3600)
    await relay.drain()
    [failed, *rest] = await OutboxRepository(store).get_pending_events()
    assert len(rest) == 2
    await OutboxRepository(store).mark_published(failed.id)
    assert await relay.drain() == 2


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_closed_streams_last_event_waits_for_the_failed_one_of_its_tenant(store, sink, blocking):
    """Who closes a stream need not be bound to the tenant of its events."""
    event = placed(tenant_id=uuid4())
    await append(store, event)
    await store.close_stream(event.aggregate_id, "Order", 1)
    sink.failing[event.event_id] = 1
    relay = relay_of(
        store,
        sink,
        max_attempts=1 if blocking else 2,
        block_failed_streams=blocking,
        retry_seconds=3600,
        max_retry_seconds=3600,
    )
    assert await relay.drain() == 0
    assert sink.ids == []


@pytest.mark.parametrize("by_hand", [False, True], ids=["rows of the log", "rows added by hand"])
@pytest.mark.parametrize("hanging", [False, True], ids=["fails", "hangs"])
async def test_a_tenants_row_that_names_the_stream_of_another_holds_up_nobody(
    database_url, open_stores, by_hand, hanging
):
    store = await open_stores(database_url, outbox_enabled=not by_hand)
    red, blue = store.for_tenant(uuid4()), store.for_tenant(uuid4())
    theirs = several(2)
    planted = placed(theirs[0].aggregate_id)
    reached, opened = asyncio.Event(), asyncio.Event()

    class Broker(Sink):
        async def publish(self, entry):
            if entry.event_id == planted.event_id:
                reached.set()
                if hanging:
                    await opened.wait()
                raise ConnectionError("it cannot be sent")
            await super().publish(entry)

    await OutboxRepository(red).add_event(planted)
    if by_hand:
        for event in theirs:
            await OutboxRepository(blue).add_event(event)
    else:
        await append(blue, *theirs)

    broker = Broker()
    relay = relay_of(store, broker, max_attempts=1, block_failed_streams=True)
    at_work = asyncio.create_task(relay.drain())
    await reached.wait()
    while len(broker.ids) < 2 and not at_work.done():
        await asyncio.sleep(0.001)
    opened.set()
    await at_work
    if by_hand:
        await OutboxRepository(blue).add_event(later := placed(planted.aggregate_id))
    else:
        await append(blue, later := placed(planted.aggregate_id))
    await relay.drain()
    assert broker.ids == [event.event_id for event in (*theirs, later)]


@pytest.mark.parametrize("has_tenants", [True, False], ids=["tenants", "streams of no tenant"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["rows of the log", "rows added by hand"])
async def test_many_rows_of_one_hold_up_no_other(database_url, open_stores, has_tenants, by_hand):
    store = await open_stores(database_url, outbox_enabled=not by_hand)
    outbox = OutboxRepository(store)
    first, second = (uuid4(), uuid4()) if has_tenants else (None, None)
    many = [placed(stream, tenant_id=first) for stream in [uuid4()] for _ in range(60)]
    few = [placed(stream, tenant_id=second) for stream in [uuid4()] for _ in range(5)]
    for events in (many, few):
        if by_hand:
            for event in events:
                await outbox.add_event(event)
        else:
            await append(store, *events)
    sink = Sink()
    assert await relay_of(store, sink, batch_size=10).drain() == 65
    assert set(sink.ids[10:15]) == {event.event_id for event in few}
    assert [key for key in sink.ids if key not in sink.ids[10:15]] == [event.event_id for event in many]


async def test_a_stream_keeps_its_order_when_a_part_of_it_is_left_out(store):
    """Its rows need not be of one tenant."""
    tenant, stream, other = uuid4(), uuid4(), placed(tenant_id=uuid4())
    mixed = [placed(stream, tenant_id=tenant if number < 30 else None) for number in range(40)]
    await append(store, *mixed)
    await append(store, other)
    sink = Sink()
    assert await relay_of(store, sink, batch_size=10).drain() == 41
    assert sink.ids[10] == other.event_id
    assert sink.by_stream()[stream] == [event.event_id for event in mixed]


async def test_whether_others_wait_is_asked_less_and_less_while_there_are_none(store):
    events = several(200)
    await append(store, *events)
    asked: list[bool] = []

    class Asked(Claims):
        async def take(self, limit, left_out=()):
            asked.append(bool(left_out))
            return await super().take(limit, left_out)

    fairness, found = Fairness(), 0
    for number in range(20):
        claims = Asked(store.reader.database, f"relay {number}", 60.0, blocking=False)
        entries = await fairness.take(claims, 10)
        await claims.confirm(entries)
        found += len(entries)
    assert (found, asked.count(False), asked.count(True)) == (200, 20, 4)
