"""Names that become parts of statements on PostgreSQL: of roles, schemas, and of the database moved to.

SQLite has no roles and no schemas; what its triggers say is tested here as well.
"""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed

from adversity.hostile.corpus import INJECTIONS
from esource import EventSourceError, InvalidOptionError, schema
from esource.dialect.urls import moving_of
from esource.errors import StoreMovedError
from esource.schema import partitioning, roles, row_level_security
from esource.tables import events
from esource.testing.server import dsn


async def ask(url: str, statement: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(**dsn(make_url(url)))
    try:
        return await connection.fetch(statement, *values)
    finally:
        await connection.close()


@pytest.mark.parametrize("name", INJECTIONS.values(), ids=INJECTIONS)
async def test_a_fence_says_what_it_was_told_and_does_no_more(shared_store, name):
    database = shared_store._opened.database
    moving = moving_of(database.backend)
    order = uuid4()
    await shared_store.append_events(order, "Order", [placed(order)], 0)
    async with database.transaction() as unit:
        await moving.fence(unit.driver, [events], name)
    assert await database.inspect(moving.moved_to) == name
    with pytest.raises(StoreMovedError) as caught:
        await shared_store.append_events(order, "Order", [placed(order)])
    assert caught.value.moved_to == name
    async with database.transaction() as unit:
        await moving.unfence(unit.driver, [events])
    assert (await shared_store.append_events(order, "Order", [placed(order)])).new_version == 2


async def test_roles_get_the_names_that_were_asked_for_on_postgresql(empty_postgres_url):
    for number, name in enumerate(INJECTIONS.values()):
        wanted = {who: f"{number}{who[0]} {name}"[:60] for who in ("migrator", "writer", "reader")}
        try:
            await roles.create_roles(empty_postgres_url, schema=f"{number} {name}"[:60], **wanted)
            found = await ask(
                empty_postgres_url,
                "SELECT count(*) FROM pg_roles WHERE rolname = ANY($1)",
                list(wanted.values()),
            )
            assert found[0][0] == 3
            assert await ask(
                empty_postgres_url, "SELECT FROM pg_namespace WHERE nspname = $1", f"{number} {name}"[:60]
            )
        finally:
            for role in wanted.values():
                quoted = '"' + role.replace('"', '""') + '"'
                await ask(empty_postgres_url, f"DROP OWNED BY {quoted} CASCADE")
                await ask(empty_postgres_url, f"DROP ROLE {quoted}")


async def test_a_role_of_any_name_is_bound_to_its_tenant_on_postgresql(postgres_url):
    await row_level_security.enable(postgres_url)
    for name in INJECTIONS.values():
        quoted = '"' + name.replace('"', '""') + '"'
        with pytest.raises(InvalidOptionError, match="no role"):
            await row_level_security.bind_role(postgres_url, name, UUID(int=1))
        await ask(postgres_url, f"CREATE ROLE {quoted} LOGIN")
        try:
            await row_level_security.bind_role(postgres_url, name, UUID(int=1))
            granted = "SELECT has_table_privilege($1, 'events', 'SELECT')"
            assert (await ask(postgres_url, granted, name))[0][0]
            await row_level_security.unbind_role(postgres_url, name)
            assert not (await ask(postgres_url, granted, name))[0][0]
        finally:
            await ask(postgres_url, f"DROP ROLE {quoted}")
    await row_level_security.disable(postgres_url)


async def test_a_part_of_the_log_is_detached_by_its_name_whatever_that_is_on_postgresql(postgres_url):
    await partitioning.partition(postgres_url)
    for name in INJECTIONS.values():
        with pytest.raises(InvalidOptionError, match="no closed part"):
            await partitioning.detach(postgres_url, name)
    renamed = "e; DROP--'\"_0"
    assert len(renamed) == len("events_from_0")
    await ask(postgres_url, 'ALTER TABLE events_from_0 RENAME TO "{}"'.format(renamed.replace('"', '""')))
    await partitioning.detach(postgres_url, renamed)
    assert [part.name for part in await partitioning.partitions(postgres_url)] == ["events_from_1"]
    found = await ask(postgres_url, "SELECT relispartition FROM pg_class WHERE relname = $1", renamed)
    assert [tuple(row) for row in found] == [(False,)]
    await ask(postgres_url, 'DROP TABLE "{}"'.format(renamed.replace('"', '""')))
    await partitioning.merge(postgres_url)


@pytest.mark.parametrize("revision", [*INJECTIONS.values(), "0001:0002", "\x00", ""])
async def test_a_revision_is_no_statement(shared_store, revision):
    for command in (schema.upgrade, schema.downgrade):
        with pytest.raises(Exception, match=r".") as caught:
            await command(shared_store, revision)
            pytest.fail("was taken")
        assert isinstance(caught.value, EventSourceError) or "CommandError" in type(caught.value).__name__
    assert await shared_store.get_global_position() == 0
