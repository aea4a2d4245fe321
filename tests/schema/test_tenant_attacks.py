"""What a tenant's role tries, with SQL of its own, against another tenant; each on real roles of PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest
from support.orders import placed, several
from support.relays import Sink, relay_of
from support.schemas import execute, rows
from support.tenants import BLUE, DENIED, OURS, RED, THEIRS, as_role, session

from esource import OutboxRepository, schema
from esource.schema import partitioning, row_level_security

INSERT = (
    "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, "
    "payload) VALUES (gen_random_uuid(), $1, 'Order', $2, $3, $4, now(), '{}')"
)
PLANT = (
    "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id, event_data{columns}) "
    "VALUES (gen_random_uuid(), 'E', $1, 'Order', $2, '{{}}'{values})"
)


IN_PARTS = pytest.mark.parametrize("blue", ["a log in parts"], indirect=True)


@pytest.fixture(params=["a plain log", pytest.param("a log in parts", marks=pytest.mark.slow)])
async def blue(request, owner):
    """The other tenant's store."""
    if request.param == "a log in parts":
        await row_level_security.disable(owner)
        await partitioning.partition(owner)
        await row_level_security.enable(owner)
    return owner.for_tenant(BLUE)


@pytest.fixture
async def red(blue, roles, postgres_url, owner):
    """A session of a role that is bound to a tenant."""
    role = await roles()
    await row_level_security.bind_role(owner, role, RED)
    async with session(as_role(postgres_url, role)) as connection:
        yield connection


async def denied(red, statement, *arguments, match="row-level security"):
    with pytest.raises(DENIED, match=match):
        await red.execute(statement, *arguments)


async def test_a_later_version_that_is_held_open_gets_into_no_stream_of_another(red, blue):
    stream = uuid4()
    for kind in ("OrderPlaced", "StreamClosed"):
        for version in (2, 3, 2**31 - 1):
            await denied(red, INSERT, stream, kind, RED, version)
    await blue.append_events(stream, "Order", several(2, stream), 0)
    for version in (1, 2, 3):
        await denied(red, INSERT, stream, "StreamClosed", RED, version)
    assert (await blue.append_events(stream, "Order", several(1, stream), 2)).new_version == 3


async def test_of_two_that_begin_a_stream_one_has_it_and_the_other_nothing_in_it(red, blue, owner):
    stream = uuid4()
    attack = red.transaction()
    await attack.start()
    await red.execute(INSERT, stream, "OrderPlaced", RED, 1)
    await red.execute(INSERT, stream, "OrderPlaced", RED, 2)
    appending = asyncio.create_task(blue.append_events(stream, "Order", several(1, stream), 0))
    await attack.rollback()
    assert (await appending).new_version == 1
    for version in (1, 2):
        await denied(red, INSERT, stream, "OrderPlaced", RED, version)
    assert {stored.tenant_id async for stored in owner.read_all() if stored.aggregate_id == stream} == {BLUE}


async def test_many_versions_in_one_statement_follow_each_other(red, owner):
    stream = uuid4()
    await red.execute(
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, "
        "payload) SELECT gen_random_uuid(), $1, 'Order', 'OrderPlaced', $2, n, now(), '{}' "
        "FROM generate_series(1, 3) AS n",
        stream,
        RED,
    )
    assert await owner.get_stream_version(stream, "Order") == 3


async def test_an_event_that_no_reader_of_all_tenants_could_read_is_refused(red):
    for values in ("'infinity', '{}'", "'4000-01-01 BC', '{}'", "now(), '[1]'", "now(), '7'"):
        await denied(red, INSERT.replace("now(), '{}'", values), OURS, "OrderPlaced", RED, 4)


@IN_PARTS
async def test_no_role_calls_a_function_of_the_logs_triggers(red, blue, owner):
    await red.execute("CREATE TEMPORARY TABLE mine (event_id uuid)")
    for event, names, function in (
        ("INSERT", "NEW TABLE AS appended", "esource_keep_event_keys"),
        ("DELETE", "OLD TABLE AS deleted", "esource_drop_event_keys"),
    ):
        await denied(
            red,
            f"CREATE TRIGGER t AFTER {event} ON mine REFERENCING {names} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION public.{function}()",
            match="permission denied for function",
        )


@IN_PARTS
async def test_a_database_of_an_earlier_release_is_mended_by_switching_it_on_again(
    red, blue, owner, postgres_url
):
    role = await red.fetchval("SELECT session_user")
    await execute(
        postgres_url,
        "DROP POLICY esource_own_rows ON event_outbox",
        "CREATE FUNCTION esource_own_stream(a uuid, b text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        f'GRANT INSERT, UPDATE ON event_outbox TO "{role}"',
        "GRANT EXECUTE ON FUNCTION esource_keep_event_keys() TO PUBLIC",
        f'GRANT EXECUTE ON FUNCTION esource_drop_event_keys() TO "{role}"',
    )
    await row_level_security.enable(owner)
    await denied(red, "UPDATE event_outbox SET global_position = 0", match="permission denied")
    await denied(red, PLANT.format(columns="", values=""), THEIRS, RED)
    for function in ("esource_keep_event_keys()", "esource_drop_event_keys()"):
        assert not await red.fetchval(f"SELECT has_function_privilege('public.{function}', 'EXECUTE')")
    assert await rows(
        postgres_url, "SELECT pronargs::int FROM pg_proc WHERE proname = 'esource_own_stream'"
    ) == [(3,)]


@IN_PARTS
async def test_the_next_part_of_a_log_takes_the_rights_on_its_triggers_away(red, blue, owner, postgres_url):
    await execute(postgres_url, "GRANT EXECUTE ON FUNCTION esource_keep_event_keys() TO PUBLIC")
    await blue.append_events(THEIRS, "Order", several(1, THEIRS), 3)
    assert await partitioning.begin_partition(owner)
    assert not await red.fetchval(
        "SELECT has_function_privilege('public.esource_keep_event_keys()', 'EXECUTE')"
    )


async def test_a_row_of_the_outbox_neither_names_anothers_stream_nor_pushes_to_the_front(red):
    for stream, columns, values in (
        (THEIRS, "", ""),
        (OURS, ", global_position", ", 1"),
        (OURS, ", created_at", ", '2000-01-01'"),
        (OURS, ", created_at", ", 'infinity'"),
        (OURS, ", created_at", ", '-infinity'"),
    ):
        await denied(red, PLANT.format(columns=columns, values=values), stream, RED)
    for column in ("status", "claimed_by", "claimed_until", "available_at", "retry_count", "id"):
        statement = PLANT.format(columns=f", {column}", values=", DEFAULT")
        await denied(red, statement, OURS, RED, match="permission denied")
    for data in ("'[1]'", "'7'", "'null'", "NULL"):
        await denied(red, PLANT.format(columns="", values="").replace("'{}'", data), OURS, RED)
    await red.execute(PLANT.format(columns="", values=""), OURS, RED)


async def test_the_row_that_says_that_there_is_an_outbox_stays(red, owner):
    await owner.for_tenant(RED).append_events(OURS, "Order", several(1, OURS), 3)
    newest = await red.fetchval("SELECT id FROM event_outbox ORDER BY global_position DESC LIMIT 1")
    await red.execute("DELETE FROM event_outbox")
    assert [row["id"] for row in await red.fetch("SELECT id FROM event_outbox")] == [newest]


async def test_rows_that_a_tenant_keeps_locked_hold_up_nobody_elses(red, owner, blue):
    stream = uuid4()
    await owner.for_tenant(RED).append_events(stream, "Order", several(3, stream), 0)
    later = placed(THEIRS)
    await blue.append_events(THEIRS, "Order", [later], 3)
    sink = Sink()
    locked = red.transaction()
    await locked.start()
    await red.execute("SELECT 1 FROM event_outbox WHERE aggregate_id = $1 OFFSET 1 FOR UPDATE", stream)
    await relay_of(owner, sink).drain()
    assert later.event_id in sink.ids
    assert await OutboxRepository(owner).cleanup_published(1) == 0
    await locked.rollback()
    await relay_of(owner, sink).drain()
    assert (await OutboxRepository(owner).get_stats()).pending_count == 0


async def test_rows_that_it_locks_while_they_are_published_hold_up_nobody_elses(red, owner, blue):
    stream = uuid4()
    await owner.for_tenant(RED).append_events(stream, "Order", several(1, stream), 0)
    locked = red.transaction()

    class Slow(Sink):
        async def publish(self, entry):
            if entry.aggregate_id == stream:
                await locked.start()
                await red.execute("SELECT 1 FROM event_outbox WHERE aggregate_id = $1 FOR UPDATE", stream)
            await super().publish(entry)

    slow = Slow()
    await relay_of(owner, slow, lease_seconds=0.2).drain()
    assert (await OutboxRepository(owner).get_stats()).pending_count == 1
    await locked.rollback()


async def test_what_it_learns_of_a_stream_is_only_whether_its_name_is_taken(red):
    for stream in (THEIRS, OURS, uuid4()):
        assert await red.fetchval("SELECT esource_own_stream($1, 'Order', 3)", stream) == (stream == OURS)


AT = INSERT.replace("(event_id,", "(global_position, event_id,").replace("VALUES (", "VALUES ($5, ")


@pytest.mark.parametrize("first", ["bound before the row is made", "bound after it"])
async def test_where_a_row_holds_the_last_position_a_role_sends_only_those_that_it_draws_itself(
    owner, roles, postgres_url, open_stores, first
):
    role = await roles()
    if first == "bound after it":
        await row_level_security.disable(owner)
        await schema.create_append_lock(owner)
        await row_level_security.enable(owner)
    await row_level_security.bind_role(owner, role, RED)
    await schema.create_append_lock(owner)
    await execute(postgres_url, "DELETE FROM events WHERE global_position = 5")
    by_row = await open_stores(postgres_url, append_lock="row")
    store = await open_stores(as_role(postgres_url, role), append_lock="row")
    stream = uuid4()
    mine = [placed(stream, tenant_id=RED) for _ in range(3)]
    assert (await store.append_events(stream, "Order", mine, 0)).global_position == 11
    async with session(as_role(postgres_url, role)) as red:
        for position in (5, 12, 1000):
            await denied(red, AT, stream, "E", RED, 4, position)
        for statement in (
            "UPDATE esource_append_lock SET last_position = 100",
            "UPDATE esource_append_lock SET drawn_in = pg_backend_pid()",
            "DELETE FROM esource_append_lock",
            "INSERT INTO esource_append_lock (last_position) VALUES (1)",
            "SELECT FROM esource_append_lock FOR UPDATE",
        ):
            await denied(red, statement, match="permission denied")
        for number in (-1, 10**9):
            with pytest.raises(asyncpg.RaiseError):
                await red.fetchval("SELECT esource_draw_positions($1, 11)", number)
        with pytest.raises(asyncpg.RaiseError, match="has not come to position 5"):
            await red.fetchval("SELECT esource_draw_positions(1, 5)")
        assert await red.fetchval("SELECT esource_draw_positions(1, 11)") == 11
        await denied(red, AT, stream, "E", RED, 4, 12)  # of a transaction that has ended
        async with red.transaction():
            assert await red.fetchval("SELECT esource_draw_positions(1, 12)") == 12
            await red.execute(AT, stream, "E", RED, 4, 13)
    other = uuid4()
    assert (await by_row.append_events(other, "Order", [placed(other)], 0)).global_position == 14

    await schema.drop_append_lock(postgres_url)
    async with session(as_role(postgres_url, role)) as red:
        await denied(red, AT, stream, "E", RED, 5, 15, match="permission denied")
        await red.execute(INSERT, stream, "E", RED, 5)
    assert (await rows(postgres_url, "SELECT max(global_position) FROM events")) == [(15,)]
