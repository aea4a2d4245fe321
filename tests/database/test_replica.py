"""A store on a streaming replica, made by pg_basebackup. nox's session `replica` runs these.

The replica's replay is paused and resumed here, so that "behind" is a fact and no matter of luck.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from support.orders import placed

from esource import CheckpointRepository, open_store, schema
from esource.errors import DatabaseReadOnlyError, DatabaseUnavailableError, PositionNotReachedError
from esource.testing.server import dsn, new_database


@pytest.fixture
async def pair(replicated):
    """One log, as two stores: on the primary, and on the replica once it knows the tables."""
    with new_database(make_url(replicated.primary)) as url:
        name = make_url(url).database
        await schema.upgrade(url)
        replica_url = make_url(replicated.replica).set(database=name).render_as_string(hide_password=False)
        async with open_store(url, enable_tracing=False) as primary:
            await caught_up(replicated)
            async with open_store(replica_url, enable_tracing=False) as replica:
                yield primary, replica


async def caught_up(replicated):
    async with session(replicated.primary) as primary, session(replicated.replica) as replica:
        here = await primary.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        while not await replica.fetchval("SELECT pg_last_wal_replay_lsn() >= CAST($1::text AS pg_lsn)", here):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def session(url):
    connection = await asyncpg.connect(**dsn(make_url(url)))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def behind(replicated):
    """The replica stays where it is for as long as the block runs."""
    async with session(replicated.replica) as connection:
        await connection.execute("SELECT pg_wal_replay_pause()")
        while await connection.fetchval("SELECT pg_get_wal_replay_pause_state()") != "paused":
            await asyncio.sleep(0.01)
        try:
            yield
        finally:
            await connection.execute("SELECT pg_wal_replay_resume()")


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


async def test_reads_work_and_writes_are_refused_in_one_sentence(pair):
    primary, replica = pair
    result = await append_one(primary)
    await replica.wait_for_position(result.global_position, timeout_seconds=10)
    [stored] = [stored async for stored in replica.read_all()]
    assert stored.global_position == result.global_position
    assert (await replica.get_events(stored.event.aggregate_id)).version == 1
    await replica.initialize()  # nothing to do, and nothing is tried
    event = placed()
    for refused in (
        append_one(replica),
        CheckpointRepository(replica).save_position("p", 1, stored.event_id, "OrderPlaced"),
        schema.downgrade(replica, "0001"),
    ):
        with pytest.raises(DatabaseReadOnlyError, match="This is a read-only replica"):
            await refused
    with pytest.raises(DatabaseReadOnlyError, match="This is a read-only replica"):
        async with replica.transaction():
            await replica.append_events(event.aggregate_id, "Order", [event])
    assert await append_one(primary)


async def test_positions_become_visible_on_the_replica_in_their_order_while_many_append(pair):
    primary, replica = pair
    seen, done = [], asyncio.Event()

    async def follow():
        async with replica.subscribe(0, poll_seconds=0.005) as subscription:
            async for stored in subscription:
                seen.append(stored.global_position)
                if len(seen) == 400:
                    return

    async def in_a_transaction():  # a connection of its own, and so a commit of its own
        for _ in range(25):
            async with primary.transaction():
                await append_one(primary)

    following = asyncio.create_task(follow())
    await asyncio.gather(*(in_a_transaction() for _ in range(8)), *(append_one(primary) for _ in range(200)))
    await asyncio.wait_for(following, 30)
    assert seen == [stored.global_position async for stored in primary.read_all()]


async def test_what_was_written_is_read_from_the_replica_after_waiting_for_its_position(pair, replicated):
    primary, replica = pair
    async with behind(replicated):
        result = await append_one(primary)
        assert await replica.get_global_position() == 0
        with pytest.raises(PositionNotReachedError) as late:
            await replica.wait_for_position(result.global_position, timeout_seconds=0.2)
        assert (late.value.position, late.value.found) == (result.global_position, 0)
        waiting = asyncio.create_task(replica.wait_for_position(result.global_position, timeout_seconds=30))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert await replica.get_global_position() == result.global_position


async def test_a_promoted_replica_has_everything_that_was_acknowledged_and_readers_go_on_without_a_gap(
    two_servers,
):
    """Where commits wait for the replica (`synchronous_standby_names`); else what it was not sent yet is gone."""
    async with session(two_servers.primary) as connection:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
    await schema.upgrade(two_servers.primary)
    acknowledged, seen = [], []
    async with open_store(two_servers.primary, enable_tracing=False, retry_seconds=0.1) as primary:

        async def write():
            while True:
                acknowledged.append((await append_one(primary)).global_position)

        writers = [asyncio.create_task(write()) for _ in range(4)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0.005)
        async for stored in primary.subscribe(live=False):
            seen.append(stored.global_position)
        await asyncio.to_thread(two_servers.fail_over)
        ends = await asyncio.gather(*writers, return_exceptions=True)
    assert {type(end) for end in ends} == {DatabaseUnavailableError}
    async with open_store(two_servers.replica, enable_tracing=False) as promoted:
        after = await append_one(promoted)
        async for stored in promoted.subscribe(seen[-1], live=False):
            seen.append(stored.global_position)
        log = [stored.global_position async for stored in promoted.read_all()]
    assert set(acknowledged) <= set(log)
    assert seen == log
    assert log[-1] == after.global_position > max(acknowledged)
