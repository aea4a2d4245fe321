"""Expand, then contract: what the code of an earlier schema sends still works on the newest.

During a rolling deployment the migration comes first, and the code before it goes on for a while. There is no
release yet whose wheel could be installed beside the newest schema; until there is, its place is taken by the
statements that code sent at revision 0001 (the tutorial's, as eventsource-py 0.4 and 0.5 wrote them) and at
revision 0002 (ours before leases). They are frozen here: a migration that breaks one needs a step before it.
"""

from uuid import UUID

import pytest
from support.orders import placed
from support.schemas import execute, rows

from esource import (
    CheckpointRepository,
    DLQRepository,
    OutboxRelay,
    OutboxRepository,
    SnapshotStore,
)

ORDER = UUID("0d000000-0000-4000-8000-000000000001")
FIRST, SECOND, THIRD = (UUID(f"e0000000-0000-4000-8000-00000000000{n}") for n in (1, 2, 3))
MOMENT = "2025-03-01T12:00:00.000000+00:00"
BODY = '{"customer_id": "c-1", "total": 1.0}'


def event(event_id, version, columns="", values=""):
    return (
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version, "
        f"timestamp, payload{columns}) VALUES ('{event_id}', '{ORDER}', 'Order', 'OrderPlaced', NULL, NULL, "
        f"{version}, '{MOMENT}', '{BODY}'{values})"
    )


def snapshot(version):
    return (
        "INSERT INTO snapshots (aggregate_id, aggregate_type, version, schema_version, state, created_at) "
        f"VALUES ('{ORDER}', 'Order', {version}, 1, '{{}}', '{MOMENT}') "
        "ON CONFLICT (aggregate_id, aggregate_type) DO UPDATE SET version = excluded.version, "
        "schema_version = excluded.schema_version, state = excluded.state, created_at = excluded.created_at"
    )


LETTER = (
    "INSERT INTO dead_letter_queue (event_id, projection_name, event_type, event_data, error_message, "
    "error_stacktrace, retry_count, first_failed_at, last_failed_at, status) "
    f"VALUES ('{FIRST}', 'old', 'OrderPlaced', '{BODY}', 'x', NULL, 0, '{MOMENT}', '{MOMENT}', 'failed') "
    "ON CONFLICT (event_id, projection_name) DO UPDATE SET error_message = excluded.error_message, "
    "retry_count = excluded.retry_count, last_failed_at = excluded.last_failed_at, status = 'failed'"
)

WRITTEN = {
    "0001": [
        event(FIRST, 1),
        event(SECOND, 2),
        (
            "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id, event_data) "
            f"VALUES ('{FIRST}', 'OrderPlaced', '{ORDER}', 'Order', NULL, '{BODY}')"
        ),
        (
            "INSERT INTO projection_checkpoints (projection_name, last_event_id, last_event_type, last_processed_at, "
            "events_processed, created_at, updated_at) "
            f"VALUES ('old', '{FIRST}', 'OrderPlaced', '{MOMENT}', 1, '{MOMENT}', '{MOMENT}') "
            "ON CONFLICT (projection_name) DO UPDATE SET last_event_id = excluded.last_event_id, "
            "last_event_type = excluded.last_event_type, last_processed_at = excluded.last_processed_at, "
            "events_processed = projection_checkpoints.events_processed + 1, updated_at = excluded.updated_at"
        ),
        "UPDATE projection_checkpoints SET global_position = 1 WHERE projection_name = 'old'",
        LETTER,
        snapshot(1),
        snapshot(2),
    ],
    "0002": [
        event(FIRST, 1, ", created_at", f", '{MOMENT}'"),
        event(SECOND, 2, ", created_at", f", '{MOMENT}'"),
        (
            "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id, created_at, "
            "global_position) SELECT events.event_id, events.event_type, events.aggregate_id, events.aggregate_type, "
            "events.tenant_id, events.created_at, events.global_position FROM events "
            "WHERE events.global_position BETWEEN 1 AND 1 ORDER BY events.global_position"
        ),
        (
            "INSERT INTO projection_checkpoints (projection_name, last_event_id, last_event_type, last_processed_at, "
            "global_position, events_processed, created_at, updated_at) VALUES ('old', "
            f"'{FIRST}', 'OrderPlaced', '{MOMENT}', 1, 1, '{MOMENT}', '{MOMENT}') ON CONFLICT (projection_name) "
            "DO UPDATE SET last_event_id = excluded.last_event_id, last_event_type = excluded.last_event_type, "
            "last_processed_at = excluded.last_processed_at, global_position = coalesce(excluded.global_position, "
            "projection_checkpoints.global_position), events_processed = (projection_checkpoints.events_processed + 1), "
            "updated_at = excluded.updated_at WHERE projection_checkpoints.global_position IS NULL "
            "OR excluded.global_position > projection_checkpoints.global_position"
        ),
        LETTER,
        snapshot(2),
    ],
}
"""What each code wrote: two events of one order, the first in the outbox, checkpointed, a dead letter; a snapshot."""

READ = {
    "SELECT event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version, timestamp, payload, "
    "created_at, global_position FROM events WHERE aggregate_id = '{order}' AND aggregate_type = 'Order' "
    "AND version > 0 ORDER BY version": 3,
    "SELECT global_position FROM events WHERE global_position > 0 ORDER BY global_position LIMIT 100": 3,
    "SELECT max(version) FROM events WHERE aggregate_id = '{order}'": 1,
    "SELECT id, event_id, event_type, aggregate_id, aggregate_type, tenant_id, event_data, created_at, status, "
    "published_at, retry_count, last_error FROM event_outbox WHERE status = 'pending' ORDER BY created_at": 2,
    "SELECT projection_name, last_event_id, last_event_type, last_processed_at, events_processed, global_position "
    "FROM projection_checkpoints WHERE projection_name = 'old'": 1,
    "SELECT id, event_id, projection_name, event_type, event_data, error_message, error_stacktrace, retry_count, "
    "first_failed_at, last_failed_at, status, resolved_at, resolved_by FROM dead_letter_queue": 1,
    "SELECT aggregate_id, aggregate_type, version, state, schema_version, created_at FROM snapshots": 1,
}
"""What either code reads, and how many rows it finds once the newest has written one more event."""

ENDED = [
    "UPDATE event_outbox SET status = 'published', published_at = created_at WHERE status = 'pending'",
    "UPDATE dead_letter_queue SET status = 'resolved', resolved_at = last_failed_at, resolved_by = 'a'",
    "DELETE FROM projection_checkpoints WHERE projection_name = 'old'",
    "DELETE FROM snapshots WHERE aggregate_type = 'Order' AND schema_version < 2",
]


@pytest.mark.parametrize("revision", WRITTEN)
async def test_the_newest_schema_takes_and_shows_what_older_code_writes_and_reads(
    shared_database_url, open_stores, revision
):
    await execute(shared_database_url, *WRITTEN[revision])
    # The newest code works beside it, on the same stream.
    store = await open_stores(shared_database_url, outbox_enabled=True)
    assert [event.event_id for event in (await store.get_events(ORDER, "Order")).events] == [FIRST, SECOND]
    await store.append_events(ORDER, "Order", [placed(ORDER, event_id=THIRD)], 2)
    assert await CheckpointRepository(store).get_position("old") == 1
    assert (await SnapshotStore(store).get_snapshot(ORDER, "Order")).version == 2
    assert [entry.event_id for entry in await DLQRepository(store).get_failed_events()] == [FIRST]
    assert [entry.event_id for entry in await OutboxRepository(store).get_pending_events()] == [FIRST, THIRD]

    for statement, found in READ.items():
        assert len(await rows(shared_database_url, statement.format(order=ORDER))) == found, statement
    await execute(shared_database_url, *ENDED)
    assert await OutboxRepository(store).get_pending_events() == []
    assert await DLQRepository(store).get_failed_events() == []


@pytest.mark.parametrize("revision", WRITTEN)
async def test_the_newest_relay_publishes_the_outbox_rows_of_older_code(
    shared_database_url, open_stores, revision
):
    await execute(shared_database_url, *WRITTEN[revision])
    store = await open_stores(shared_database_url, outbox_enabled=True)
    await store.append_events(ORDER, "Order", [placed(ORDER, event_id=THIRD)], 2)
    published = []

    class Publisher:
        async def publish(self, entry):
            published.append(entry.event_id)

    await OutboxRelay(store, Publisher()).drain()
    # The tutorial's rows do not know the event's place: those written after the migration come last.
    assert published == ([THIRD, FIRST] if revision == "0001" else [FIRST, THIRD])
