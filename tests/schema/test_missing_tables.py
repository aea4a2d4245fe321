"""A table that somebody has dropped, while the version table says that all is there, is named by whoever looks."""

import re

import pytest
from support.commands import esource
from support.schemas import described, execute

from esource import open_store, schema
from esource.errors import SchemaMissingError
from esource.schema.reports import differences


@pytest.mark.parametrize("tables", [("snapshots",), ("events", "dead_letter_queue")], ids=" and ".join)
async def test_whoever_needs_the_newest_schema_says_which_tables_are_gone(shared_database_url, tables):
    await execute(shared_database_url, *(f"DROP TABLE {table}" for table in tables))
    assert await schema.current(shared_database_url) == schema.HEAD

    async with open_store(shared_database_url, enable_tracing=False) as store:
        for attempt in (store.initialize, lambda: schema.upgrade(store), lambda: schema.require_head(store)):
            with pytest.raises(SchemaMissingError, match=rf"at schema {schema.HEAD}, but lacks") as refused:
                await attempt()
            assert all(table in str(refused.value) for table in tables)
            assert refused.value.version == schema.HEAD


async def test_the_statements_that_check_prints_mend_it(shared_database_url):
    before = await described(shared_database_url)
    await execute(shared_database_url, "DROP TABLE snapshots")

    for command in ("init", "upgrade", "info"):
        done = await esource(command, "--url", shared_database_url)
        assert done.exit_code == 4
        assert "lacks the tables snapshots" in " ".join((done.stdout + done.stderr).split())
    done = await esource("check", "--url", shared_database_url)
    assert done.exit_code == 1
    assert "snapshots: missing table snapshots" in done.stdout
    for difference in await differences(shared_database_url):
        await execute(shared_database_url, difference.remedy)

    assert await described(shared_database_url) == before
    assert (await esource("check", "--url", shared_database_url)).exit_code == 0
    async with open_store(shared_database_url, enable_tracing=False) as store:
        await store.initialize()


async def test_a_table_that_is_gone_in_memory_is_named_too():
    async with open_store("sqlite://", enable_tracing=False) as store:
        await store.initialize()
        async with store.transaction() as transaction:
            await transaction.connection.exec_driver_sql("DROP TABLE event_outbox")
        with pytest.raises(SchemaMissingError, match=re.escape("lacks the tables event_outbox")):
            await store.initialize()
