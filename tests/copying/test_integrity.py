"""A store that is in order is found to be, and one that is not, is not."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventRegistry,
    EventStore,
    OutboxRepository,
    SQLiteEventStore,
)
from esource.copying.integrity import SHOWN, verify_store
from esource.database.sources import database_of
from esource.dialect.urls import moving_of
from esource.tables import events


@pytest.fixture
async def filled(store: EventStore) -> EventStore:
    for number in range(1, 4):
        order = uuid4()
        await store.append_events(order, "Order", several(number, order), 0)
    return store


async def run(store: EventStore, *statements: str) -> None:
    await database_of(store).run_script(list(statements))


async def test_a_store_in_order_is_found_in_order(filled: EventStore):
    event = placed()
    await filled.append_events(event.aggregate_id, "Order", [event], 0)
    await filled.close_stream(event.aggregate_id, "Order")
    await OutboxRepository(filled).add_event(event)
    await DLQRepository(filled).add_failed_event(
        event.event_id, "p", "OrderPlaced", event.to_dict(), ValueError()
    )
    await CheckpointRepository(filled).save_position("p", 7, event.event_id, "OrderPlaced")
    found = await verify_store(filled, registry=filled.event_registry)
    assert found.findings == []
    assert found.is_whole
    assert found.rows["events"] == 8
    assert "decoding" in found.checks


BREAKS = {
    "has version 3 at position 6, and version 2 not before it": "DELETE FROM events WHERE global_position = 5",
    "has version 2 at position 3, and version 1 not before it": "DELETE FROM events WHERE global_position = 2",
    "goes on after it was closed at version 1": "UPDATE events SET event_type = 'esource.StreamClosed' "
    "WHERE global_position = 4",
    "is at position 9, the log ends at 6": "INSERT INTO projection_checkpoints (projection_name, global_position) "
    "VALUES ('p', 9)",
    "p is at position 2, its last event at 4": "INSERT INTO projection_checkpoints (projection_name, "
    "global_position, last_event_id) SELECT 'p', 2, event_id FROM events WHERE global_position = 4",
    "has one at version 9, past its last event": "INSERT INTO snapshots (aggregate_id, aggregate_type, version, "
    "state) SELECT aggregate_id, aggregate_type, 9, '{}' FROM events WHERE global_position = 1",
    "which is not in the log": "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type) "
    "SELECT aggregate_id, event_type, aggregate_id, aggregate_type FROM events WHERE global_position = 1",
    "says position 3, its event is at 1": "INSERT INTO event_outbox (event_id, event_type, aggregate_id, "
    "aggregate_type, global_position) SELECT event_id, event_type, aggregate_id, aggregate_type, 3 FROM events "
    "WHERE global_position = 1",
    "p waits for event": "INSERT INTO dead_letter_queue (event_id, projection_name, event_type, event_data, "
    "error_message) SELECT aggregate_id, 'p', event_type, '{}', 'x' FROM events WHERE global_position = 1",
    "position 2: ": "UPDATE events SET event_type = 'Nobody' WHERE global_position = 2",
}


@pytest.mark.parametrize(("said", "statement"), BREAKS.items(), ids=[text[:30] for text in BREAKS])
async def test_what_is_out_of_order_is_found(filled: EventStore, said, statement):
    await run(filled, statement)
    found = await verify_store(filled, registry=filled.event_registry)
    assert [said in str(finding) for finding in found.findings] == [True], found.findings
    assert not found.is_whole


async def test_a_counter_that_would_hand_out_a_position_twice_is_found(filled: EventStore):
    database = database_of(filled)
    moving = moving_of(database.backend)
    async with database.transaction() as unit:
        await moving.set_counter(unit.driver, events, 4)
    [finding] = (await verify_store(filled)).findings
    assert "the next key of events is 5, but 6 is taken" in str(finding)


async def test_on_sqlite_where_any_text_may_stand_values_that_cannot_be_read_are_found(tmp_path):
    async with SQLiteEventStore(tmp_path / "events.db") as store:
        await store.initialize()
        order = uuid4()
        await store.append_events(order, "Order", several(3, order), 0)
        await run(
            store,
            "UPDATE events SET timestamp = 'yesterday' WHERE global_position = 1",
            "UPDATE events SET payload = '{' WHERE global_position = 2",
            "UPDATE events SET event_id = 'x' WHERE global_position = 3",
        )
        problems = [finding.problem for finding in (await verify_store(store)).findings]
    assert [problem.split(":")[0] for problem in problems] == [f"events, row {n}" for n in (1, 2, 3)]
    assert [problem.split()[3] for problem in problems] == ["timestamp", "payload", "event_id"]


async def test_a_great_many_findings_are_counted_not_listed(store: EventStore):
    order = uuid4()
    await store.append_events(order, "Order", several(2 * SHOWN, order), 0)
    found = await verify_store(store, registry=EventRegistry())
    assert (len(found.findings), found.more) == (SHOWN, SHOWN)
