"""What the column types leave in each database."""

from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis.strategies import booleans, datetimes, integers, timezones
from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql
from sqlalchemy.dialects.sqlite.aiosqlite import dialect as sqlite
from sqlalchemy.schema import CreateColumn

from esource import EventStore
from esource.moments import from_iso, to_iso
from esource.tables import events
from esource.tables.constructs import moment_after
from esource.tables.statement import Statement
from esource.tables.types import id_as_text

EVENT = UUID("0F8FAD5B-D9CB-469F-A165-70867728950E")
MOMENT = datetime(2024, 3, 1, 14, 30, tzinfo=timezone(timedelta(hours=2, minutes=30)))
TEXT_FORM = "2024-03-01T12:00:00.000000+00:00"
JSON = '{"a":  1.0, "b": [100000000000000000000]}'


async def insert_row(store: EventStore):
    async with store.transaction() as tx:
        await tx.connection.execute(
            insert(events).values(
                event_id=EVENT,
                aggregate_id=EVENT,
                aggregate_type="A",
                event_type="E",
                version=1,
                timestamp=MOMENT,
                payload=JSON,
                created_at=MOMENT,
            )  # fmt: skip
        )


async def stored(store, *columns):
    async with store.transaction() as tx:
        return tuple((await tx.connection.execute(text(f"SELECT {', '.join(columns)} FROM events"))).one())


@pytest.mark.parametrize(
    ("column", "on_sqlite", "on_postgresql"),
    [
        ("event_id", "TEXT", "UUID"),
        ("timestamp", "TEXT", "TIMESTAMP WITH TIME ZONE"),
        ("payload", "TEXT", "JSONB"),
        ("event_type", "TEXT", "VARCHAR(255)"),
        ("version", "INTEGER", "INTEGER"),
        ("global_position", "INTEGER", "BIGSERIAL"),
    ],
)
def test_a_type_is_declared_as_each_database_has_it(column, on_sqlite, on_postgresql):
    for dialect, expected in ((sqlite(), on_sqlite), (postgresql(), on_postgresql)):
        assert f" {expected} " in str(CreateColumn(events.c[column]).compile(dialect=dialect)) + " "


async def test_sqlite_holds_text_of_one_form(tmp_path, open_stores):
    store = await open_stores(f"sqlite:///{tmp_path / 'events.db'}")
    await insert_row(store)
    assert await stored(store, "event_id", "timestamp", "payload", "typeof(payload)") == (
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        TEXT_FORM,
        JSON,
        "text",
    )


async def test_postgresql_holds_its_own_types_and_json_that_is_no_string(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    await insert_row(store)
    kinds = await stored(
        store, "pg_typeof(event_id)::text", "pg_typeof(timestamp)::text", "jsonb_typeof(payload)"
    )
    assert kinds == ("uuid", "timestamp with time zone", "object")
    assert await stored(store, "payload->>'a'", "payload#>>'{b,0}'") == ("1.0", "1" + "0" * 20)


async def test_values_come_back_as_python_has_them(store):
    await insert_row(store)
    async with store.transaction() as tx:
        query = select(events.c.event_id, events.c.timestamp, events.c.tenant_id, events.c.payload)
        found = (await tx.connection.execute(query)).one()
    assert tuple(found[:3]) == (EVENT, MOMENT, None)
    assert found[1].utcoffset() == timedelta(0)
    assert isinstance(found[3], str)
    assert "1.0" in found[3]


@pytest.mark.parametrize("number", [0, 1, EVENT.int, 2**128 - 1])
def test_an_id_is_written_as_python_writes_it(number):
    assert id_as_text(UUID(int=number)) == str(UUID(int=number))


def test_text_order_is_time_order():
    start = datetime(1, 1, 2, tzinfo=timezone.utc)
    moments = [
        start,
        datetime(999, 12, 31, 23, 59, 59, 1, tzinfo=timezone.utc),
        MOMENT,
        MOMENT.replace(microsecond=1),
        MOMENT.replace(tzinfo=timezone(timedelta(hours=-11))),
        datetime(9999, 12, 30, tzinfo=timezone.utc),
    ]
    texts = [to_iso(moment) for moment in moments]
    assert texts == sorted(texts)
    assert {len(each) for each in texts} == {len(TEXT_FORM)}
    assert [from_iso(each) for each in texts] == moments


@given(moment=datetimes(timezones=timezones()), fold=integers(0, 1), is_full_second=booleans())
@example(moment=datetime(1, 1, 1, tzinfo=timezone.utc), fold=0, is_full_second=False)
@example(moment=datetime.max.replace(tzinfo=timezone.utc), fold=0, is_full_second=False)
def test_a_moment_is_written_as_python_writes_it_in_utc(moment, fold, is_full_second):
    moment = moment.replace(fold=fold, **({"microsecond": 0} if is_full_second else {}))
    try:
        in_utc = moment.astimezone(timezone.utc)
    except OverflowError:
        return  # the year 0 or 10 000
    assert to_iso(moment) == in_utc.isoformat("T", "microseconds")


async def test_on_postgresql_a_statement_has_one_moment_however_long_it_runs(open_stores, postgres_url):
    """On SQLite it has, too, but no statement can be made to last. A claim of outbox rows that saw two moments left out a
    row whose pause ended between them, and took those behind it."""
    store = await open_stores(postgres_url)
    moment = moment_after("seconds")
    statement = Statement(select(moment, func.pg_sleep(0.01), moment == moment_after("seconds")))
    [(_, _, is_the_same)] = await store.reader.database.read(statement, {"seconds": 0.0})
    assert is_the_same
