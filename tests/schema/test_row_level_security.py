"""Roles bound to a tenant, on PostgreSQL, the only one of the databases that has roles.

The sessions here are those of the real roles, authenticated as themselves: nothing is tested by a superuser
that pretends.
"""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from support.schemas import execute, rows
from support.tenants import (
    BLUE,
    DENIED,
    NOBODYS,
    OURS,
    RED,
    TENANT_OF,
    THEIRS,
    session,
    tenants_seen,
)

from esource import (
    AppendCondition,
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventRegistry,
    OutboxRepository,
    Query,
    QueryItem,
    SnapshotStore,
    Tag,
    schema,
)
from esource.copying import fill_tags
from esource.errors import DatabaseReadOnlyError, TagsIncompleteError
from esource.schema import row_level_security

ONLY_RED = dict.fromkeys(TENANT_OF, {RED})


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
    f"UPDATE event_outbox SET tenant_id = '{BLUE}'",
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


TAGGED = INSERT.replace("payload)", "payload, tags)").replace(
    "'{}')", "'{}', CAST(CAST($4 AS text) AS jsonb))"
)


@pytest.mark.parametrize("enabled_by", ["enable", "an upgrade"])
async def test_tags_by_hand_are_those_that_an_append_could_have_written(
    red_url, owner, postgres_url, enabled_by
):
    policies = "SELECT tablename, policyname, cmd, qual, with_check FROM pg_policies ORDER BY 1, 2"
    if enabled_by == "an upgrade":
        before = await rows(postgres_url, policies)
        await schema.downgrade(owner, "0003")
        await schema.upgrade(owner)
        assert await rows(postgres_url, policies) == before
    longest = "x" * 255
    async with session(red_url) as red:
        for tags in (
            '[["k:z"], "k:z"]',
            "[{}]",
            "[null]",
            "[1]",
            '[""]',
            "[]",
            "{}",
            '"k:z"',
            "null",
            f'["{longest}x"]',
        ):
            with pytest.raises(DENIED, match="row-level security"):
                await red.execute(TAGGED, OURS, RED, 4, tags)
        await red.execute(TAGGED, OURS, RED, 4, f'["k:z", "{longest}"]')
        await red.execute(TAGGED, OURS, RED, 5, None)
    assert [sorted(stored.tags) async for stored in owner.read_all()][-2:] == [["k:z", longest], []]


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


async def test_a_tag_is_looked_up_without_reading_the_tenants_whole_log(red_url, owner, postgres_url):
    await execute(
        postgres_url,
        "INSERT INTO events (event_id, aggregate_id, aggregate_type, event_type, tenant_id, version, timestamp, payload, tags) "
        f"SELECT gen_random_uuid(), gen_random_uuid(), 'Order', 'OrderPlaced', '{RED}', 1, now(), '{{}}', "
        "jsonb_build_array('hot') FROM generate_series(1, 3000)",
        "ANALYZE events, event_tags",
    )
    async with session(red_url) as red:
        plan = "\n".join(
            row[0] for row in await red.fetch("EXPLAIN SELECT FROM event_tags WHERE tag = 'hot' LIMIT 1000")
        )
    assert "events_pkey" in plan
    assert "Seq Scan on events" not in plan


class Booked(DomainEvent):
    room: Annotated[str, Tag("room")]


async def test_a_tenants_query_waits_for_tags_that_the_owner_is_filling(
    red_url, owner, postgres_url, open_stores
):
    registry = EventRegistry()
    registry.register(Booked)
    red = await open_stores(red_url, event_registry=registry)
    writer = await open_stores(postgres_url, event_registry=registry)
    blue_room = Query(QueryItem(tags=["room:blue"]))
    for tenant_id in (RED, BLUE):
        await writer.append([Booked(room="blue", tenant_id=tenant_id)], tags=["seen"])
    await execute(
        postgres_url,
        "UPDATE events SET tags = NULL WHERE event_type = 'Booked'",
        "INSERT INTO tag_fillings VALUES ('Booked', 'room', 0, NULL)",
    )
    with pytest.raises(DatabaseReadOnlyError):
        await fill_tags(red, registry=registry)
    with pytest.raises(TagsIncompleteError):
        await red.read_query(blue_room)
    with pytest.raises(TagsIncompleteError):
        await red.append([Booked(room="blue", tenant_id=RED)], condition=AppendCondition(blue_room, 0))
    assert (await fill_tags(owner, registry=registry)).filled == 2
    assert [stored.tenant_id for stored in (await red.read_query(blue_room)).events] == [RED]
    async with session(red_url) as as_red:
        for forbidden in (
            "UPDATE tag_fillings SET completed_at = now()",
            "DELETE FROM tag_fillings",
            "INSERT INTO tag_fillings VALUES ('Booked', 'x', 0, NULL)",
            "UPDATE events SET tags = NULL",
        ):
            with pytest.raises(DENIED):
                await as_red.execute(forbidden)
