"""Roles bound to a tenant, on PostgreSQL, the only one of the databases that has roles.

The sessions here are those of the real roles, authenticated as themselves: nothing is tested by a superuser
that pretends.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import Order, placed, several
from support.schemas import CHECKOUT, alembic, described, execute, rows

from esource import (
    AggregateRepository,
    CheckpointRepository,
    DLQRepository,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
    TenantMismatchError,
    schema,
)
from esource.errors import ConstraintError, DatabaseReadOnlyError, InvalidOptionError, SchemaMissingError
from esource.schema import row_level_security
from esource.testing.server import dsn

RED = UUID("00000000-0000-7000-8000-00000000000a")
BLUE = UUID("00000000-0000-7000-8000-00000000000b")
OURS, THEIRS, NOBODYS = uuid4(), uuid4(), uuid4()
PASSWORD = uuid4().hex

DENIED = asyncpg.InsufficientPrivilegeError


@pytest.fixture
async def roles(postgres_url):
    """Makes login roles; a cluster has its roles in common, so each is dropped again."""
    made = []

    async def make(attributes=""):
        role = f"tenant_{uuid4().hex}"
        await execute(postgres_url, f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}' {attributes}")
        made.append(role)
        return role

    yield make
    for role in made:
        await execute(postgres_url, f'DROP OWNED BY "{role}"', f'DROP ROLE "{role}"')


@pytest.fixture
async def owner(postgres_url, open_stores):
    """The owner's store, on a database with row-level security in which two tenants and nobody wrote."""
    store = await open_stores(postgres_url, outbox_enabled=True)
    await row_level_security.enable(store)
    await store.append_events(NOBODYS, "Order", several(2, NOBODYS))
    for tenant, stream in ((RED, OURS), (BLUE, THEIRS)):
        bound = store.for_tenant(tenant)
        await bound.append_events(stream, "Order", several(3, stream), 0)
        await SnapshotStore(bound).save_snapshot(Snapshot(stream, "Order", 3, {"tenant": str(tenant)}))
        event = (await bound.get_events(stream)).events[0]
        await DLQRepository(bound).add_failed_event(event.event_id, "p", "OrderPlaced", {}, ValueError("x"))
        await CheckpointRepository(bound).save_position("p", 1, event.event_id, "OrderPlaced")
    return store


@pytest.fixture
async def red_url(owner, roles, postgres_url):
    """The database's URL for a role that is bound to one of the tenants."""
    role = await roles()
    await row_level_security.bind_role(owner, role, RED)
    return as_role(postgres_url, role)


def as_role(url, role):
    return make_url(url).set(username=role, password=PASSWORD).render_as_string(hide_password=False)


@asynccontextmanager
async def session(url):
    connection = await asyncpg.connect(**dsn(make_url(url)))
    try:
        yield connection
    finally:
        await connection.close()


TENANT_OF = {
    "events": "SELECT tenant_id FROM events",
    "event_outbox": "SELECT tenant_id FROM event_outbox",
    "snapshots": "SELECT CAST(state->>'tenant' AS uuid) FROM snapshots",
    "dead_letter_queue": "SELECT tenant_id FROM dead_letter_queue JOIN events USING (event_id)",
    "projection_checkpoints": "SELECT CAST(left(projection_name, 36) AS uuid) FROM projection_checkpoints",
}


async def tenants_seen(connection):
    return {table: {row[0] for row in await connection.fetch(query)} for table, query in TENANT_OF.items()}


ONLY_RED = dict.fromkeys(TENANT_OF, {RED})

# -- by hand ---------------------------------------------------------------------------------------------------


async def test_the_role_sees_its_tenants_rows_only_in_every_table(red_url):
    async with session(red_url) as red:
        assert await tenants_seen(red) == ONLY_RED
        assert await red.fetchval("SELECT count(*) FROM dead_letter_queue") == 1
        assert await red.fetchval("SELECT count(*) FROM events WHERE true OR tenant_id IS NULL") == 3
        assert await red.fetchval("SELECT count(*) FROM (TABLE events) AS every") == 3
        assert await red.fetchval(f"SELECT count(*) FROM events WHERE aggregate_id = '{THEIRS}'") == 0


SETTINGS = [
    f"SET app.tenant_id = '{BLUE}'",
    f"SET esource.tenant_id = '{BLUE}'",
    f"SELECT set_config('app.current_tenant', '{BLUE}', false)",
    "SET ROLE NONE",
    "RESET SESSION AUTHORIZATION",
    "SET search_path = pg_temp, public",
    "SET default_transaction_isolation = 'serializable'",
]


@pytest.mark.parametrize("setting", SETTINGS)
async def test_no_setting_lets_the_role_see_more(red_url, setting):
    async with session(red_url) as red:
        await red.execute(setting)
        assert await tenants_seen(red) == ONLY_RED


@pytest.mark.parametrize("whose", ["the owner", "another tenant's role"])
async def test_the_role_cannot_become_another(red_url, owner, roles, postgres_url, whose):
    other = make_url(postgres_url).username
    if whose != "the owner":
        other = await roles()
        await row_level_security.bind_role(owner, other, BLUE)
    async with session(red_url) as red:
        for attempt in (f'SET ROLE "{other}"', f'SET SESSION AUTHORIZATION "{other}"'):
            with pytest.raises(DENIED):
                await red.execute(attempt)
        assert await tenants_seen(red) == ONLY_RED


async def test_a_role_that_may_become_another_still_sees_its_own_tenant_only(
    red_url, owner, roles, postgres_url
):
    """SET ROLE changes what is granted, not who was authenticated."""
    other = await roles()
    await row_level_security.bind_role(owner, other, BLUE)
    await execute(postgres_url, f'GRANT "{other}" TO "{make_url(red_url).username}"')
    async with session(red_url) as red:
        await red.execute(f'SET ROLE "{other}"')
        assert await red.fetchval("SELECT current_user") == other
        assert await tenants_seen(red) == ONLY_RED


async def test_switching_the_policies_off_gives_an_error_and_no_rows(red_url):
    async with session(red_url) as red:
        await red.execute("SET row_security = off")
        with pytest.raises(DENIED, match="row-level security"):
            await red.fetch("SELECT * FROM events")


FORBIDDEN = [
    "SELECT * FROM esource_tenant_roles",
    f"UPDATE esource_tenant_roles SET tenant_id = '{BLUE}'",
    "DELETE FROM esource_tenant_roles",
    f"INSERT INTO esource_tenant_roles VALUES ('x', '{BLUE}')",
    "ALTER TABLE events DISABLE ROW LEVEL SECURITY",
    "DROP POLICY esource_tenants ON events",
    "CREATE POLICY mine ON events USING (true)",
    "CREATE OR REPLACE FUNCTION esource_tenant() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
    "ALTER FUNCTION esource_tenant() RESET ALL",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "CREATE TRIGGER t AFTER INSERT ON events EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "UPDATE events SET payload = '{}'",
    "UPDATE events SET tenant_id = tenant_id",
    "DELETE FROM events",
    "TRUNCATE events",
    "TRUNCATE snapshots",
    "SELECT setval('events_global_position_seq', 1000000)",
    "SELECT last_value FROM events_global_position_seq",
    "UPDATE esource_alembic_version SET version_num = '0001'",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_what_is_not_the_roles_business_is_denied(red_url, statement):
    async with session(red_url) as red:
        with pytest.raises(DENIED):
            await red.execute(statement)


async def test_a_temporary_table_does_not_stand_in_for_the_list_of_roles(red_url):
    async with session(red_url) as red:
        await red.execute("CREATE TEMPORARY TABLE esource_tenant_roles (role_name name, tenant_id uuid)")
        await red.execute(f"INSERT INTO esource_tenant_roles VALUES (session_user, '{BLUE}')")
        await red.execute("SET search_path = pg_temp, public")
        assert await tenants_seen(red) == ONLY_RED
        assert await red.fetchval("SELECT public.esource_tenant()") == RED


async def test_a_cheap_function_of_the_roles_own_is_not_shown_other_tenants_rows(red_url):
    async with session(red_url) as red:
        await red.execute(
            "CREATE FUNCTION pg_temp.told(value uuid) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
            "$$ BEGIN RAISE NOTICE '%', value; RETURN true; END $$"
        )
        heard = []
        red.add_log_listener(lambda _, message: heard.append(message.message))
        await red.fetch("SELECT 1 FROM events WHERE pg_temp.told(aggregate_id)")
        await asyncio.sleep(0)
        assert set(heard) == {str(OURS)}


INSERT = (
    "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, "
    "payload) VALUES (gen_random_uuid(), $1, 'Order', 'OrderPlaced', $2, $3, now(), '{}')"
)


@pytest.mark.parametrize(
    ("stream", "tenant", "version"),
    [
        (uuid4(), BLUE, 1),
        (uuid4(), None, 1),
        (OURS, BLUE, 4),
        (THEIRS, RED, 4),
        (THEIRS, RED, 9),
        (NOBODYS, RED, 3),
    ],
)
async def test_an_event_by_hand_is_its_own_and_in_a_stream_of_its_own(red_url, stream, tenant, version):
    async with session(red_url) as red:
        with pytest.raises(DENIED, match="row-level security"):
            await red.execute(INSERT, stream, tenant, version)
        await red.execute(INSERT, OURS, RED, 4)
        assert await red.fetchval("SELECT max(version) FROM events") == 4


async def test_a_position_is_never_chosen_by_hand(red_url):
    statement = INSERT.replace("(event_id", "(global_position, event_id", 1).replace(
        "VALUES (", "VALUES (1000000, ", 1
    )
    async with session(red_url) as red:
        with pytest.raises(DENIED):
            await red.execute(statement, OURS, RED, 4)


async def test_rows_beside_the_log_are_neither_written_nor_moved_for_others(red_url, owner):
    their_event = (await owner.get_events(THEIRS)).events[0].event_id
    refused = [
        (
            "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id) "
            f"VALUES (gen_random_uuid(), 'E', gen_random_uuid(), 'Order', '{BLUE}')"
        ),
        f"UPDATE event_outbox SET tenant_id = '{BLUE}'",
        (
            "INSERT INTO snapshots (aggregate_id, aggregate_type, version, state) "
            f"VALUES ('{THEIRS}', 'Order', 9, '{{}}') ON CONFLICT (aggregate_id, aggregate_type) "
            "DO UPDATE SET version = 9"
        ),
        f"UPDATE snapshots SET aggregate_id = '{THEIRS}'",
        f"UPDATE projection_checkpoints SET projection_name = '{BLUE}:q'",
        "INSERT INTO projection_checkpoints (projection_name) VALUES ('everybodys')",
        f"UPDATE dead_letter_queue SET event_id = '{their_event}'",
    ]
    async with session(red_url) as red:
        for statement in refused:
            with pytest.raises(DENIED, match="row-level security"):
                await red.execute(statement)
        for table in TENANT_OF:
            if table != "events":
                await red.execute(f"DELETE FROM {table}")
    assert len(await OutboxRepository(owner).get_pending_events()) == 5
    assert await SnapshotStore(owner).snapshot_exists(THEIRS, "Order")
    assert (await DLQRepository(owner).get_failure_stats()).total_failed == 1
    assert len(await CheckpointRepository(owner).get_all_checkpoints()) == 1


# -- the store, opened as the role -----------------------------------------------------------------------------


@pytest.fixture(params=["as it is", "bound to the tenant"])
async def red_store(request, red_url, open_stores):
    store = await open_stores(red_url, outbox_enabled=True)
    return store if request.param == "as it is" else store.for_tenant(RED)


def ours(stream, **fields):
    return placed(stream, tenant_id=RED, **fields)


async def test_a_store_opened_as_the_role_works_for_its_tenant(red_store, owner):
    new = uuid4()
    assert (await red_store.append_events(OURS, "Order", [ours(OURS)], 3)).new_version == 4
    await asyncio.gather(*(red_store.append_events(new, "Order", [ours(new)]) for _ in range(20)))
    assert await red_store.get_stream_version(new, "Order") == 20
    assert {stored.tenant_id async for stored in red_store.read_all()} == {RED}
    assert (await red_store.get_events(THEIRS)).is_empty
    orders = AggregateRepository(red_store, Order, snapshot_store=SnapshotStore(red_store))
    await orders.create_snapshot(await orders.load(new))
    assert (await orders.load(new)).version == 20
    assert len(await OutboxRepository(owner).get_pending_events()) == 8 + 21


async def test_its_transactions_and_repeated_appends_work_too(red_store):
    event = ours(OURS)
    async with red_store.transaction() as transaction:
        result = await transaction.append_events(OURS, "Order", [event], 3)
    again = await red_store.append_events(OURS, "Order", [event], 3)
    assert again.idempotent
    assert again.global_position == result.global_position


async def test_an_append_wakes_the_subscriptions_of_others(red_store, owner):
    async with owner.subscribe(await owner.get_global_position(), poll_seconds=60) as following:
        waiting = asyncio.ensure_future(anext(following))
        await red_store.append_events(OURS, "Order", [ours(OURS)])
        assert (await waiting).aggregate_id == OURS


async def test_its_own_subscription_hears_what_others_append_for_its_tenant(red_store, owner):
    async with red_store.subscribe(await owner.get_global_position(), poll_seconds=60) as following:
        waiting = asyncio.ensure_future(anext(following))
        await owner.append_events(THEIRS, "Order", [placed(THEIRS, tenant_id=BLUE)])
        await owner.append_events(OURS, "Order", [ours(OURS)])
        assert (await waiting).aggregate_id == OURS


async def test_it_cannot_write_for_another_tenant_and_the_others_beside_it_are_written(red_store, owner):
    before = await owner.get_global_position()
    streams = [uuid4() for _ in range(6)]
    events = [placed(stream, tenant_id=BLUE if n == 2 else RED) for n, stream in enumerate(streams)]
    outcomes = await asyncio.gather(
        *(red_store.append_events(e.aggregate_id, "Order", [e], 0) for e in events), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [TenantMismatchError]
    assert isinstance(outcomes[2], TenantMismatchError)
    async for stored in owner.read_all():
        assert stored.global_position <= before or stored.tenant_id == RED


@pytest.mark.parametrize("stream", [THEIRS, NOBODYS], ids=["another tenant's", "nobody's"])
@pytest.mark.parametrize("expected", [0, -1])
async def test_it_cannot_append_to_a_stream_of_somebody_else(red_store, owner, stream, expected):
    version = await owner.get_stream_version(stream, "Order")
    with pytest.raises((TenantMismatchError, ConstraintError)) as caught:
        await red_store.append_events(stream, "Order", [ours(stream)], expected)
    if red_store.tenant_id:
        assert caught.type is TenantMismatchError
    assert await owner.get_stream_version(stream, "Order") == version


async def test_a_bound_store_keeps_its_checkpoints_dead_letters_and_outbox(red_url, open_stores):
    red = (await open_stores(red_url)).for_tenant(RED)
    [entry] = await DLQRepository(red).get_failed_events()
    assert await DLQRepository(red).mark_resolved(entry.id, "red")
    assert await CheckpointRepository(red).save_position("p", 4, uuid4(), "OrderPlaced")
    assert await CheckpointRepository(red).get_position("p") == 4
    assert (await CheckpointRepository(red).get_lag_metrics("p")).lag_events == 1
    [pending, *_] = await OutboxRepository(red).get_pending_events()
    assert await OutboxRepository(red).mark_published(pending.id)


async def test_what_is_not_granted_is_our_error(red_url, open_stores):
    store = await open_stores(red_url)
    with pytest.raises(DatabaseReadOnlyError, match="permission denied"):
        await store._opened.database.run_script(["DELETE FROM events"])


# -- roles ---------------------------------------------------------------------------------------------------------


async def test_a_role_that_is_not_bound_sees_nothing(owner, roles, postgres_url):
    role = await roles()
    await execute(postgres_url, f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "{role}"')
    await execute(postgres_url, f'REVOKE ALL ON esource_tenant_roles FROM "{role}"')
    async with session(as_role(postgres_url, role)) as connection:
        assert await tenants_seen(connection) == dict.fromkeys(TENANT_OF, set())


async def test_a_role_bound_to_no_tenant_in_particular_sees_everything_with_the_rights_it_has(
    owner, roles, postgres_url, open_stores
):
    role = await roles()
    await execute(
        postgres_url,
        f'GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO "{role}"',
        f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{role}"',
    )
    await row_level_security.bind_role(owner, role, None)
    store = await open_stores(as_role(postgres_url, role))
    assert {stored.tenant_id async for stored in store.read_all()} == {RED, BLUE, None}
    assert (await store.append_events(NOBODYS, "Order", [placed(NOBODYS)], 2)).new_version == 3


async def test_binding_again_moves_a_role_and_unbinding_takes_its_rights(owner, red_url):
    role = make_url(red_url).username
    await row_level_security.bind_role(owner, role, BLUE)
    async with session(red_url) as connection:
        assert await tenants_seen(connection) == dict.fromkeys(TENANT_OF, {BLUE})
    await row_level_security.unbind_role(owner, role)
    await row_level_security.unbind_role(owner, role)
    async with session(red_url) as connection:
        with pytest.raises(DENIED):
            await connection.fetch("SELECT * FROM events")


async def test_a_role_that_no_policy_restricts_is_refused(owner, roles, postgres_url):
    member, owning = await roles(), make_url(postgres_url).username
    await execute(postgres_url, f'GRANT "{owning}" TO "{member}"')
    for role in (owning, await roles("BYPASSRLS"), member):
        with pytest.raises(InvalidOptionError, match="no policy restricts"):
            await row_level_security.bind_role(owner, role, RED)
    with pytest.raises(InvalidOptionError, match="no role 'nobody at all'"):
        await row_level_security.bind_role(owner, "nobody at all", RED)
    assert await rows(postgres_url, "SELECT * FROM esource_tenant_roles") == []


async def test_a_role_may_have_any_name(owner, postgres_url):
    role = f'Rôle "x"; DROP TABLE events; -- {uuid4().hex[:8]}'
    quoted = '"' + role.replace('"', '""') + '"'
    await execute(postgres_url, f"CREATE ROLE {quoted}")
    await row_level_security.bind_role(owner, role, RED)
    assert await rows(postgres_url, "SELECT role_name FROM esource_tenant_roles") == [(role,)]
    await row_level_security.unbind_role(owner, role)
    await execute(postgres_url, f"DROP ROLE {quoted}")  # refused if it still had any right


# -- on and off ------------------------------------------------------------------------------------------------------


async def secured(url):
    return {
        name
        for (name,) in await rows(
            url,
            "SELECT relname::text FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace",
        )
    }


async def test_it_is_off_unless_asked_for(empty_postgres_url):
    await schema.upgrade(empty_postgres_url)
    assert not await row_level_security.is_enabled(empty_postgres_url)
    assert await secured(empty_postgres_url) == set()


async def test_on_may_be_repeated_and_off_leaves_the_schema_as_it_was(empty_postgres_url):
    url = empty_postgres_url
    await schema.upgrade(url)
    before = await described(url)
    for _ in range(2):
        await row_level_security.enable(url)
        assert await row_level_security.is_enabled(url)
        assert await secured(url) == schema.TABLES
    for _ in range(2):
        await row_level_security.disable(url)
        assert not await row_level_security.is_enabled(url)
        assert await secured(url) == set()
    assert await described(url) == before
    assert await rows(url, "SELECT proname FROM pg_proc WHERE proname LIKE 'esource%'") == []
    assert await rows(url, "SELECT polname FROM pg_policy") == []


async def test_off_takes_the_rights_of_the_roles_that_nothing_restricts_any_more(owner, red_url):
    await row_level_security.disable(owner)
    async with session(red_url) as red:
        for table in TENANT_OF:
            with pytest.raises(DENIED):
                await red.fetch(f"SELECT * FROM {table}")


@pytest.mark.slow
async def test_alembic_switches_it_on_and_off_finds_no_drift_and_takes_everything_down(empty_postgres_url):
    def run(*arguments):
        return alembic("-x", f"url={empty_postgres_url}", *arguments, cwd=CHECKOUT).stdout

    for command in ("current", "history"):
        run("-x", "row_level_security=on", command)
    run("-x", "row_level_security=on", "upgrade", "head")
    assert await secured(empty_postgres_url) == schema.TABLES
    assert "No new upgrade operations" in run("check")
    run("upgrade", "head")
    assert await secured(empty_postgres_url) == schema.TABLES
    run("-x", "row_level_security=off", "upgrade", "head")
    assert await secured(empty_postgres_url) == set()

    run("-x", "row_level_security=on", "upgrade", "head")
    run("downgrade", "esource_0001")
    run("upgrade", "head")
    assert await secured(empty_postgres_url) == schema.TABLES
    run("downgrade", "base")
    left = await rows(
        empty_postgres_url,
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    assert left == [(schema.VERSION_TABLE,)]
    assert await rows(empty_postgres_url, "SELECT proname FROM pg_proc WHERE proname LIKE 'esource%'") == []


async def test_offline_the_printed_sql_switches_it_on(empty_postgres_url):
    url = empty_postgres_url
    arguments = ["-x", f"url={url}", "-x", "row_level_security=on", "upgrade", "head", "--sql"]
    await execute(url, alembic(*arguments, cwd=CHECKOUT).stdout)
    assert await secured(url) == schema.TABLES
    assert await row_level_security.is_enabled(url)


@pytest.mark.slow
async def test_mistakes_are_said_in_one_line(empty_postgres_url, tmp_path):
    sqlite = f"sqlite:///{tmp_path / 'events.db'}"
    for url, setting, message in [
        (empty_postgres_url, "maybe", "must be 'on' or 'off'"),
        (sqlite, "on", "row-level security is PostgreSQL's"),
    ]:
        arguments = ["-x", f"url={url}", "-x", f"row_level_security={setting}", "upgrade", "head"]
        finished = alembic(*arguments, cwd=CHECKOUT, ok=False)
        assert message in finished.stdout + finished.stderr
        assert "Traceback" not in finished.stdout + finished.stderr


async def test_it_needs_postgresql_and_our_tables(empty_postgres_url, sqlite_url):
    assert not await row_level_security.is_enabled(sqlite_url)
    for refused in (
        row_level_security.enable(sqlite_url),
        row_level_security.bind_role(sqlite_url, "red", RED),
    ):
        with pytest.raises(InvalidOptionError, match="PostgreSQL's"):
            await refused
    with pytest.raises(SchemaMissingError):
        await row_level_security.enable(empty_postgres_url)


async def test_a_role_is_not_bound_while_nothing_would_restrict_it(postgres_url, roles):
    role = await roles()
    with pytest.raises(InvalidOptionError, match="is not on"):
        await row_level_security.bind_role(postgres_url, role, RED)
    await row_level_security.unbind_role(postgres_url, role)
