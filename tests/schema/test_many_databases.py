"""Many databases in one process, one for each tenant: they are created and migrated at once, and none meets another."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.engine import make_url
from support.schemas import described, execute, rows

from esource import open_store, schema
from esource.schema.reports import offline_script

NUMBER = 5


@pytest.fixture
def urls(request, empty_database_url, tmp_path):
    """The URLs of many fresh databases: files, or schemas of one PostgreSQL database."""
    if empty_database_url.startswith("sqlite"):
        return [f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(NUMBER)]
    databases = request.getfixturevalue("postgres_databases")
    from contextlib import ExitStack

    stack = ExitStack()
    request.addfinalizer(stack.close)
    return [stack.enter_context(databases.without_tables()) for _ in range(NUMBER)]


async def are_all_the_same(urls):
    expected = await described(urls[0])
    assert await schema.current(urls[0]) == schema.HEAD
    for url in urls[1:]:
        assert await described(url) == expected
        assert await schema.current(url) == schema.HEAD


async def test_stores_on_many_fresh_databases_are_initialized_at_once(urls):
    stores = [open_store(url, enable_tracing=False) for url in urls]

    await asyncio.gather(*(store.initialize() for store in stores))

    await asyncio.gather(*(store.close() for store in stores))
    await are_all_the_same(urls)


@pytest.mark.slow
async def test_databases_at_different_revisions_are_upgraded_at_once_each_from_its_own(urls):
    for number, url in enumerate(urls):
        if number % 4:
            await schema.upgrade(url, ["0001", "0002", "0003"][number % 4 - 1])

    await asyncio.gather(*(schema.upgrade(url) for url in urls))

    await are_all_the_same(urls)


@pytest.mark.slow
async def test_some_go_up_while_others_go_down_and_sql_is_printed(urls):
    await asyncio.gather(*(schema.upgrade(url, "0002") for url in urls))
    kind = make_url(urls[0]).get_backend_name()
    alone = offline_script(f"{kind}://")

    async def print_meanwhile():
        for _ in range(20):
            assert offline_script(f"{kind}://") == alone
            await asyncio.sleep(0)

    await asyncio.gather(
        *(
            schema.upgrade(url) if number % 2 else schema.downgrade(url, "0001")
            for number, url in enumerate(urls)
        ),
        print_meanwhile(),
    )

    for number, url in enumerate(urls):
        assert await schema.current(url) == (schema.HEAD if number % 2 else "0001")
    await asyncio.gather(*(schema.upgrade(url) for url in urls))
    await are_all_the_same(urls)


async def test_threads_with_event_loops_of_their_own_migrate_at_once(urls):
    def in_a_thread(url):
        asyncio.run(schema.upgrade(url))

    with ThreadPoolExecutor(4) as threads:
        await asyncio.gather(
            *(asyncio.get_running_loop().run_in_executor(threads, in_a_thread, url) for url in urls)
        )

    await are_all_the_same(urls)


@pytest.mark.slow
async def test_the_version_that_older_code_has_recorded_is_known_and_brought_up_to_date(empty_database_url):
    """Before the ids had a prefix, the version table held the bare number."""
    url = empty_database_url
    await schema.upgrade(url)
    expected = await described(url)
    for number in schema.REVISIONS:
        await schema.downgrade(url, "base")
        await schema.upgrade(url, number)
        await execute(url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '{number}'")
        assert await schema.current(url) == number

        async with open_store(url, enable_tracing=False) as store:
            await store.initialize()
        await schema.upgrade(url)

        assert await schema.current(url) == schema.HEAD
        assert await described(url) == expected
        assert await rows(url, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [
            (f"esource_{schema.HEAD}",)
        ]
