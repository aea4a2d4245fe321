"""What the migrations do to rows: nothing, except to the form of moments that others wrote."""

import json
import sqlite3
from dataclasses import replace
from uuid import uuid4

import pytest
from support.orders import placed
from support.schemas import described, execute, rows

from esource import (
    CheckpointRepository,
    DLQRepository,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
    open_store,
    schema,
)
from esource.moments import to_iso, utc_now
from esource.tables import metadata

ORDER = uuid4()
TENANT = uuid4()


async def fill(url: str) -> None:
    """A row or more in each of the five tables, and a log whose last event was deleted."""
    async with open_store(url, outbox_enabled=True, enable_tracing=False) as store:
        await store.initialize()
        first = placed(ORDER, customer_id="größer", total=1e20, tenant_id=TENANT, actor_id="anna")
        await store.append_events(ORDER, "Order", [first, placed(ORDER), placed(ORDER)], 0)
        outbox = OutboxRepository(store)
        [pending, *_] = await outbox.get_pending_events()
        await outbox.mark_published(pending.id)
        await CheckpointRepository(store).save_position("List", 2, first.event_id, "OrderPlaced")
        letters = DLQRepository(store)
        for _ in range(2):
            last = await letters.add_failed_event(uuid4(), "List", "OrderPlaced", {"n": 1}, ValueError("no"))
        await letters.mark_resolved(last, "anna")
        await SnapshotStore(store).save_snapshot(Snapshot(ORDER, "Order", 2, {"total": 1.0}))
    await execute(
        url,
        "DELETE FROM events WHERE global_position = 3",
        "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, created_at, event_data) "
        f"VALUES ('{uuid4()}', 'OrderPlaced', '{ORDER}', 'Order', '{to_iso(utc_now())}', '{{\"by\": \"hand\"}}')",
    )


async def dump(url: str) -> dict[str, list]:
    """All rows of all tables, with the columns that both revisions have."""
    found = {}
    for name, table in metadata.tables.items():
        if "since" in table.info:
            continue
        columns = [column.name for column in table.columns if "since" not in column.info]
        if name == "event_outbox":
            columns.remove("event_data")
        key = "projection_name" if name == "projection_checkpoints" else columns[0]
        found[name] = await rows(url, f"SELECT {', '.join(columns)} FROM {name} ORDER BY {key}")
        assert found[name], name
    return found


async def pending(url: str) -> list:
    async with open_store(url, enable_tracing=False) as store:
        return await OutboxRepository(store).get_pending_events()


async def test_a_downgrade_and_an_upgrade_keep_every_row(empty_database_url):
    url = empty_database_url
    await fill(url)
    before, waiting, head = await dump(url), await pending(url), await described(url)

    await schema.downgrade(url, "0001")
    assert await schema.current(url) == "0001"
    assert await dump(url) == before
    await schema.upgrade(url)

    assert await dump(url) == before
    assert await described(url) == head
    # The reference became a copy of the event, and found its place again, if the event is still in the log.
    assert await pending(url) == [
        replace(entry, global_position=entry.global_position if entry.event_data else None)
        for entry in waiting
    ]


async def test_a_downgrade_writes_the_whole_event_into_outbox_rows_that_refer_to_it(empty_database_url):
    await fill(empty_database_url)
    [waiting] = [entry for entry in await pending(empty_database_url) if entry.global_position == 2]

    await schema.downgrade(empty_database_url, "0001")

    found = await rows(
        empty_database_url, f"SELECT event_data FROM event_outbox WHERE event_id = '{waiting.event_id}'"
    )
    assert json.loads(found[0][0]) == waiting.event_data
    assert waiting.event_data["customer_id"] == "c-1"
    # Its event is no longer in the log; the row stays.
    assert (await rows(empty_database_url, "SELECT count(*) FROM event_outbox"))[0] == (4,)


async def test_positions_are_not_given_out_twice_after_a_migration(empty_database_url):
    await fill(empty_database_url)  # position 3 was given out, and its event deleted

    await schema.downgrade(empty_database_url, "0001")
    await schema.upgrade(empty_database_url)

    async with open_store(empty_database_url, enable_tracing=False) as store:
        result = await store.append_events(ORDER, "Order", [placed(ORDER)], 2)
    assert result.global_position == 4


async def test_a_downgrade_to_base_drops_our_tables_and_no_others(empty_database_url):
    url = empty_database_url
    await execute(url, "CREATE TABLE customers (id INTEGER)")
    await fill(url)

    await schema.downgrade(url, "base")
    assert await schema.current(url) is None
    left = await described(url)
    await schema.upgrade(url)
    await fill_again(url)

    tables = set(left) - {"others"} if url.startswith("sqlite") else {row[0] for row in left["columns"]}
    assert tables == {"customers", schema.VERSION_TABLE}


async def fill_again(url: str) -> None:
    async with open_store(url, enable_tracing=False) as store:
        assert (await store.append_events(ORDER, "Order", [placed(ORDER)], 0)).global_position == 1


# -- SQLite: the form of moments ----------------------------------------------------------------------

MOMENTS = {
    "2025-03-01T12:00:00.123456+00:00": "2025-03-01T12:00:00.123456+00:00",
    "2025-03-01T12:00:00.123457Z": "2025-03-01T12:00:00.123457+00:00",
    "2025-03-01T12:00:00Z": "2025-03-01T12:00:00.000000+00:00",
    "2025-03-01T12:00:00+00:00": "2025-03-01T12:00:00.000000+00:00",
    "2025-03-01T12:00:00": "2025-03-01T12:00:00.000000+00:00",
    "2025-03-01 12:00:00": "2025-03-01T12:00:00.000000+00:00",
    "2025-03-01 12:00:00.5": "2025-03-01T12:00:00.500000+00:00",
    "2025-03-01T12:00:00.123+00:00": "2025-03-01T12:00:00.123000+00:00",
    "2025-03-01T12:00:00.123456789Z": "2025-03-01T12:00:00.123456+00:00",
    "2025-03-01T17:30:00.000001+05:30": "2025-03-01T12:00:00.000001+00:00",
    "2025-03-01T00:30:00.999999+05:30": "2025-02-28T19:00:00.999999+00:00",
    "2025-02-28T23:00:00-05:00": "2025-03-01T04:00:00.000000+00:00",
    "2025-03-01 13:00:00.25+01": "2025-03-01T12:00:00.250000+00:00",
    "2025-03-01T13:00:00+0100": "2025-03-01T12:00:00.000000+00:00",
    # SQLite reckons in milliseconds and would round these up to the next minute, the next year.
    "2025-03-01T12:00:59.999999+02:00": "2025-03-01T10:00:59.999999+00:00",
    "2025-12-31T23:59:59.999999Z": "2025-12-31T23:59:59.999999+00:00",
    # Nobody's form of a moment: left for a person to see.
    "yesterday": "yesterday",
    "2025-03-01T12:00:00 CET": "2025-03-01T12:00:00 CET",
}


@pytest.mark.slow
@pytest.mark.parametrize(("written", "kept"), MOMENTS.items())
async def test_on_sqlite_moments_that_others_wrote_get_the_one_form(tmp_path, written, kept):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await schema.upgrade(url, "0001")
    connection = sqlite3.connect(tmp_path / "events.db")
    for statement in (
        "INSERT INTO events VALUES (1, 'e', 'a', 'Order', 'OrderPlaced', NULL, NULL, 1, :at, '{}', :at)",
        "INSERT INTO event_outbox VALUES (1, 'e', 't', 'a', 'Order', NULL, '{}', :at, :at, 0, NULL, 'pending')",
        "INSERT INTO projection_checkpoints VALUES ('p', NULL, NULL, :at, 1, 1, :at, :at)",
        "INSERT INTO dead_letter_queue VALUES (1, 'e', 'p', 't', '{}', 'm', NULL, 0, :at, :at, 'failed', :at, '')",
        "INSERT INTO snapshots VALUES (1, 'a', 'Order', 1, 1, '{}', :at)",
    ):
        connection.execute(statement, {"at": written})
    connection.commit()
    connection.close()

    await schema.upgrade(url)

    columns = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if type(column.type).__name__ == "Timestamp" and "since" not in {**table.info, **column.info}
    }
    assert len(columns) == 11
    found = {(table, column): await rows(url, f"SELECT {column} FROM {table}") for table, column in columns}
    assert found == dict.fromkeys(columns, [(kept,)])


async def test_on_sqlite_moments_that_are_not_there_stay_away(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await schema.upgrade(url, "0001")
    await execute(url, "INSERT INTO projection_checkpoints (projection_name) VALUES ('p')")

    await schema.upgrade(url)

    found = await rows(
        url, "SELECT last_processed_at, global_position, created_at FROM projection_checkpoints"
    )
    assert found[0][:2] == (None, None)
    assert utc_now().isoformat()[:10] == found[0][2][:10]


# -- SQLite: what the application added -----------------------------------------------------------------


async def test_on_sqlite_what_the_application_added_to_our_tables_survives(tmp_path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await schema.upgrade(url, "0001")
    await execute(
        url,
        "CREATE INDEX by_actor ON events (actor_id)",
        "CREATE TABLE seen (event_id TEXT)",
        "CREATE TRIGGER note AFTER INSERT ON events BEGIN INSERT INTO seen VALUES (NEW.event_id); END",
        "CREATE VIEW orders AS SELECT * FROM events WHERE aggregate_type = 'Order'",
    )

    for step in (schema.upgrade(url), schema.downgrade(url, "0001"), schema.upgrade(url)):
        await step
        found = await rows(url, "SELECT name FROM sqlite_master")
        assert {("by_actor",), ("note",), ("orders",)} <= set(found)

    async with open_store(url, enable_tracing=False) as store:
        await store.append_events(ORDER, "Order", [event := placed(ORDER)], 0)
    assert await rows(url, "SELECT event_id FROM seen") == [(str(event.event_id),)]
    assert len(await rows(url, "SELECT * FROM orders")) == 1


async def test_on_sqlite_an_index_and_a_view_do_not_stop_a_script(tmp_path):
    """The same statements offline: the script cannot know what the application added."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    await schema.upgrade(url, "0001")
    await execute(url, "CREATE VIEW orders AS SELECT event_id FROM events")
    config = schema.alembic_config(url)
    import io

    from alembic import command

    config.output_buffer = io.StringIO()
    command.upgrade(config, "esource_0001:head", sql=True)

    await execute(url, config.output_buffer.getvalue())

    assert await schema.current(url) == schema.HEAD
    assert await rows(url, "SELECT * FROM orders") == []


async def test_a_version_below_one_stops_the_upgrade_and_changes_nothing(empty_database_url):
    from esource.errors import ConstraintError

    url = empty_database_url
    await schema.upgrade(url, "0001")
    await execute(
        url,
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) "
        f"VALUES ('{uuid4()}', '{uuid4()}', 'Order', 'OrderPlaced', 0, '2025-03-01T12:00:00+00:00', '{{}}')",
    )
    before = await described(url), await rows(url, "SELECT * FROM events")

    with pytest.raises(ConstraintError, match="chk_events_version"):
        await schema.upgrade(url)

    assert (await described(url), await rows(url, "SELECT * FROM events")) == before
    assert await schema.current(url) == "0001"
