"""Subscriptions: catch up, then live, on every database."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import placed

from esource import CheckpointRepository, EventStore, InvalidOptionError, StoredEvent, partition_of

LONG = 600.0
"""A poll that never comes within a test: whatever arrives was woken up for."""


async def append(store: EventStore, count: int = 1, **fields: object) -> list[int]:
    """Append single events to streams of their own; their positions."""
    results = []
    for _ in range(count):
        event = placed(**fields)
        results.append(await store.append_events(event.aggregate_id, "Order", [event]))
    return [result.global_position for result in results]


async def take(subscription: object, count: int) -> list[StoredEvent]:
    taken = []
    async for event in subscription:
        taken.append(event)
        if len(taken) == count:
            return taken
    return taken


async def test_a_subscription_catches_up_and_then_goes_on_live(store: EventStore):
    before = await append(store, 3)
    async with store.subscribe(poll_seconds=LONG) as subscription:
        assert [event.global_position for event in await take(subscription, 3)] == before
        waiting = asyncio.create_task(take(subscription, 2))
        await asyncio.sleep(0)
        after = await append(store, 2)
        assert [event.global_position for event in await asyncio.wait_for(waiting, 30)] == after


async def test_another_store_on_the_same_database_wakes_a_subscription(shared_database_url, open_stores):
    reader, writer = await open_stores(shared_database_url), await open_stores(shared_database_url)
    async with reader.subscribe(poll_seconds=LONG) as subscription:
        waiting = asyncio.create_task(take(subscription, 1))
        while not reader._opened.database.wake_up.is_watching:
            await asyncio.sleep(0.01)
        [position] = await append(writer)
        [event] = await asyncio.wait_for(waiting, 30)
        assert event.global_position == position


async def test_lost_notifications_only_delay_until_the_next_poll(store: EventStore):
    async with store.subscribe(poll_seconds=0.05) as subscription:
        store._opened.database.wake_up.set = lambda: None
        waiting = asyncio.create_task(take(subscription, 2))
        await asyncio.sleep(0)
        positions = await append(store, 2)
        assert [event.global_position for event in await asyncio.wait_for(waiting, 30)] == positions


async def test_nothing_is_missed_or_repeated_at_the_seam_while_others_write(store: EventStore):
    async with store.subscribe(poll_seconds=LONG) as subscription:
        reading = asyncio.create_task(take(subscription, 600))
        written = await asyncio.gather(*(append(store, 30) for _ in range(20)))
        seen = [event.global_position for event in await asyncio.wait_for(reading, 60)]
    assert seen == sorted(position for positions in written for position in positions)


async def test_without_live_a_subscription_ends_at_the_end_of_the_log(store: EventStore):
    positions = await append(store, 4)
    events = await take(store.subscribe(positions[1], live=False), 100)
    assert [event.global_position for event in events] == positions[2:]


async def test_filters_are_passed_over_without_being_read_again(store: EventStore):
    tenant = uuid4()
    await append(store, 2)
    [wanted] = await append(store, tenant_id=tenant)
    await append(store, 2)
    subscription = store.subscribe(tenant_id=tenant, live=False)
    assert [event.global_position for event in await take(subscription, 100)] == [wanted]
    assert subscription.position == await store.get_global_position()
    assert await take(store.subscribe(event_types=["Nothing"], live=False), 1) == []
    assert len(await take(store.subscribe(aggregate_types=["Order"], live=False), 100)) == 5


async def test_partitions_share_the_streams_without_overlap(store: EventStore):
    await append(store, 40)
    parts = [
        {event.aggregate_id for event in await take(store.subscribe(partition=(n, 3), live=False), 100)}
        for n in range(3)
    ]
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 40
    assert all(partition_of(stream, 3) == n for n, part in enumerate(parts) for stream in part)


async def test_a_checkpoint_says_where_the_next_subscription_starts(store: EventStore):
    positions = await append(store, 5)
    async with store.subscribe(checkpoint="reader") as first:
        await take(first, 2)
        await first.save()
    second = store.subscribe(checkpoint="reader", live=False)
    assert [event.global_position for event in await take(second, 100)] == positions[2:]


async def test_a_subscription_is_stopped_from_another_task(store: EventStore):
    async with store.subscribe(poll_seconds=LONG) as subscription:
        waiting = asyncio.create_task(take(subscription, 1))
        await asyncio.sleep(0.01)
        subscription.stop()
        assert await asyncio.wait_for(waiting, 30) == []


async def test_the_watch_goes_on_after_the_server_closed_its_connection_on_postgresql(
    postgres_url, open_stores
):
    reader, writer = await open_stores(postgres_url), await open_stores(postgres_url)
    async with reader.subscribe(poll_seconds=LONG) as subscription:
        waiting = asyncio.create_task(take(subscription, 1))
        while not reader._opened.database.wake_up.is_watching:
            await asyncio.sleep(0.01)
        async with writer.transaction() as transaction:
            await transaction.connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        while reader._opened.database.wake_up.is_watching:
            await asyncio.sleep(0.01)
        await append(writer)
        assert len(await asyncio.wait_for(waiting, 30)) == 1


async def test_contradicting_options_are_refused(store: EventStore):
    with pytest.raises(InvalidOptionError, match="exclude"):
        store.subscribe(1, checkpoint="reader")
    with pytest.raises(InvalidOptionError, match="partition"):
        store.subscribe(partition=(3, 3))
    with pytest.raises(InvalidOptionError, match="poll_seconds"):
        store.subscribe(poll_seconds=0)
    with pytest.raises(InvalidOptionError, match="checkpoint"):
        await store.subscribe().save()


async def test_a_subscription_that_is_stopped_by_its_reader_hands_over_no_more(store: EventStore):
    await append(store, 3)
    seen = []
    async with store.subscribe(live=False, checkpoint="reader") as subscription:
        await subscription.save()  # nothing was handed over: there is nothing to save
        assert await CheckpointRepository(store).get_position("reader") is None
        async for event in subscription:
            seen.append(event.global_position)
            subscription.stop()
    assert seen == [1]
