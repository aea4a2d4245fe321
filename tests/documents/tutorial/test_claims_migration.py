"""The tutorial's migration script, from a real SQLite file to a real PostgreSQL server (112-123)."""

import asyncio
import runpy
import sys
from datetime import datetime, timedelta, timezone
from types import ModuleType
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from support.orders import OrderPlaced, OrderShipped, placed

from esource import (
    DomainEvent,
    EventRegistry,
    ExpectedVersion,
    PostgreSQLEventStore,
    SQLiteEventStore,
    register_event,
)
from esource.errors import SchemaMissingError


@register_event
class ParcelPacked(DomainEvent):
    event_type: str = "ParcelPacked"
    aggregate_type: str = "Parcel"
    contents: list[str]
    weight: float


@register_event
class NoteWritten(DomainEvent):
    event_type: str = "NoteWritten"
    aggregate_type: str = "Note"
    text: str


def history(streams):
    """Batches of events of three aggregate types, interleaved, with everything that an event can carry."""
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    for number in range(streams):
        order_id, parcel_id, note_id = uuid4(), uuid4(), uuid4()
        occurred_at = start + timedelta(minutes=number, microseconds=number)
        order = placed(order_id, total=number / 7, tenant_id=uuid4(), occurred_at=occurred_at)
        parcel = ParcelPacked(
            aggregate_id=parcel_id,
            contents=["Größe", '"quoted"', "\u2028"],
            weight=1e-9 * number,
            actor_id=f"packer-{number}",
            metadata={"nested": {"numbers": [number, -1.5, 10**15]}, "none": None},
        ).with_causation(order)
        shipped = OrderShipped(aggregate_id=order_id, aggregate_version=2, tracking_number=str(uuid4()))
        yield [order]
        yield [parcel]
        yield [shipped.with_causation(parcel)]
        yield [
            NoteWritten(aggregate_id=note_id, aggregate_version=version, text=f"Note {version}\n\t☃ 😀")
            for version in (1, 2)
        ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "events.db"


async def write(file, batches):
    async with SQLiteEventStore(file, enable_tracing=False, synchronous="NORMAL") as store:
        await store.initialize()
        for batch in batches:
            await store.append_events(batch[0].aggregate_id, batch[0].aggregate_type, batch)


async def log_of(store):
    """Everything but the moment of storing, which the script does not carry over."""
    return [
        (stored.global_position, stored.stream_id, stored.stream_position, stored.occurred_at, stored.event)
        async for stored in store.read_all()
    ]


async def both_logs(file, url):
    async with (
        SQLiteEventStore(file, enable_tracing=False) as source,
        PostgreSQLEventStore(url, enable_tracing=False) as target,
    ):
        return await log_of(source), await log_of(target)


@pytest.fixture
def migrate(examples, monkeypatch):
    """The script's function, with the modules beside it replaced by this one's events."""
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    return runpy.run_path(str(examples / "migrate_to_postgresql.py"))["migrate_sqlite_to_postgresql"]


@pytest.mark.slow
async def test_the_script_moves_every_event_and_a_second_run_duplicates_nothing(
    migrate, file, engine_url, capsys
):
    await write(file, history(450))

    await migrate(sqlite_path=str(file), pg_connection_string=engine_url)

    expected = [
        f"Starting migration from {file} to PostgreSQL...",
        "Migrated 1000 events...",
        "Migrated 2000 events...",
        "Migration complete: 2250 events transferred",
    ]
    assert capsys.readouterr().out.splitlines() == expected
    source, target = await both_logs(file, engine_url)
    assert len(source) == 2250
    assert {stream_id.split(":")[1] for _, stream_id, *_ in source} == {"Order", "Parcel", "Note"}
    for ours, theirs in zip(source, target, strict=True):
        assert ours == theirs

    await migrate(sqlite_path=str(file), pg_connection_string=engine_url)

    # The script counts what it hands over, not what was new.
    assert capsys.readouterr().out.splitlines() == expected
    assert (await both_logs(file, engine_url))[1] == target


@pytest.mark.slow
async def test_after_an_interruption_a_second_run_completes_the_log(migrate, file, engine_url, monkeypatch):
    await write(file, history(210))

    def interrupt(text):
        if text == "Migrated 1000 events...":
            asyncio.current_task().cancel()

    monkeypatch.setitem(migrate.__globals__, "print", interrupt)
    with pytest.raises(asyncio.CancelledError):
        # A task of its own, so that the cancellation ends it and not the test.
        await asyncio.create_task(migrate(str(file), engine_url))
    source, target = await both_logs(file, engine_url)
    # The append that was under way is stored as a whole, or not at all.
    assert target in (source[:1000], source[:1001])

    monkeypatch.setitem(migrate.__globals__, "print", lambda text: None)
    await migrate(str(file), engine_url)
    source, target = await both_logs(file, engine_url)
    # What comes after the interruption may lie at later positions: a sequence does not go back.
    assert [entry[1:] for entry in target] == [entry[1:] for entry in source]


async def test_the_script_needs_a_target_with_tables(migrate, file, empty_postgres_url):
    await write(file, [[placed()]])
    target = make_url(empty_postgres_url).set(drivername="postgresql+asyncpg")
    with pytest.raises(SchemaMissingError, match=r"initialize\(\)"):
        await migrate(str(file), target.render_as_string(hide_password=False))


async def test_a_store_takes_a_session_factory(engine_url):
    engine = create_async_engine(engine_url)
    store = PostgreSQLEventStore(async_sessionmaker(engine, expire_on_commit=False), enable_tracing=False)
    event = placed()
    async with store:
        await store.append_events(
            aggregate_id=event.aggregate_id,
            aggregate_type=event.aggregate_type,
            events=[event],
            expected_version=ExpectedVersion.ANY,
        )
        assert [stored.event async for stored in store.read_all()] == [event]
    await engine.dispose()


async def test_a_store_takes_the_url_with_or_without_the_driver(postgres_url, engine_url):
    event = placed()
    async with PostgreSQLEventStore(postgres_url, enable_tracing=False) as store:
        await store.append_events(event.aggregate_id, "Order", [event])
    async with PostgreSQLEventStore(engine_url, enable_tracing=False) as store:
        assert [stored.event async for stored in store.read_all()] == [event]


async def test_any_version_skips_the_check(store):
    order_id = uuid4()
    for version in (1, 2, 3):
        event = placed(order_id)
        result = await store.append_events(
            aggregate_id=order_id,
            aggregate_type="Order",
            events=[event],
            expected_version=ExpectedVersion.ANY,
        )
        assert result.new_version == version


async def test_read_all_yields_stored_events_with_their_event(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    [stored] = [stored async for stored in store.read_all()]
    assert stored.event == event
    assert type(stored.event) is OrderPlaced


async def test_the_counts_of_both_sides_can_be_compared_without_the_event_classes(
    file, postgres_url, migrate
):
    await write(file, history(2))
    url = make_url(postgres_url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    await migrate(str(file), url)
    nothing_registered = {"event_registry": EventRegistry(), "enable_tracing": False}
    async with (
        SQLiteEventStore(file, **nothing_registered) as source,
        PostgreSQLEventStore(postgres_url, **nothing_registered) as target,
    ):
        before = [stored.event_id async for stored in source.read_all()]
        after = [stored.event_id async for stored in target.read_all()]
    assert len(before) == 10
    assert before == after
