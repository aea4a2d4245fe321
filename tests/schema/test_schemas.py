"""Several logs in one PostgreSQL database, each in a schema of its own: none waits for another, wakes or sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from support.commands import esource
from support.orders import OrderPlaced, placed, several
from support.read_models import until
from support.schemas import CHECKOUT, alembic, execute, rows
from support.tenants import PASSWORD, RED, as_role

from esource import (
    CheckpointRepository,
    Lease,
    OutboxRelay,
    OutboxRepository,
    PostgreSQLEventStore,
    Projection,
    ProjectionRunner,
    handles,
    open_store,
    schema,
)
from esource.copying import copy, cut_over
from esource.dialect.postgresql import inspection as postgresql_inspection
from esource.dialect.postgresql.quoting import identifier
from esource.dialect.urls import inspection_of
from esource.errors import (
    DatabaseReadOnlyError,
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
    StoreMovedError,
)
from esource.privacy import DatabaseKeyStore, new_master_key
from esource.schema import partitioning, row_level_security
from esource.schema.reports import differences, offline_script
from esource.schema.roles import create_roles
from esource.schema.schemas import LogSchema, drop_schema, log_schemas
from esource.sync import open_store as open_synchronous
from esource.tables.names import VERSION_TABLE
from esource.testing import server

FIRST, SECOND = "tenant_7", 'Tenant 7\'s; "DROP", %s'


def inside(url: str, name: str) -> str:
    return make_url(url).update_query_dict({"schema": name}).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def shared_url(postgres_server: URL) -> Iterator[str]:
    """A database with two logs, whose tests tell their streams apart."""
    with server.new_database(postgres_server) as url:
        for name in (FIRST, SECOND):
            server.apart(lambda name=name: schema.upgrade(inside(url, name)))
        yield url


@pytest.fixture
async def two(shared_url, open_stores):
    return [await open_stores(shared_url, schema=name, outbox_enabled=True) for name in (FIRST, SECOND)]


@pytest.fixture
async def own_url(empty_postgres_url):
    """A database with two logs that one test may change as it likes."""
    for name in (FIRST, SECOND):
        await schema.upgrade(inside(empty_postgres_url, name))
    return empty_postgres_url


async def append_one(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    return event


async def all_of(store):
    return [stored.event async for stored in store.read_all()]


class Placed(Projection):
    def __init__(self):
        self.seen = []

    @handles(OrderPlaced)
    async def placed(self, event, context):
        self.seen.append(event.event_id)


# -- side by side ----------------------------------------------------------------------------------


async def test_a_log_neither_waits_for_another_nor_sees_its_events(two):
    first, second = two
    before = await first.get_global_position(), await second.get_global_position()
    async with first.transaction() as tx:
        held = placed()
        await tx.append_events(held.aggregate_id, "Order", [held])
        other = await append_one(second)
    assert (await all_of(first))[-1] == held
    assert (await all_of(second))[-1] == other
    assert (await first.get_global_position(), await second.get_global_position()) == (
        before[0] + 1,
        before[1] + 1,
    )
    assert await first.get_stream_version(other.aggregate_id, "Order") == 0


@pytest.fixture
async def notified(shared_url):
    """What every NOTIFY of an append says: the number of the log in `two` that was appended to."""
    heard = asyncio.Queue()
    listener = await asyncpg.connect(**server.dsn(make_url(shared_url)))
    for number, name in enumerate((FIRST, SECOND)):
        channel = await listener.fetchval(
            "SELECT 'esource_' || to_regclass(quote_ident($1) || '.events')::oid", name
        )
        await listener.add_listener(channel, lambda *message, number=number: heard.put_nowait(number))
    yield heard
    await listener.close()


async def test_an_append_wakes_those_who_listen_to_its_own_log_and_no_others(two, shared_url, notified):
    first, second = two
    start = await first.get_global_position()
    async with (
        open_store(shared_url, schema=FIRST) as reader,
        reader.subscribe(start, poll_seconds=600) as new,
    ):
        waiting = asyncio.create_task(anext(new))
        await until(lambda: reader._opened.database.wake_up.is_watching)
        await append_one(second)
        event = await append_one(first)
        assert (await waiting).event == event
    # Notifications come in the order of the commits: nobody was told of the append to the second log.
    assert await notified.get() == 0
    assert notified.empty()


async def test_who_begins_to_listen_while_an_append_is_under_way_is_told_of_it_and_of_the_next(
    two, shared_url
):
    first, _ = two
    start = await first.get_global_position()
    async with (
        open_store(shared_url, schema=FIRST) as reader,
        reader.subscribe(start, poll_seconds=600) as new,
    ):
        event = placed()
        async with first.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event])
            waiting = asyncio.create_task(anext(new))
            await until(lambda: reader._opened.database.wake_up._waiters)
            while not await rows(
                shared_url, "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'"
            ):
                await asyncio.sleep(0)
        assert (await waiting).event == event
        later = await append_one(first)
        assert (await anext(new)).event == later


async def test_subscriptions_and_checkpoints_are_those_of_one_log(two):
    for number, store in enumerate(two):
        event = await append_one(store)
        async with store.subscribe(0, poll_seconds=60) as subscription:
            async for stored in subscription:
                if stored.event == event:
                    break
        await CheckpointRepository(store).save_position("same", number + 1, event.event_id, "OrderPlaced")
    assert [await CheckpointRepository(store).get_position("same") for store in two] == [1, 2]


async def test_a_lease_is_held_in_both_logs_at_once(two):
    async with Lease(two[0], "both"), Lease(two[1], "both"):
        pass


async def test_projections_and_relays_work_off_their_own_log(two):
    events = [await append_one(store) for store in two]
    projections = [Placed(), Placed()]
    for store, projection, event in zip(two, projections, events, strict=True):
        await ProjectionRunner(store, projection).run(live=False)
        assert projection.seen[-1] == event.event_id
    published = []

    class Publisher:
        async def publish(self, entry):
            published.append(entry.event_id)

    await OutboxRelay(two[0], Publisher()).run_once()
    assert events[0].event_id in published
    assert events[1].event_id not in published
    assert [e.event_id for e in await OutboxRepository(two[1]).get_pending_events()][-1] == events[1].event_id


async def test_a_path_that_the_application_sets_leads_no_statement_into_another_log(own_url, open_stores):
    first = await open_stores(own_url, schema=FIRST, pool_size=1, max_overflow=1)
    quoted = '"' + SECOND.replace('"', '""') + '"'
    for scope in ("SESSION", "LOCAL"):
        event = placed()
        async with first.transaction() as tx:
            await tx.connection.exec_driver_sql(f"SET {scope} search_path = {quoted}")
            with pytest.raises(InvalidOptionError, match="into another log"):
                await tx.append_events(event.aggregate_id, "Order", [event])
        async with first.reading() as connection:
            await connection.exec_driver_sql(f"SET {scope} search_path = {quoted}")
        await append_one(first)
        async with first.transaction():
            await append_one(first)
    assert await rows(own_url, f"SELECT count(*) FROM {FIRST}.events") == [(4,)]
    assert await rows(own_url, f"SELECT count(*) FROM {quoted}.events") == [(0,)]


async def test_a_store_without_a_schema_does_not_see_the_logs_of_others(two, shared_url):
    async with open_store(shared_url) as store:
        with pytest.raises(SchemaMissingError):
            await store.get_global_position()


async def test_the_tables_of_another_log_are_not_those_of_an_application(two, shared_url):
    await execute(shared_url, "CREATE TABLE public.loose (id int)")
    database = two[1]._opened.database
    assert await database.inspect(inspection_of(database.backend).other_tables) == ["public.loose"]


async def test_doctor_names_a_connection_that_holds_up_the_appends_of_its_own_log(
    two, shared_url, monkeypatch
):
    monkeypatch.setattr(postgresql_inspection, "IDLE_SECONDS", 0)
    event = placed()
    async with two[0].transaction() as tx:
        await tx.append_events(event.aggregate_id, "Order", [event])
        said = [
            (await esource("doctor", "--url", inside(shared_url, name))).stdout for name in (FIRST, SECOND)
        ]
    assert "every append waits for it" in said[0]
    assert "every append waits for it" not in said[1]
    assert "VACUUM and migrations wait for it" in said[1]


# -- one of the two ----------------------------------------------------------------------------------


async def test_a_log_is_copied_and_moved_from_one_schema_to_another(own_url, open_stores):
    first = await open_stores(own_url, schema=FIRST)
    stream = uuid4()
    await first.append_events(stream, "Order", several(5, stream), 0)
    third = await open_stores(own_url, schema="third")
    result = await copy(first, third, verify=True)
    assert (result.events, result.verification.is_identical, result.not_copied) == (5, True, [])
    await cut_over(first, third)
    with pytest.raises(StoreMovedError, match="schema=third"):
        await append_one(first)
    assert await append_one(third)
    async with PostgreSQLEventStore(own_url, schema=SECOND) as second:
        await append_one(second)
        assert await second.get_global_position() == 1


async def test_each_log_is_migrated_alone_and_waits_for_no_other(own_url, open_stores):
    await schema.downgrade(inside(own_url, FIRST), "0002")
    assert await schema.current(inside(own_url, SECOND)) == schema.HEAD
    async with PostgreSQLEventStore(own_url, schema=SECOND) as second:
        database = second._opened.database
        async with database.transaction() as unit:
            await database.backend.lock_schema(unit.connection, database.schema)
            await schema.upgrade(inside(own_url, FIRST))
    for name in (FIRST, SECOND):
        assert await schema.current(inside(own_url, name)) == schema.HEAD
        assert await differences(inside(own_url, name)) == []


async def test_stores_that_open_a_new_schema_at_once_make_it_once(empty_postgres_url):
    stores = [PostgreSQLEventStore(empty_postgres_url, schema="new") for _ in range(4)]
    await asyncio.gather(*(store.initialize() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))
    assert [log.name for log in await log_schemas(empty_postgres_url)] == ["new"]


@pytest.mark.slow
async def test_alembic_migrates_the_schema_that_its_url_names(empty_postgres_url):
    url = inside(empty_postgres_url, "by argument")
    alembic("-x", f"url={url}", "upgrade", "head", cwd=CHECKOUT)
    environment = {"ESOURCE_URL": inside(empty_postgres_url, "by environment")}
    alembic("upgrade", "head", cwd=CHECKOUT, environment=environment)
    assert [log.name for log in await log_schemas(empty_postgres_url)] == ["by argument", "by environment"]
    script = alembic("upgrade", "head", "--sql", cwd=CHECKOUT, environment=environment).stdout
    assert 'SET LOCAL search_path = "by environment";' in script


async def test_a_script_makes_the_schema_that_the_url_names_and_works_in_it(empty_postgres_url):
    url = inside(empty_postgres_url, SECOND)
    await execute(empty_postgres_url, offline_script(url, to_revision="0002"), offline_script(url, "0002"))
    assert [(log.name, log.version) for log in await log_schemas(empty_postgres_url)] == [
        (SECOND, schema.HEAD)
    ]
    assert await differences(url) == []


async def test_one_log_is_partitioned_and_the_other_is_not(own_url, open_stores):
    first = await open_stores(own_url, schema=FIRST)
    event = await append_one(first)
    await partitioning.partition(inside(own_url, FIRST))
    await partitioning.begin_partition(inside(own_url, FIRST))
    with pytest.raises(InvalidOptionError, match="not partitioned"):
        await partitioning.partitions(inside(own_url, SECOND))
    await append_one(first)
    assert (await all_of(first))[0] == event
    await drop_schema(own_url, FIRST, everything=True)
    assert [log.name for log in await log_schemas(own_url)] == [SECOND]


async def test_roles_and_row_level_security_are_those_of_one_log(roles, own_url, open_stores):
    admin = inside(own_url, FIRST)
    await row_level_security.enable(admin)
    assert not await row_level_security.is_enabled(inside(own_url, SECOND))
    tenant, writer, migrator, reader = [await roles() for _ in range(4)]
    await create_roles(admin, migrator=migrator, writer=writer, reader=reader)
    await row_level_security.bind_role(admin, tenant, RED)
    owner = await open_stores(admin, outbox_enabled=False)
    hidden = await append_one(owner)
    async with PostgreSQLEventStore(as_role(admin, tenant), outbox_enabled=False) as bound:
        event = placed()
        await bound.for_tenant(RED).append_events(event.aggregate_id, "Order", [event], 0)
        assert [found.event_id for found in await all_of(bound)] == [event.event_id]
    assert hidden in await all_of(owner)
    for role in (tenant, writer):
        async with PostgreSQLEventStore(as_role(inside(own_url, SECOND), role)) as outside:
            with pytest.raises((DatabaseReadOnlyError, SchemaMissingError)):
                await outside.get_global_position()
    assert await log_schemas(as_role(own_url, tenant)) == [
        LogSchema(FIRST, schema.HEAD, 2, pytest.approx(0, abs=10**9))
    ]


# -- listed and dropped ----------------------------------------------------------------------------


async def test_a_schema_with_events_or_tables_of_the_application_is_dropped_only_if_told(own_url):
    async with PostgreSQLEventStore(own_url, schema=FIRST) as store:
        await append_one(store)
        async with store.transaction() as tx:
            await tx.connection.exec_driver_sql("CREATE TABLE carts (id serial)")
            await tx.connection.exec_driver_sql(
                "CREATE FUNCTION count_carts() RETURNS int LANGUAGE sql AS 'SELECT 1'"
            )
    with pytest.raises(
        InvalidOptionError, match=r"up to global position 1, .*count_carts.*carts.*everything"
    ):
        await drop_schema(own_url, FIRST)
    assert [(log.name, log.version, log.position) for log in await log_schemas(own_url)] == [
        (SECOND, schema.HEAD, 0),
        (FIRST, schema.HEAD, 1),
    ]
    await drop_schema(own_url, FIRST, everything=True)
    second = inside(own_url, SECOND)
    await partitioning.partition(second)
    await partitioning.begin_partition(second)
    await row_level_security.enable(second)
    await schema.create_append_lock(second)
    await drop_schema(own_url, SECOND)  # nothing in it is anybody else's
    assert await log_schemas(own_url) == []
    assert await rows(own_url, "SELECT nspname FROM pg_namespace WHERE nspname ILIKE 'tenant%'") == []


async def test_a_schema_that_is_not_a_logs_is_not_dropped(own_url):
    await execute(own_url, "CREATE SCHEMA shop", "CREATE TABLE shop.snapshots (id int)", "CREATE SCHEMA bare")
    for name, told in (
        ("shop", "has no log"),
        ("public", "not the schema of a log"),
        ("none", "has no schema 'none'"),
    ):
        with pytest.raises(InvalidOptionError, match=told):
            await drop_schema(own_url, name, everything=True)
    await drop_schema(own_url, "bare")
    assert await rows(own_url, "SELECT count(*) FROM shop.snapshots") == [(0,)]


async def test_a_log_whose_events_the_role_may_not_read_is_not_listed(roles, own_url):
    role = await roles()
    for name in (FIRST, SECOND):
        await execute(
            own_url,
            f"GRANT USAGE ON SCHEMA {identifier(name)} TO {role}",
            f"GRANT SELECT ON {identifier(name)}.{VERSION_TABLE} TO {role}",
        )
    await execute(own_url, f"GRANT SELECT ON {identifier(SECOND)}.events TO {role}")
    assert [log.name for log in await log_schemas(as_role(own_url, role))] == [SECOND]


async def test_a_role_that_may_not_make_a_schema_is_told_so(roles, empty_postgres_url):
    url = as_role(inside(empty_postgres_url, "shop"), await roles())
    with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
        await schema.upgrade(url)
    with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
        await partitioning.merge(url)
    async with DatabaseKeyStore(url, new_master_key()) as keys:
        with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
            await keys.initialize()


async def test_the_commands_create_list_and_drop_a_log(empty_postgres_url):
    created = await esource("schemas", "create", "shop", "--url", empty_postgres_url)
    assert "schema=shop was created, at schema" in created.stdout, created.stderr
    assert "already" in (await esource("init", "--url", inside(empty_postgres_url, "shop"))).stdout
    async with PostgreSQLEventStore(empty_postgres_url, schema="shop") as store:
        await append_one(store)
    [found] = json.loads((await esource("schemas", "list", "--json", "--url", empty_postgres_url)).stdout)
    assert found == {
        "name": "shop",
        "schema": schema.HEAD,
        "global_position": 1,
        "bytes": found["bytes"],
    }
    refused = await esource("schemas", "drop", "shop", "--yes", "--url", empty_postgres_url)
    assert refused.exit_code == 4
    assert "--everything" in refused.stderr
    dropped = await esource("schemas", "drop", "shop", "--everything", "--yes", "--url", empty_postgres_url)
    assert dropped.exit_code == 0, dropped.stderr
    assert "no logs" in (await esource("schemas", "list", "--url", empty_postgres_url)).stdout


async def test_an_older_log_is_not_created_over(own_url):
    async with PostgreSQLEventStore(own_url, schema=FIRST) as store:
        await append_one(store)
    await schema.downgrade(inside(own_url, FIRST), "0002")
    refused = await esource("schemas", "create", FIRST, "--url", own_url)
    assert refused.exit_code == 4
    assert "esource upgrade" in refused.stderr
    async with PostgreSQLEventStore(own_url, schema=FIRST) as store:
        with pytest.raises(SchemaOutdatedError):
            await store.initialize()


# -- names and connections -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "printable"),
        ("a\nb", "printable"),
        ("ä" * 32, "63 bytes"),
        ("pg_mine", "keeps for itself"),
        ("information_schema", "keeps for itself"),
        ("$user", "search path"),
        (7, "printable"),
    ],
)
def test_a_name_that_no_schema_can_have_is_refused(name, told):
    with pytest.raises(InvalidOptionError, match=told):
        PostgreSQLEventStore("postgresql://me@host/db", schema=name)


def test_a_schema_is_named_once_in_the_url_or_by_the_option():
    url = "postgresql://me@host/db?schema=a"
    assert open_store(url, schema="a").name.endswith("?schema=a")
    for wrong in (f"{url}&schema=b", f"{url}&schema=", "postgresql://me@host/db?schema=pg_x"):
        with pytest.raises(InvalidOptionError):
            open_store(wrong)
    with pytest.raises(InvalidOptionError, match="'a', and the option 'b'"):
        open_store(url, schema="b")


@pytest.mark.parametrize("url", ["sqlite:///events.db", "events.db", "sqlite://"])
def test_sqlite_has_no_schemas(url):
    with pytest.raises(InvalidOptionError, match="SQLite has no schemas"):
        open_store(url, schema="a")
    if "://" in url:
        with pytest.raises(InvalidOptionError, match="SQLite has no schemas"):
            open_store(f"{url}?schema=a")
    open_store(url, schema=None)


async def test_the_commands_say_that_sqlite_has_no_schemas(sqlite_url):
    for command in (("list",), ("create", "a"), ("drop", "a", "--yes")):
        refused = await esource("schemas", *command, "--url", sqlite_url)
        assert refused.exit_code in (2, 4)
        assert "schemas" in refused.stderr


async def test_a_schema_goes_with_other_settings_of_the_session(shared_url):
    url = inside(shared_url, FIRST) + "&application_name=shop"
    settings = {"server_settings": {"lock_timeout": "20ms"}}
    async with PostgreSQLEventStore(url, connect_args=settings) as store, store.transaction() as tx:
        for name, value in (("search_path", FIRST), ("application_name", "shop"), ("lock_timeout", "20ms")):
            shown = (await tx.connection.exec_driver_sql(f"SHOW {name}")).scalar()
            assert shown.strip('"') == value
    with pytest.raises(InvalidOptionError, match="leave search_path out"):
        await PostgreSQLEventStore(url, connect_args={"server_settings": {"search_path": "b"}}).open()


async def test_a_connection_that_works_elsewhere_is_refused_before_anything_is_written(shared_url):
    async def elsewhere():
        return await asyncpg.connect(**server.dsn(make_url(shared_url)))

    with pytest.raises(InvalidOptionError, match="a pooler before the server"):
        await PostgreSQLEventStore(shared_url, schema=FIRST, async_creator=elsewhere).open()
    with pytest.raises(InvalidOptionError, match="no setting stays"):
        PostgreSQLEventStore(shared_url, schema=FIRST, transaction_pooling=True)
    engine = create_async_engine(make_url(shared_url).set(drivername="postgresql+asyncpg"))
    with pytest.raises(InvalidOptionError, match="on the engine itself"):
        PostgreSQLEventStore(engine, schema=FIRST)
    await engine.dispose()


async def test_a_joined_connection_of_another_schema_is_refused(two, shared_url):
    first, second = two
    before = await second.get_global_position()
    event = placed()
    async with second.transaction() as tx:
        with pytest.raises(InvalidOptionError, match="would write into another log"):
            await first.append_events(event.aggregate_id, "Order", [event], connection=tx.connection)
    assert await second.get_global_position() == before


def test_a_joined_synchronous_connection_of_another_schema_is_refused(shared_url):
    engine = create_engine(make_url(shared_url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    event = placed()
    with open_synchronous(shared_url, schema=FIRST) as store, engine.begin() as connection:
        with pytest.raises(InvalidOptionError, match="would write into another log"):
            store.append_events(event.aggregate_id, "Order", [event], connection=connection)
        connection.exec_driver_sql(f"SET LOCAL search_path = {FIRST}")
        store.append_events(event.aggregate_id, "Order", [event], connection=connection)
        driver = connection.connection.driver_connection  # as Django's is
        store.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)], 1, connection=driver)
        connection.exec_driver_sql("SET LOCAL search_path = public")
        with pytest.raises(InvalidOptionError, match="would write into another log"):
            store.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)], connection=driver)
    engine.dispose()


async def test_keys_in_another_schema_are_in_the_database_of_the_events(shared_url):
    with pytest.raises(InvalidOptionError, match="in another database"):
        PostgreSQLEventStore(
            inside(shared_url, FIRST),
            key_store=DatabaseKeyStore(inside(shared_url, "keys"), master_key=new_master_key()),
        )


@pytest.mark.parametrize("name", ["<role>", "{role}", "o'brien; $do$"])
async def test_names_that_look_like_places_of_our_statements_are_names(name, empty_postgres_url, open_stores):
    if "$" in name:
        schema_name, role_name = "plain", name
    else:
        schema_name, role_name = name, "<schema>"
    url = inside(empty_postgres_url, schema_name)
    owner = await open_stores(url)
    await row_level_security.enable(owner)
    await schema.create_append_lock(owner)
    role = f"{role_name} {uuid4().hex}"
    quoted = '"' + role.replace('"', '""') + '"'
    await execute(url_without(url), f"CREATE ROLE {quoted} LOGIN PASSWORD '{PASSWORD}'")
    try:
        await row_level_security.bind_role(owner, role, RED)
        await schema.drop_append_lock(owner)
        await row_level_security.enable(owner)
        store = await open_stores(as_role(url, role))
        event = placed(tenant_id=RED)
        await store.append_events(event.aggregate_id, "Order", [event], 0)
        await row_level_security.unbind_role(owner, role)
        with pytest.raises(SchemaMissingError):
            await store.get_events(event.aggregate_id)
    finally:
        await execute(url_without(url), f"DROP OWNED BY {quoted}", f"DROP ROLE {quoted}")


def url_without(url):
    return make_url(url).difference_update_query(["schema"]).render_as_string(hide_password=False)
