"""Binding a role to a tenant, a store that such a role opens, and switching row-level security on and off."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from support.orders import Order, placed
from support.read_models import Journal, running
from support.schemas import CHECKOUT, alembic, described, execute, rows
from support.tenants import (
    BLUE,
    DENIED,
    NOBODYS,
    OURS,
    RED,
    TENANT_OF,
    THEIRS,
    as_role,
    session,
    tenants_seen,
)

from esource import (
    AggregateRepository,
    CheckpointRepository,
    DLQRepository,
    OutboxRepository,
    ProjectionRunner,
    Query,
    QueryItem,
    SnapshotStore,
    TenantMismatchError,
    schema,
)
from esource.errors import (
    CheckpointNotReachedError,
    ConstraintError,
    DatabaseReadOnlyError,
    InvalidOptionError,
    SchemaMissingError,
)
from esource.schema import row_level_security


@pytest.fixture(params=["as it is", "bound to the tenant"])
async def red_store(request, red_url, open_stores):
    store = await open_stores(red_url, outbox_enabled=True)
    return store if request.param == "as it is" else store.for_tenant(RED)


def ours(stream, **fields):
    return placed(stream, tenant_id=RED, **fields)


async def test_the_role_waits_for_a_projection_of_the_whole_log(red_store, owner, red_url):
    result = await red_store.append_events(OURS, "Order", [ours(OURS)], 3)
    with pytest.raises(CheckpointNotReachedError, match="has no position yet") as late:
        await red_store.wait_for(result, projection=Journal, timeout=0)
    assert str(BLUE) not in str(late.value)
    async with running(ProjectionRunner(owner, Journal())):
        await red_store.wait_for(result, projection=Journal, timeout=60)
        with pytest.raises(CheckpointNotReachedError, match="Its lease is held by a worker"):
            await red_store.wait_for(10**9, projection=Journal, timeout=0)
    name = Journal.name
    for other in (f"{name}@2[0/4]", f"{name}s", f"{name}[x]"):
        await CheckpointRepository(owner).save_position(other, 1, uuid4(), "OrderPlaced")
    found = await rows(red_url, f"SELECT projection_name FROM esource_progress('{name}')")
    assert sorted(row[0] for row in found) == [name, f"{name}@2[0/4]"]
    # Names cannot be found out piece by piece.
    assert await rows(red_url, f"SELECT * FROM esource_progress('{name[:-1]}')") == []
    hidden = await rows(red_url, f"SELECT * FROM esource_progress('{BLUE}:p')")
    assert (hidden, await rows(red_url, "SELECT * FROM esource_progress('')")) == ([], [])


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
    assert await rows(url, "SELECT proname::text FROM pg_proc WHERE proname LIKE 'esource%' ORDER BY 1") == [
        ("esource_append",),
        ("esource_keep_event_tags",),
        ("esource_refusal",),
        ("esource_refusals",),
    ]
    assert await rows(url, "SELECT polname FROM pg_policy") == []


async def test_off_takes_the_rights_of_the_roles_that_nothing_restricts_any_more(owner, red_url):
    await row_level_security.disable(owner)
    async with session(red_url) as red:
        for table in TENANT_OF:
            with pytest.raises(DENIED):
                await red.fetch(f"SELECT * FROM {table}")


async def test_off_leaves_the_queries_of_a_role_that_sees_everything_as_they_are(
    owner, roles, postgres_url, open_stores
):
    role = await roles()
    await execute(postgres_url, f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    await row_level_security.bind_role(owner, role, None)
    store, order = await open_stores(as_role(postgres_url, role)), uuid4()
    await owner.append_events(order, "Order", [placed(order)], 0, tags=["colour:red"])
    query = Query(QueryItem(tags=["colour:red"]))
    found = await store.read_query(query)
    await row_level_security.disable(owner)
    again = await asyncio.gather(*(store.read_query(query) for _ in range(3)))
    assert [found.events[0].event_id] == [stored.event_id for stored in found.events]
    assert again == [found] * 3


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
