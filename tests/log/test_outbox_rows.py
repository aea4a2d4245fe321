"""Outbox rows are written with their events, in the same transaction, when the store is told to."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import OptimisticLockError, OutboxRepository, PostgreSQLEventStore, SQLiteEventStore


@pytest.fixture
async def store(database_url, open_stores):
    return await open_stores(database_url, outbox_enabled=True)


async def test_every_event_gets_a_row_that_refers_to_it(store):
    order, tenant = uuid4(), uuid4()
    events = several(3, order, tenant_id=tenant, actor_id="me")
    await store.append_events(order, "Order", events, 0)
    rows = await OutboxRepository(store).get_pending_events()
    assert [row.event_id for row in rows] == [e.event_id for e in events]
    assert [row.global_position for row in rows] == [1, 2, 3]
    assert {(row.event_type, row.aggregate_id, row.tenant_id) for row in rows} == {
        ("OrderPlaced", order, tenant)
    }
    async with store.transaction() as tx:
        data = await tx.connection.exec_driver_sql("SELECT event_data FROM event_outbox")
        assert {row[0] for row in data} == {None}  # the log holds the event already


async def test_a_row_hands_over_the_whole_event(store):
    order = uuid4()
    event = placed(order, total=7.0, actor_id="me", metadata={"a": 1})
    await store.append_events(order, "Order", [event], 0)
    [row] = await OutboxRepository(store).get_pending_events()
    assert type(event).from_dict(row.event_data) == event


async def test_what_is_not_stored_has_no_row(store):
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises(OptimisticLockError):
        await store.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises(RuntimeError):
        async with store.transaction() as tx:
            await tx.append_events(order, "Order", [placed(order)], 1)
            raise RuntimeError
    assert len(await OutboxRepository(store).get_pending_events()) == 1


async def test_appends_in_a_transaction_have_their_rows_with_them(store):
    order = uuid4()
    async with store.transaction() as tx:
        await tx.append_events(order, "Order", several(2, order), 0)
        assert len(await tx.outbox.get_pending_events()) == 2
    assert len(await OutboxRepository(store).get_pending_events()) == 2


async def test_a_store_that_was_not_told_to_writes_none(database_url, open_stores):
    store = await open_stores(database_url)
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    assert await OutboxRepository(store).get_pending_events() == []


def test_both_stores_have_the_option():
    assert SQLiteEventStore(":memory:", outbox_enabled=True).outbox_enabled
    assert PostgreSQLEventStore("postgresql://host/db", outbox_enabled=True).outbox_enabled
