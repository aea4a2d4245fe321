"""A log in parts, on PostgreSQL: all that a log promises, on parts as well; there and back again."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import OrderPlaced, placed, several
from support.schemas import described, execute, rows

from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    EventRegistry,
    Projection,
    ProjectionRunner,
    Query,
    QueryItem,
    Tag,
    handles,
    open_store,
    schema,
)
from esource.copying import fill_tags
from esource.copying.archiving import archive, restore
from esource.copying.integrity import verify_store
from esource.errors import (
    ConstraintError,
    DuplicateEventError,
    InvalidOptionError,
    OptimisticLockError,
    SchemaOutdatedError,
    TagsIncompleteError,
)
from esource.schema import partitioning, row_level_security
from esource.testing import EventStoreConformance
from esource.testing.server import apart, dsn, new_database

TABLES = ", ".join([*schema.TABLES, "esource_event_keys"])


class Counted(Projection):
    async def reset(self, connection):
        await connection.exec_driver_sql("DROP TABLE IF EXISTS counted")
        await connection.exec_driver_sql("CREATE TABLE counted (position int)")

    @handles(OrderPlaced)
    async def placed(self, event, context):
        await context.connection.exec_driver_sql("INSERT INTO counted VALUES (1)")


async def prepare(url):
    """Parts that begin at 3 and at 5: what a test appends lies in several."""
    await schema.upgrade(url)
    async with open_store(url, enable_tracing=False) as store:
        for step in (partitioning.partition, partitioning.begin_partition):
            order = uuid4()
            await store.append_events(order, "Order", several(2, order))
            await step(url)


@pytest.fixture(scope="module")
def partitioned_url(postgres_server):
    with new_database(postgres_server) as url:
        apart(lambda: prepare(url))
        yield url


class TestAPartitionedLog(EventStoreConformance):
    @pytest.fixture
    async def event_store(self, partitioned_url, open_stores):
        await execute(partitioned_url, f"TRUNCATE {TABLES} RESTART IDENTITY")
        return await open_stores(partitioned_url, outbox_enabled=True)


async def test_a_log_in_parts_reads_and_goes_on_as_before_and_becomes_the_same_table_again(
    postgres_url, open_stores
):
    before = await described(postgres_url)
    store = await open_stores(postgres_url, outbox_enabled=True)
    order = uuid4()
    await store.append_events(order, "Order", several(3, order), 0)
    await partitioning.partition(store)
    await store.append_events(order, "Order", several(3, order), 3)
    assert await partitioning.begin_partition(store) == ("events_from_7", 7)
    assert await partitioning.begin_partition(store) is None
    await store.append_events(order, "Order", several(3, order), 6)
    assert await partitioning.partitions(store) == [
        ("events_from_0", 0),
        ("events_from_4", 4),
        ("events_from_7", 7),
    ]
    assert await rows(
        postgres_url, "SELECT tableoid::regclass::text, count(*) FROM events GROUP BY 1 ORDER BY 1"
    ) == [("events_from_0", 3), ("events_from_4", 3), ("events_from_7", 3)]

    async def look():
        assert [stored.global_position async for stored in store.read_all()] == list(range(1, 10))
        assert (await store.get_events(order)).version == 9
        with pytest.raises(OptimisticLockError):
            await store.append_events(order, "Order", [placed(order)], 8)

    await look()
    runner = ProjectionRunner(store, Counted())
    await runner.run(live=False)
    assert await rows(postgres_url, "SELECT count(*) FROM counted") == [(9,)]
    await execute(postgres_url, "DROP TABLE counted")
    await partitioning.merge(store)
    await look()
    assert await described(postgres_url) == before
    assert (await store.append_events(order, "Order", [placed(order)], 9)).global_position > 9


async def test_ids_and_versions_are_unique_over_all_parts_and_the_errors_name_the_same_constraints(
    postgres_url, open_stores
):
    store = await open_stores(postgres_url)
    event, other = placed(), placed()
    first = await store.append_events(event.aggregate_id, "Order", [event], 0)
    await partitioning.partition(store)

    again = await store.append_events(event.aggregate_id, "Order", [event], 0)
    assert again.idempotent
    assert again.global_position == first.global_position
    taken = placed(other.aggregate_id, event_id=event.event_id)
    with pytest.raises(DuplicateEventError):
        await store.append_events(other.aggregate_id, "Order", [taken], 0)
    insert = (
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, version, timestamp, payload) "
        "VALUES ('{}', '{}', 'Order', 'OrderPlaced', 1, now(), '{{}}')"
    )
    connection = await asyncpg.connect(**dsn(make_url(postgres_url)))
    for constraint, statement in {
        "events_event_id_key": insert.format(event.event_id, uuid4()),
        "uq_events_aggregate_version": insert.format(uuid4(), event.aggregate_id),
    }.items():
        with pytest.raises(asyncpg.UniqueViolationError) as refused:
            await connection.execute(statement)
        assert refused.value.constraint_name == constraint
    await connection.close()

    # Many at once for one version: one wins.
    stores = [store, await open_stores(postgres_url)]
    outcomes = await asyncio.gather(
        *(s.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)], 1) for s in stores * 10),
        return_exceptions=True,
    )
    assert sum(not isinstance(outcome, OptimisticLockError) for outcome in outcomes) == 1
    assert await rows(postgres_url, "SELECT count(*) FROM events") == [(2,)]


async def test_appends_that_run_meanwhile_wait_and_are_all_stored_in_order(postgres_url, open_stores):
    stores = [await open_stores(postgres_url) for _ in range(2)]
    done = asyncio.Event()
    results = []

    async def work(store):
        while not done.is_set():
            event = placed()
            results.append(await store.append_events(event.aggregate_id, "Order", [event], 0))

    async def administer():
        for step in (partitioning.partition, partitioning.begin_partition, partitioning.merge):
            while len(results) % 20:
                await asyncio.sleep(0)
            await step(postgres_url)
        done.set()

    await asyncio.gather(administer(), *(work(store) for store in stores for _ in range(3)))
    positions = [stored.global_position async for stored in stores[0].read_all()]
    assert positions == sorted(result.global_position for result in results)


async def test_a_page_of_the_log_touches_only_the_parts_that_its_positions_are_in(partitioned_url):
    connection = await asyncpg.connect(**dsn(make_url(partitioned_url)))
    plan = json.dumps(
        json.loads(
            await connection.fetchval(
                "EXPLAIN (FORMAT JSON) SELECT payload FROM events WHERE global_position > 5 "
                "ORDER BY global_position LIMIT 100"
            )
        )
    )
    await connection.close()
    assert "events_from_5" in plan
    assert "events_from_3" not in plan
    assert "events_from_0" not in plan


async def test_a_detached_part_is_a_table_of_its_own_whose_ids_stay_taken(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    old, new = placed(), placed()
    await store.append_events(old.aggregate_id, "Order", [old])
    await partitioning.partition(store)
    await store.append_events(new.aggregate_id, "Order", [new])
    with pytest.raises(InvalidOptionError, match="no closed part"):
        await partitioning.detach(store, "events_from_2")
    await partitioning.detach(store, "events_from_0")

    assert [stored.event_id async for stored in store.read_all()] == [new.event_id]
    assert await rows(postgres_url, "SELECT event_id FROM events_from_0") == [(old.event_id,)]
    for event in (old, placed(old.aggregate_id)):  # the id; the version that the ended stream had
        with pytest.raises(ConstraintError):
            await store.append_events(event.aggregate_id, "Order", [event])
    assert await store.append_events(new.aggregate_id, "Order", [placed(new.aggregate_id)], 1)


async def test_rights_stay_on_the_log_and_come_to_none_of_its_parts(empty_postgres_url):
    role = f"writer_{uuid4().hex}"
    held = f"""
        SELECT relname::text, string_agg(privilege, ',' ORDER BY privilege) FROM pg_class,
        unnest(ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE']) AS privilege
        WHERE relkind IN ('r', 'p') AND (relname LIKE 'event%' OR relname = 'esource_event_keys')
        AND relname NOT IN ('event_outbox', 'event_tags') AND has_table_privilege('{role}', pg_class.oid, privilege) GROUP BY 1"""
    await execute(
        empty_postgres_url,
        f"CREATE ROLE {role}",
        f"ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role}",
    )
    try:
        await schema.upgrade(empty_postgres_url)
        await execute(empty_postgres_url, f"REVOKE UPDATE, DELETE ON events FROM {role}")
        await prepare(empty_postgres_url)
        assert await rows(empty_postgres_url, held) == [("events", "INSERT,SELECT")]
        await partitioning.merge(empty_postgres_url)
        assert await rows(empty_postgres_url, held) == [("events", "INSERT,SELECT")]
    finally:
        await execute(empty_postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_what_was_archived_from_a_log_in_parts_is_restored(postgres_url, open_stores, tmp_path):
    store = await open_stores(postgres_url)
    order = uuid4()
    await store.append_events(order, "Order", several(3, order), 0)
    await store.close_stream(order, "Order")
    await partitioning.partition(store)
    before = await store.get_events(order, "Order")
    keys = "SELECT count(*) FROM esource_event_keys"

    await archive(store, tmp_path / "old.jsonl")
    assert await rows(postgres_url, keys) == [(1,)]
    restored = await restore(store, tmp_path / "old.jsonl")

    assert restored.events == 3
    assert await store.get_events(order, "Order") == before
    assert await rows(postgres_url, keys) == [(4,)]


async def test_what_was_in_a_detached_part_is_restored_when_that_is_attached_again(
    postgres_url, open_stores, tmp_path
):
    store = await open_stores(postgres_url)
    order = uuid4()
    await partitioning.partition(store)
    await store.append_events(order, "Order", several(3, order), 0)
    await partitioning.begin_partition(store)
    await store.close_stream(order, "Order")
    before = await store.get_events(order, "Order")
    await archive(store, tmp_path / "old.jsonl")
    [_, part, _] = await partitioning.partitions(store)
    await partitioning.detach(store, part.name)

    with pytest.raises(ConstraintError, match="was detached. Attach it again"):
        await restore(store, tmp_path / "old.jsonl")

    assert [event.aggregate_version for event in (await store.get_events(order, "Order")).events] == [4]
    await partitioning.attach(store, part.name)
    assert (await restore(store, tmp_path / "old.jsonl")).events == 3
    assert await store.get_events(order, "Order") == before


ADDED = (
    "ALTER TABLE events ADD COLUMN note text NOT NULL DEFAULT 'none'",
    "ALTER TABLE events ADD COLUMN size int GENERATED ALWAYS AS (length(note)) STORED",
    "ALTER TABLE events ADD CONSTRAINT short CHECK (length(note) < 80)",
    "CREATE INDEX \"of the notes\" ON events (lower(note)) WHERE note <> 'none'",
    "COMMENT ON TABLE events IS 'the log'",
    "COMMENT ON COLUMN events.note IS 'of ours'",
)


async def test_what_an_application_has_added_to_the_log_goes_along_and_comes_back(postgres_url, open_stores):
    role = f"reader_{uuid4().hex}"
    store = await open_stores(postgres_url)
    order = uuid4()
    await store.append_events(order, "Order", several(2, order), 0)
    await execute(
        postgres_url,
        *ADDED,
        "UPDATE events SET note = 'first' WHERE version = 1",
        f"CREATE ROLE {role}",
        f"GRANT SELECT ON events TO {role} WITH GRANT OPTION",
        f"GRANT UPDATE (note) ON events TO {role}",
    )
    rights = (
        "SELECT coalesce(attname, ''), acl.privilege_type, acl.is_grantable FROM pg_class LEFT JOIN pg_attribute "
        "ON attrelid = pg_class.oid AND attacl IS NOT NULL, LATERAL (SELECT * FROM aclexplode(relacl) UNION ALL "
        f"SELECT * FROM aclexplode(attacl)) AS acl WHERE pg_class.oid = 'events'::regclass "
        f"AND acl.grantee = '{role}'::regrole ORDER BY 1, 2"
    )
    try:
        before, held = await described(postgres_url), await rows(postgres_url, rights)
        assert held
        await partitioning.partition(store)
        await store.append_events(order, "Order", several(2, order), 2)
        await partitioning.begin_partition(store)
        assert await rows(postgres_url, rights) == held
        await execute(postgres_url, "UPDATE events SET note = 'third' WHERE version = 3")
        await partitioning.merge(store)

        assert await described(postgres_url) == before
        assert await rows(postgres_url, rights) == held
        assert await rows(postgres_url, "SELECT note, size FROM events ORDER BY version") == [
            ("first", 5),
            ("none", 4),
            ("third", 5),
            ("none", 4),
        ]
    finally:
        await execute(postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        await execute(
            postgres_url,
            "ALTER TABLE events DROP COLUMN size, DROP COLUMN note",
            "COMMENT ON TABLE events IS NULL",
        )


OBSTACLES = {
    "the foreign key": (
        "CREATE TABLE tenants (id uuid PRIMARY KEY); ALTER TABLE events ADD FOREIGN KEY (tenant_id) REFERENCES tenants",
        "ALTER TABLE events DROP CONSTRAINT events_tenant_id_fkey; DROP TABLE tenants",
    ),
    "the constraint theirs": (
        "ALTER TABLE events ADD CONSTRAINT theirs UNIQUE (event_id, actor_id)",
        "ALTER TABLE events DROP CONSTRAINT theirs",
    ),
    "the unique index theirs": (
        "CREATE UNIQUE INDEX theirs ON events (event_id, actor_id)",
        "DROP INDEX theirs",
    ),
    "the identity column": (
        "ALTER TABLE events ADD COLUMN number int GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE events DROP COLUMN number",
    ),
    "the sequence events_number_seq": (
        "ALTER TABLE events ADD COLUMN number serial",
        "ALTER TABLE events DROP COLUMN number",
    ),
    "the rule theirs": (
        "CREATE RULE theirs AS ON DELETE TO events DO INSTEAD NOTHING",
        "DROP RULE theirs ON events",
    ),
}


@pytest.mark.parametrize(("obstacle", "statements"), OBSTACLES.items(), ids=OBSTACLES)
async def test_what_cannot_go_along_is_named_and_nothing_is_changed(postgres_url, obstacle, statements):
    await execute(postgres_url, statements[0])
    before = await described(postgres_url)
    try:
        with pytest.raises(InvalidOptionError, match=obstacle):
            await partitioning.partition(postgres_url)
        assert await described(postgres_url) == before
    finally:
        await execute(postgres_url, statements[1])


async def test_an_index_of_one_part_alone_stops_the_merge(postgres_url):
    await partitioning.partition(postgres_url)
    await execute(postgres_url, "CREATE INDEX theirs ON events_from_0 (actor_id)")
    try:
        with pytest.raises(InvalidOptionError, match="the index theirs of a part alone"):
            await partitioning.merge(postgres_url)
    finally:
        await execute(postgres_url, "DROP INDEX theirs")
        await partitioning.merge(postgres_url)


async def test_what_cannot_be_partitioned_is_left_as_it_was(postgres_url, empty_postgres_url, sqlite_url):
    for function in (partitioning.partition, partitioning.partitions):
        with pytest.raises(InvalidOptionError, match="PostgreSQL's"):
            await function(sqlite_url)
    await schema.upgrade(empty_postgres_url, "0002")
    with pytest.raises(SchemaOutdatedError):
        await partitioning.partition(empty_postgres_url)
    for needs_parts in (partitioning.begin_partition, partitioning.partitions, partitioning.merge):
        with pytest.raises(InvalidOptionError, match="is not partitioned"):
            await needs_parts(postgres_url)
    await execute(postgres_url, "CREATE VIEW mine AS SELECT event_id FROM events")
    await row_level_security.enable(postgres_url)
    before = await described(postgres_url)
    with pytest.raises(InvalidOptionError, match="row-level security.*the view mine"):
        await partitioning.partition(postgres_url)
    assert await described(postgres_url) == before
    await row_level_security.disable(postgres_url)
    await execute(postgres_url, "DROP VIEW mine")
    await partitioning.partition(postgres_url)
    with pytest.raises(InvalidOptionError, match="partitioned already"):
        await partitioning.partition(postgres_url)
    await row_level_security.enable(postgres_url)
    with pytest.raises(InvalidOptionError, match="row-level security"):
        await partitioning.merge(postgres_url)
    for table in ("events_from_0", "esource_event_keys"):
        assert not schema.include_name(table, "table", {})


async def test_tags_stay_with_their_events_when_the_log_is_parted_detached_and_merged(
    postgres_url, open_stores
):
    store = await open_stores(postgres_url)
    red = Query(QueryItem(tags=["red"]))
    await store.append([placed()], tags=["red"])
    await partitioning.partition(postgres_url)
    assert [stored.global_position for stored in (await store.read_query(red)).events] == [1]
    with pytest.raises(AppendConditionError):
        await store.append([placed()], tags=["red"], condition=AppendCondition(red, 0))
    second = await store.append([placed()], tags=["red"], condition=AppendCondition(red, 1))
    part = await partitioning.begin_partition(postgres_url)
    third = await store.append(
        [placed()], tags=["red"], condition=AppendCondition(red, second.global_position)
    )
    held = "SELECT tag, global_position FROM event_tags ORDER BY 2"
    positions = [1, second.global_position, third.global_position]
    assert await rows(postgres_url, held) == [("red", position) for position in positions]

    await partitioning.detach(postgres_url, "events_from_0")
    assert [stored.global_position for stored in (await store.read_query(red)).events] == positions[1:]
    assert part is not None
    await partitioning.merge(postgres_url)
    await execute(postgres_url, f"DELETE FROM events WHERE global_position = {positions[1]}")
    last = await store.append([placed()], tags=["red"], condition=AppendCondition(red, positions[2]))
    assert await rows(postgres_url, held) == [
        ("red", place) for place in (1, positions[2], last.global_position)
    ]


class Booked(DomainEvent):
    room: Annotated[str, Tag("room")]


async def test_a_part_comes_back_with_its_tags_though_it_was_detached_before_there_were_any(
    postgres_url, open_stores
):
    registry = EventRegistry()
    registry.register(Booked)
    store = await open_stores(postgres_url, event_registry=registry)
    blue = Query(QueryItem(tags=["room:blue"]))
    await store.append([Booked(room="blue")])
    await partitioning.partition(store)
    await store.append([Booked(room="blue")], tags=["vip"])
    await partitioning.begin_partition(store)
    await fill_tags(store, registry=registry)
    parts = await partitioning.partitions(store)
    for part in parts[:2]:
        await partitioning.detach(store, part.name)
    await execute(
        postgres_url,
        "ALTER TABLE events_from_0 DROP COLUMN tags",
        "COMMENT ON TABLE events_from_0 IS NULL",
        "DELETE FROM event_tags",
    )
    with pytest.raises(InvalidOptionError, match="no part that was detached"):
        await partitioning.attach(store, parts[2].name)
    for name in ("events_from_", "events_from_7", "event_tags"):
        with pytest.raises(InvalidOptionError, match="no part that was detached"):
            await partitioning.attach(store, name)

    await partitioning.attach(store, parts[1].name)
    assert [stored.tags for stored in (await store.read_query(blue)).events] == [{"room:blue", "vip"}]
    await partitioning.attach(store, parts[0].name)
    assert await partitioning.partitions(store) == parts
    with pytest.raises(TagsIncompleteError):
        await store.append([Booked(room="blue")], condition=AppendCondition(blue, 0))
    assert (await fill_tags(store, registry=registry)).filled == 1
    assert [stored.global_position for stored in (await store.read_query(blue)).events] == [1, 2]
    assert (await verify_store(store)).findings == []


async def test_a_part_that_comes_back_as_it_left_needs_no_filling_and_any_other_does(
    postgres_url, open_stores
):
    registry = EventRegistry()
    registry.register(Booked)
    store = await open_stores(postgres_url, event_registry=registry)
    await store.append([Booked(room="blue")], tags=["room:any"])
    await partitioning.partition(store)
    await partitioning.begin_partition(store)
    name = (await partitioning.partitions(store))[0].name
    await execute(
        postgres_url, """UPDATE events SET tags = '["room:any"]'"""
    )  # as before the class declared it
    blue = Query(QueryItem(tags=["room:blue"]))

    async def comes_back(meanwhile=None) -> list[int]:
        await partitioning.detach(store, name)
        if meanwhile is not None:
            await meanwhile
        await partitioning.attach(store, name)
        return [stored.global_position for stored in (await store.read_query(blue)).events]

    with pytest.raises(TagsIncompleteError):
        await comes_back(fill_tags(store, registry=registry))
    await fill_tags(store, registry=registry)
    assert await comes_back() == [1]
    assert await comes_back() == [1]
    with pytest.raises(TagsIncompleteError):
        await comes_back(fill_tags(store, registry=registry, again=True))


async def test_a_part_is_attached_while_a_page_of_tags_is_written(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    await store.append([placed()])
    await partitioning.partition(store)
    await store.append([placed()])
    part = (await partitioning.partitions(store))[0].name
    await partitioning.detach(store, part)
    await execute(postgres_url, "INSERT INTO tag_fillings VALUES ('OrderPlaced', 'order', 2, now())")
    filling = await asyncpg.connect(**dsn(make_url(postgres_url)))
    try:
        async with filling.transaction():  # as fill_tags locks, one after the other
            await filling.execute("SELECT global_position FROM tag_fillings FOR UPDATE")
            attaching = asyncio.create_task(partitioning.attach(store, part))
            while not await filling.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not attaching.done()
                await asyncio.sleep(0)
            await filling.execute("UPDATE events SET tags = '[\"order:1\"]' WHERE global_position = 2")
        await attaching
        assert [
            tuple(row)
            for row in await filling.fetch("SELECT global_position, completed_at FROM tag_fillings")
        ] == [(0, None)]
    finally:
        await filling.close()
