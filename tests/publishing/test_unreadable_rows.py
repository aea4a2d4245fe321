"""A row that another program wrote, and that cannot be read, is given up and said; the others are published."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest
from support.orders import placed, several
from support.relays import Sink, append, relay_of, stats_of

from esource import OutboxRepository
from esource.browsing.followers import outbox_page

DEEP = '{"a":' + "[" * 3000 + "]" * 3000 + "}"
PAYLOADS = [
    ("[1, 2]", "is JSON, but not an object"),
    ('"text"', "is JSON, but not an object"),
    ("null", "is JSON, but not an object"),
    (DEEP, "levels of nesting"),
    ('{"a": 1e9000}', ""),
    ('{"a": 1' + "0" * 400 + ".5}", "is inf"),
]
NO_JSON = ["no JSON", '{"a": NaN}', "", '{"a": "\\ud800"}']


async def plant(store, event_data=None, **columns):
    """Write a row as another program does."""
    values = {
        "event_id": str(uuid4()),
        "event_type": "Foreign",
        "aggregate_id": str(uuid4()),
        "aggregate_type": "Foreign",
        "event_data": event_data,
        **columns,
    }
    given = {name: value for name, value in values.items() if value is not None}
    quoted = ", ".join("'" + str(value).replace("'", "''") + "'" for value in given.values())
    async with store.transaction() as transaction:
        await transaction.connection.exec_driver_sql(
            f"INSERT INTO event_outbox ({', '.join(given)}) VALUES ({quoted})".replace("%", "%%")
        )


async def is_given_up(store, sink, said, caplog):
    """A relay gives one row up, and says which; and publishes what comes before and after it."""
    events = several(2)
    await append(store, *events)
    outbox = OutboxRepository(store)
    assert len(await outbox.get_pending_events()) == 3
    assert (await outbox.get_stats()).pending_count == 3

    with caplog.at_level(logging.ERROR):
        await relay_of(store, sink).drain()
    assert sink.ids == [event.event_id for event in events]
    assert await stats_of(store) == (0, 2, 1)
    [failed] = await outbox.get_failed_events()
    assert failed.unreadable
    assert said in failed.last_error
    assert f"row {failed.id} of the outbox" in failed.last_error
    assert str(failed.id) in caplog.text
    assert failed.event_data == {}
    assert (await outbox_page(store._opened.database, "failed", size=1)).rows == [failed]
    assert (await relay_of(store, sink).health()).lag_events == 0


@pytest.mark.parametrize(("payload", "said"), PAYLOADS, ids=[text[:20] for text, _ in PAYLOADS])
async def test_what_is_no_event_is_given_up_and_holds_up_nobody(store, sink, payload, said, caplog):
    await plant(store, payload)
    await is_given_up(store, sink, said, caplog)


@pytest.mark.parametrize("payload", NO_JSON)
async def test_on_sqlite_what_is_no_json_is_given_up(sqlite_url, open_stores, sink, payload, caplog):
    store = await open_stores(sqlite_url, outbox_enabled=True)
    await plant(store, payload)
    await is_given_up(store, sink, "event_data cannot be read", caplog)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("created_at", "yesterday"),
        ("tenant_id", "red"),
        ("event_id", "17"),
        ("aggregate_id", ""),
        ("global_position", "first"),
    ],
)
async def test_on_sqlite_a_value_of_another_kind_is_given_up(
    sqlite_url, open_stores, sink, column, value, caplog
):
    store = await open_stores(sqlite_url, outbox_enabled=True)
    await plant(store, '{"a": 1}', **{column: value})
    await is_given_up(store, sink, f"{column} cannot be read", caplog)


@pytest.mark.parametrize("moment", ["20000-01-01", "infinity", "-infinity"])
async def test_on_postgresql_a_moment_that_no_program_can_read_is_given_up(
    postgres_url, open_stores, sink, moment, caplog
):
    store = await open_stores(postgres_url, outbox_enabled=True)
    await plant(store, '{"a": 1}', created_at=moment)
    await is_given_up(store, sink, "created_at cannot be read", caplog)


async def test_an_event_in_the_log_that_cannot_be_read_is_given_up_with_its_position(
    shared_database_url, open_stores, sink
):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    broken, sound = placed(), placed()
    await append(store, broken)
    await append(store, sound)
    async with store.transaction() as transaction:
        await transaction.connection.exec_driver_sql(
            "UPDATE events SET payload = '[1]' WHERE global_position = 1"
        )
    await relay_of(store, sink).drain()
    assert sink.ids == [sound.event_id]
    [failed] = await OutboxRepository(store).get_failed_events()
    assert f"row {failed.id} of the outbox, global position 1: " in failed.last_error


async def test_a_batch_with_such_a_row_is_sent_one_by_one(store):
    class Producer(Sink):
        async def publish_many(self, entries):
            raise AssertionError("it would get a row without an event")

    await plant(store, "[1]")
    event = placed()
    await append(store, event)
    producer = Producer()
    await relay_of(store, producer).drain()
    assert producer.ids == [event.event_id]
    assert await stats_of(store) == (0, 1, 1)
