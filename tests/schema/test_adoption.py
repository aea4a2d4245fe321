"""A database of eventsource-py 0.5.0 becomes one of ours, with everything in it."""

import shutil
import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from support.orders import Order, OrderShipped
from support.schemas import CHECKOUT, alembic, described, execute, rows

from esource import (
    AggregateRepository,
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventRegistry,
    OutboxRepository,
    SnapshotStore,
    open_store,
    schema,
)
from esource.errors import (
    ConstraintError,
    InvalidOptionError,
    SchemaMissingError,
    SchemaUnmanagedError,
)

FILE = Path(__file__).parents[1] / "data" / "eventsource-py-0.5.0.db"
"""Written by make_eventsource_py_database.py beside it."""

TENANT = UUID("7e000000-0000-4000-8000-000000000001")
ORDERS = [UUID(f"0d000000-0000-4000-8000-00000000000{n}") for n in (1, 2, 3)]
INVOICE = UUID("1f000000-0000-4000-8000-000000000001")
CORRELATION = UUID("c0000000-0000-4000-8000-000000000001")
START = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)

TABLES = ("events", "event_outbox", "projection_checkpoints", "dead_letter_queue", "snapshots")


def event_id(n: int) -> UUID:
    return UUID(f"e0000000-0000-4000-8000-{n:012d}")


class InvoiceSent(DomainEvent):
    event_type: str = "InvoiceSent"
    aggregate_type: str = "Invoice"
    order_id: UUID
    due_at: datetime
    lines: list[dict]


def registry() -> EventRegistry:
    from support.orders import OrderPlaced

    known = EventRegistry()
    for event_class in (OrderPlaced, OrderShipped, InvoiceSent):
        known.register(event_class)
    return known


# The schema that eventsource-py 0.5.0 has for PostgreSQL, by its facts: 0001 has the same tables, and theirs
# has besides an index and a trigger on the checkpoints, a comment on every table, and an extension.
ONLY_THEIRS = (
    (
        "CREATE INDEX idx_checkpoints_global_position ON projection_checkpoints (global_position) "
        "WHERE global_position IS NOT NULL"
    ),
    (
        "CREATE FUNCTION update_checkpoint_timestamp() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN NEW.updated_at = now(); RETURN NEW; END'"
    ),
    (
        "CREATE TRIGGER trg_checkpoint_updated_at BEFORE UPDATE ON projection_checkpoints "
        "FOR EACH ROW EXECUTE FUNCTION update_checkpoint_timestamp()"
    ),
    "COMMENT ON TABLE events IS 'Immutable event store containing all domain events'",
    "COMMENT ON TABLE event_outbox IS 'Transactional outbox for reliable event publishing'",
    "COMMENT ON TABLE projection_checkpoints IS 'Tracks projection positions in the event stream'",
    "COMMENT ON TABLE dead_letter_queue IS 'Stores events that failed processing after all retries'",
    "COMMENT ON TABLE snapshots IS 'Point-in-time aggregate state snapshots for fast loading'",
)
THEIR_TABLES = (
    """CREATE TABLE events (
        global_position bigserial PRIMARY KEY, event_id uuid NOT NULL UNIQUE, aggregate_id uuid NOT NULL,
        aggregate_type varchar(255) NOT NULL, event_type varchar(255) NOT NULL, tenant_id uuid,
        actor_id varchar(255), version integer NOT NULL, timestamp timestamptz NOT NULL,
        payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_events_aggregate_version UNIQUE (aggregate_id, aggregate_type, version))""",
    "CREATE INDEX idx_events_aggregate_id ON events (aggregate_id)",
    "CREATE INDEX idx_events_aggregate_type ON events (aggregate_type)",
    "CREATE INDEX idx_events_event_type ON events (event_type)",
    "CREATE INDEX idx_events_timestamp ON events (timestamp)",
    "CREATE INDEX idx_events_tenant_id ON events (tenant_id) WHERE tenant_id IS NOT NULL",
    "CREATE INDEX idx_events_type_tenant_timestamp ON events (aggregate_type, tenant_id, timestamp)",
    "CREATE INDEX idx_events_aggregate_version ON events (aggregate_id, aggregate_type, version)",
    """CREATE TABLE event_outbox (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), event_id uuid NOT NULL,
        event_type varchar(255) NOT NULL, aggregate_id uuid NOT NULL, aggregate_type varchar(255) NOT NULL,
        tenant_id uuid, event_data jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        published_at timestamptz, retry_count integer NOT NULL DEFAULT 0, last_error text,
        status varchar(20) NOT NULL DEFAULT 'pending',
        CONSTRAINT chk_outbox_status CHECK (status IN ('pending', 'published', 'failed')))""",
    "CREATE INDEX idx_outbox_status_created ON event_outbox (status, created_at) WHERE status = 'pending'",
    "CREATE INDEX idx_outbox_pending ON event_outbox (created_at) WHERE status = 'pending'",
    "CREATE INDEX idx_outbox_event_id ON event_outbox (event_id)",
    "CREATE INDEX idx_outbox_tenant_id ON event_outbox (tenant_id) WHERE tenant_id IS NOT NULL",
    "CREATE INDEX idx_outbox_failed ON event_outbox (created_at) WHERE status = 'failed'",
    "CREATE INDEX idx_outbox_published_at ON event_outbox (published_at) WHERE status = 'published'",
    """CREATE TABLE projection_checkpoints (
        projection_name varchar(255) PRIMARY KEY, last_event_id uuid, last_event_type varchar(255),
        last_processed_at timestamptz, global_position bigint, events_processed bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now())""",
    "CREATE INDEX idx_checkpoints_last_processed ON projection_checkpoints (last_processed_at)",
    "CREATE INDEX idx_checkpoints_updated_at ON projection_checkpoints (updated_at)",
    """CREATE TABLE dead_letter_queue (
        id bigserial PRIMARY KEY, event_id uuid NOT NULL, projection_name varchar(255) NOT NULL,
        event_type varchar(255) NOT NULL, event_data jsonb NOT NULL, error_message text NOT NULL,
        error_stacktrace text, retry_count integer NOT NULL DEFAULT 0,
        first_failed_at timestamptz NOT NULL DEFAULT now(), last_failed_at timestamptz NOT NULL DEFAULT now(),
        status varchar(20) NOT NULL DEFAULT 'failed', resolved_at timestamptz, resolved_by varchar(255),
        CONSTRAINT chk_dlq_status CHECK (status IN ('failed', 'retrying', 'resolved')),
        CONSTRAINT uq_dlq_event_projection UNIQUE (event_id, projection_name))""",
    "CREATE INDEX idx_dlq_status ON dead_letter_queue (status)",
    "CREATE INDEX idx_dlq_projection_name ON dead_letter_queue (projection_name)",
    "CREATE INDEX idx_dlq_event_id ON dead_letter_queue (event_id)",
    "CREATE INDEX idx_dlq_first_failed_at ON dead_letter_queue (first_failed_at)",
    "CREATE INDEX idx_dlq_projection_status ON dead_letter_queue (projection_name, status)",
    (
        "CREATE INDEX idx_dlq_active_failures ON dead_letter_queue (first_failed_at) "
        "WHERE status IN ('failed', 'retrying')"
    ),
    "CREATE INDEX idx_dlq_resolved_at ON dead_letter_queue (resolved_at) WHERE status = 'resolved'",
    """CREATE TABLE snapshots (
        id bigserial PRIMARY KEY, aggregate_id uuid NOT NULL, aggregate_type varchar(255) NOT NULL,
        version integer NOT NULL, schema_version integer NOT NULL DEFAULT 1, state jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_snapshots_aggregate UNIQUE (aggregate_id, aggregate_type))""",
    "CREATE INDEX idx_snapshots_aggregate_lookup ON snapshots (aggregate_id, aggregate_type)",
    "CREATE INDEX idx_snapshots_aggregate_type ON snapshots (aggregate_type)",
    "CREATE INDEX idx_snapshots_schema_version ON snapshots (aggregate_type, schema_version)",
    "CREATE INDEX idx_snapshots_created_at ON snapshots (created_at)",
)


@pytest.fixture
async def their_url(empty_database_url, tmp_path) -> str:
    """The URL of a database as eventsource-py 0.5.0 leaves it: its own file, or the same rows on PostgreSQL."""
    if empty_database_url.startswith("sqlite"):
        shutil.copy(FILE, tmp_path / "events.db")
        return empty_database_url
    await execute(empty_database_url, *THEIR_TABLES, *ONLY_THEIRS)
    theirs = sqlite3.connect(FILE)
    for table in TABLES:
        selected = theirs.execute(f"SELECT * FROM {table}")
        columns = [column[0] for column in selected.description]
        if table == "event_outbox":
            columns = columns[1:]
        for row in selected:
            values = row[len(row) - len(columns) :]
            await execute(
                empty_database_url,
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(map(literal, values))})",
            )
    theirs.close()
    await execute(
        empty_database_url,
        *(
            f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}"
            for table, column in (
                ("events", "global_position"),
                ("dead_letter_queue", "id"),
                ("snapshots", "id"),
            )
        ),
    )
    return empty_database_url


def literal(value: object) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


async def adopted_by_the_library(url: str) -> None:
    await schema.adopt(url)


async def adopted_by_hand(url: str) -> None:
    alembic("stamp", "esource_0001", cwd=CHECKOUT, environment={"ESOURCE_URL": url})
    alembic("upgrade", "head", cwd=CHECKOUT, environment={"ESOURCE_URL": url})


@pytest.fixture(params=[adopted_by_the_library, pytest.param(adopted_by_hand, marks=pytest.mark.slow)])
async def adopted_url(request, their_url) -> str:
    await request.param(their_url)
    return their_url


async def test_an_adopted_database_has_the_schema_of_one_of_ours(their_url, tmp_path, request):
    await schema.adopt(their_url)
    adopted = await described(their_url)
    if their_url.startswith("sqlite"):
        ours = f"sqlite:///{tmp_path / 'ours.db'}"
    else:
        await schema.downgrade(their_url, "base")
        ours = their_url
    await schema.upgrade(ours)

    assert adopted == await described(ours)


async def test_a_comment_of_the_applications_on_a_table_stays(empty_postgres_url):
    """PostgreSQL only: SQLite has no comments."""
    await schema.upgrade(empty_postgres_url, "0001")
    await execute(
        empty_postgres_url,
        "COMMENT ON TABLE events IS 'ask the shop team first'",
        "COMMENT ON TABLE snapshots IS 'Point-in-time aggregate state snapshots for fast loading'",
    )
    await schema.upgrade(empty_postgres_url)
    assert (await described(empty_postgres_url))["comments"] == [("events", "ask the shop team first")]


async def test_old_events_are_read(adopted_url):
    async with open_store(adopted_url, registry(), enable_tracing=False) as store:
        await store.initialize()
        found = [stored async for stored in store.read_all()]

    assert [stored.global_position for stored in found] == [1, 2, 3, 4, 5]
    assert [stored.event_id for stored in found] == [event_id(n) for n in (1, 2, 3, 4, 5)]
    placed, shipped, plain, far, invoice = [stored.event for stored in found]
    assert (placed.customer_id, placed.total) == ("customer-1", 99.99)
    assert (placed.tenant_id, placed.actor_id) == (TENANT, "anna")
    assert placed.metadata == {"source": "web", "attempt": 1}
    assert (shipped.correlation_id, shipped.causation_id) == (CORRELATION, event_id(1))
    assert shipped.aggregate_version == 2
    assert plain.customer_id == "größer – 注文"
    assert plain.occurred_at == START.replace(microsecond=0)
    assert (far.customer_id, far.total) == ("9b2d6d7e-7d8a-4c56-9f6f-0a3d6f3f3b11", 1e20)
    assert far.occurred_at == START
    assert isinstance(invoice, InvoiceSent)
    assert (invoice.order_id, invoice.due_at) == (ORDERS[0], START + timedelta(days=30))
    assert invoice.lines == [{"sku": "a", "quantity": 2}]


async def test_old_aggregates_are_loaded_and_go_on(adopted_url):
    async with open_store(adopted_url, registry(), enable_tracing=False) as store:
        await store.initialize()
        plain = AggregateRepository(store, Order)
        shipped = await plain.load(ORDERS[0])
        assert (shipped.version, shipped.state.status, shipped.state.tracking_number) == (
            2,
            "shipped",
            "TRACK-1",
        )
        waiting = await plain.load(ORDERS[1])
        waiting.ship("TRACK-2")
        await plain.save(waiting)
        again = await plain.load(ORDERS[1])
        assert (again.version, again.state.tracking_number) == (2, "TRACK-2")
        assert await store.get_global_position() == 6
        # From the old snapshot at version 1, and the event after it.
        snapshots = SnapshotStore(store)
        quick = AggregateRepository(store, Order, snapshot_store=snapshots)
        assert (await quick.load(ORDERS[0])).state == shipped.state


async def test_old_rows_come_back_from_every_repository(adopted_url):
    async with open_store(adopted_url, registry(), enable_tracing=False) as store:
        await store.initialize()

        snapshot = await SnapshotStore(store).get_snapshot(ORDERS[0], "Order")
        assert (snapshot.version, snapshot.state["customer_id"], snapshot.created_at) == (
            1,
            "customer-1",
            START,
        )

        checkpoints = CheckpointRepository(store)
        by_name = {data.projection_name: data for data in await checkpoints.get_all_checkpoints()}
        assert set(by_name) == {"OrderList", "Totals"}
        assert (by_name["OrderList"].global_position, by_name["OrderList"].last_event_id) == (4, event_id(4))
        assert by_name["Totals"].last_event_id == event_id(2)
        assert await checkpoints.save_position("OrderList", 5, event_id(5), "InvoiceSent")

        letters = DLQRepository(store)
        [failed] = await letters.get_failed_events()
        [resolved] = await letters.get_failed_events(status="resolved")
        assert (failed.event_id, failed.event_data, failed.retry_count) == (event_id(5), {"number": 5}, 0)
        assert (resolved.event_id, resolved.resolved_by, resolved.retry_count) == (event_id(1), "anna", 3)
        assert "cannot project 1" in resolved.error_message
        assert resolved.resolved_at is not None

        outbox = OutboxRepository(store)
        [pending] = await outbox.get_pending_events()
        assert (pending.event_id, pending.tenant_id) == (event_id(2), TENANT)
        assert pending.event_data["payload"]["tracking_number"] == "TRACK-1"
        assert await outbox.mark_published(pending.id)
        assert (await outbox.get_stats()).published_count == 2


async def test_the_outbox_takes_new_events_beside_the_old(adopted_url):
    async with open_store(adopted_url, registry(), outbox_enabled=True, enable_tracing=False) as store:
        await store.initialize()
        event = OrderShipped(aggregate_id=ORDERS[2], tracking_number="TRACK-3")
        await store.append_events(ORDERS[2], "Order", [event], 1)
        old, new = await OutboxRepository(store).get_pending_events()

    assert old.event_id == event_id(2)
    assert (new.event_id, new.global_position) == (event.event_id, 6)


async def test_on_sqlite_moments_are_in_the_one_form_afterwards(tmp_path):
    shutil.copy(FILE, tmp_path / "events.db")
    url = f"sqlite:///{tmp_path / 'events.db'}"
    form = "____-__-__T__:__:__.______+00:00"
    before = await rows(url, f"SELECT count(*) FROM events WHERE timestamp NOT LIKE '{form}'")
    assert before == [(2,)]

    await schema.adopt(url)

    assert await rows(url, f"SELECT count(*) FROM events WHERE timestamp NOT LIKE '{form}'") == [(0,)]
    assert await rows(url, f"SELECT count(*) FROM event_outbox WHERE created_at NOT LIKE '{form}'") == [(0,)]


# -- what is refused -----------------------------------------------------------------------------------


async def state(url: str) -> tuple:
    return await described(url), [await rows(url, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]


async def test_what_cannot_be_adopted_is_left_as_it_was(their_url):
    await execute(their_url, "UPDATE events SET version = 0 WHERE global_position = 3")
    before = await state(their_url)

    with pytest.raises(ConstraintError, match="chk_events_version"):
        await schema.adopt(their_url)

    assert await state(their_url) == before
    with pytest.raises(SchemaUnmanagedError):
        await schema.current(their_url)


async def test_a_file_that_fails_to_be_adopted_on_sqlite_keeps_the_bytes_of_its_backup(tmp_path):
    for name in ("events.db", "backup.db"):
        shutil.copy(FILE, tmp_path / name)
    connection = sqlite3.connect(tmp_path / "events.db")
    connection.execute("DROP TABLE snapshots")
    connection.commit()
    connection.close()

    with pytest.raises(InvalidOptionError, match="snapshots"):
        await schema.adopt(f"sqlite:///{tmp_path / 'events.db'}")

    assert (tmp_path / "backup.db").read_bytes() == FILE.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "events.db"]


async def test_a_database_of_ours_is_not_adopted_again(their_url):
    await schema.adopt(their_url)
    before = await state(their_url)

    with pytest.raises(InvalidOptionError, match=f"is at schema {schema.HEAD} already"):
        await schema.adopt(their_url)

    assert await state(their_url) == before


async def test_an_empty_database_is_not_adopted(empty_database_url):
    with pytest.raises(SchemaMissingError, match="nothing to adopt"):
        await schema.adopt(empty_database_url)

    assert await schema.current(empty_database_url) is None


async def test_tables_of_something_else_are_not_adopted(empty_database_url):
    await execute(
        empty_database_url, "CREATE TABLE events (id INTEGER)", "CREATE TABLE snapshots (id INTEGER)"
    )
    before = await described(empty_database_url)

    with pytest.raises(InvalidOptionError, match=r"lacks .*event_outbox.*events\.global_position"):
        await schema.adopt(empty_database_url)

    assert await described(empty_database_url) == before


@pytest.mark.slow
async def test_a_database_of_theirs_is_not_upgraded_without_being_adopted(their_url):
    before = await state(their_url)
    async with open_store(their_url, enable_tracing=False) as store:
        with pytest.raises(SchemaUnmanagedError, match="adopt"):
            await store.initialize()

    finished = alembic("upgrade", "head", cwd=CHECKOUT, environment={"ESOURCE_URL": their_url}, ok=False)

    assert "alembic stamp esource_0001" in finished.stdout
    assert "Traceback" not in finished.stdout + finished.stderr
    assert await state(their_url) == before


async def test_two_who_adopt_at_once_adopt_once(their_url):
    import asyncio

    results = await asyncio.gather(schema.adopt(their_url), schema.adopt(their_url), return_exceptions=True)

    assert sorted(type(result).__name__ for result in results) == ["InvalidOptionError", "NoneType"]
    assert await schema.current(their_url) == schema.HEAD
