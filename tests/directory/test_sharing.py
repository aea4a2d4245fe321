"""Stores of a directory share the connections to their server, and none works in another's log."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from support.orders import placed
from support.read_models import until
from support.schemas import rows

from esource.errors import InvalidOptionError

NAMES = ["blue", "green", "red", "white"]


async def append_one(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    return event.event_id


async def all_of(store):
    return [stored.event_id async for stored in store.read_all()]


async def logs_of(directory):
    for name in NAMES:
        await directory.create(name)
    return [await directory.log(name) for name in NAMES]


async def test_all_logs_of_a_server_work_at_once_on_few_connections(empty_postgres_url, open_directories):
    directory = await open_directories(empty_postgres_url, pool_size=2, max_overflow=1)
    stores = await logs_of(directory)
    seen = {store: [] for store in stores}

    async def follow(store):
        async for stored in store.subscribe(poll_seconds=0.5):
            seen[store].append(stored.event_id)

    async def work(store):
        ids = [await append_one(store) for _ in range(3)]
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
        return [*ids, event.event_id]

    following = [asyncio.create_task(follow(store)) for store in stores]
    written = await asyncio.gather(*map(work, stores))
    assert [await all_of(store) for store in stores] == written
    await until(lambda: list(seen.values()) == written)
    [(count,)] = await rows(
        empty_postgres_url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'",
    )
    assert count <= 3
    for task in following:
        task.cancel()
    await asyncio.wait(following)


async def test_what_the_application_sets_in_a_transaction_concerns_no_other_log(
    empty_postgres_url, open_directories
):
    directory = await open_directories(empty_postgres_url, pool_size=1, max_overflow=1)
    blue, green, *_ = await logs_of(directory)
    event = await append_one(green)
    async with blue.transaction() as tx:
        await tx.connection.execute(text("SET search_path TO red"))
    assert await all_of(green) == [event]
    assert await all_of(blue) == []
    other = await append_one(blue)
    assert (await all_of(blue), await all_of(green)) == ([other], [event])


async def test_a_cancelled_call_leaves_no_connection_in_another_log(empty_postgres_url, open_directories):
    directory = await open_directories(empty_postgres_url, pool_size=1, max_overflow=1)
    stores = await logs_of(directory)
    written = {store: await append_one(store) for store in stores}
    for turn in range(24):
        task = asyncio.create_task(all_of(stores[turn % 4]))
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        store = stores[(turn + 1) % 4]
        assert await all_of(store) == [written[store]]


async def test_files_that_nobody_uses_are_closed_and_opened_again(tmp_path, open_directories):
    directory = await open_directories(f"sqlite:///{tmp_path / 'logs.db'}", most_files=2)
    stores = await logs_of(directory)

    def open_files():
        return [store for store in stores if store.reader.database.connections.server.connections.is_ready]

    written = [await append_one(store) for store in stores]
    await until(lambda: len(open_files()) <= 2)
    assert [await all_of(store) for store in stores] == [[each] for each in written]
    await until(lambda: len(open_files()) <= 2)
    async with stores[0].transaction(), stores[1].transaction(), stores[2].transaction():
        await all_of(stores[3])
        assert {stores[0], stores[1], stores[2]} <= set(open_files())


async def test_a_file_that_was_in_use_when_it_was_one_too_many_is_closed_afterwards(
    tmp_path, open_directories
):
    directory = await open_directories(f"sqlite:///{tmp_path / 'logs.db'}", most_files=1)
    stores = await logs_of(directory)

    def are_open():
        return [store.reader.database.connections.server.connections.is_ready for store in stores]

    async with stores[0].transaction(), stores[1].transaction():
        await all_of(stores[2])
        await all_of(stores[3])
        await until(lambda: are_open() == [True, True, False, True])
    await until(lambda: are_open() == [False, False, False, True])


async def test_a_directory_can_be_opened_again(directory):
    [blue, *_] = await logs_of(directory)
    event = await append_one(blue)
    await directory.close()
    await directory.open()
    assert await all_of(await directory.log("blue")) == [event]


async def test_positions_come_from_a_row_in_all_logs_if_that_is_said(empty_postgres_url, open_directories):
    directory = await open_directories(empty_postgres_url, append_lock="row")
    await directory.create("red")
    red = await directory.log("red")
    events = [await append_one(red) for _ in range(2)]
    await directory.move("red", "?schema=elsewhere")
    events.append(await append_one(red))
    assert [stored.global_position async for stored in red.read_all()] == [1, 2, 3]
    assert await all_of(red) == events


async def test_a_pooler_that_lends_connections_for_a_transaction_is_refused(open_directories):
    with pytest.raises(InvalidOptionError, match="share connections"):
        await open_directories("postgresql://user@host/database", transaction_pooling=True)
