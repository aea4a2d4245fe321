"""A store knows whether its database has an outbox, whoever opened it first."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from sqlalchemy import text
from support.orders import placed, several

from esource import EventStore, OutboxRepository
from esource.log import known_outbox


async def append(store: EventStore, count: int = 1) -> None:
    event = placed()
    await store.append_events(event.aggregate_id, "Order", several(count, event.aggregate_id))


async def pending(store: EventStore) -> int:
    return (await OutboxRepository(store).get_stats()).pending_count


async def test_a_script_that_says_nothing_fills_the_outbox_that_there_is(shared_database_url, open_stores):
    service = await open_stores(shared_database_url, outbox_enabled=True)
    await append(service, 14)
    script = await open_stores(shared_database_url)
    await append(script)
    assert script.outbox_enabled
    assert await pending(service) == 15
    other = await open_stores(shared_database_url)
    async with other.transaction():
        await append(other, 2)
    async with other.for_tenant(uuid4()).transaction() as transaction:
        event = placed()
        await transaction.append_events(event.aggregate_id, "Order", [event])
    assert await pending(service) == 18


async def test_without_an_outbox_no_row_is_written(store: EventStore):
    await append(store, 2)
    assert not store.outbox_enabled
    assert await pending(store) == 0


async def test_an_outbox_that_another_program_opens_later_is_noticed(
    shared_database_url, open_stores, monkeypatch
):
    script = await open_stores(shared_database_url)
    await append(script)
    service = await open_stores(shared_database_url, outbox_enabled=True)
    await append(service)
    await append(script)  # asked a moment ago
    assert await pending(service) == 1
    monkeypatch.setattr(known_outbox, "monotonic", lambda: time.monotonic() + known_outbox.ASK_SECONDS)
    for step in range(3):
        await append(script)
        async with script.transaction():
            await append(script)
        await asyncio.gather(append(script), append(script))
        assert await pending(service) == 1 + 4 * (step + 1)
    assert script.outbox_enabled


async def test_a_row_by_hand_makes_no_outbox_for_every_event(shared_database_url, open_stores):
    store = await open_stores(shared_database_url)
    await OutboxRepository(store).add_event(placed())
    await append(store)
    assert await pending(store) == 1


async def test_a_store_that_was_told_to_write_none_writes_none(shared_database_url, open_stores):
    await append(await open_stores(shared_database_url, outbox_enabled=True))
    quiet = await open_stores(shared_database_url, outbox_enabled=False)
    await append(quiet)
    assert await pending(quiet) == 1


async def test_cleaning_leaves_what_tells_that_there_is_an_outbox(shared_database_url, open_stores):
    service = await open_stores(shared_database_url, outbox_enabled=True)
    await append(service, 3)
    outbox = OutboxRepository(service)
    for entry in await outbox.get_pending_events():
        await outbox.mark_published(entry.id)
    async with service.transaction() as transaction:
        await transaction.connection.execute(
            text("UPDATE event_outbox SET published_at = '2001-01-01T00:00:00.000000+00:00'")
        )
    assert await outbox.cleanup_published(days=7) == 2
    script = await open_stores(shared_database_url)
    await append(script)
    assert await pending(service) == 1
    assert await outbox.cleanup_published(days=0) == 1
