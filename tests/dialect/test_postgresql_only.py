"""What only PostgreSQL has: concurrent transactions, connections that die, schemas."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support.orders import placed, several

from esource import AppendResult, OptimisticLockError, PostgreSQLEventStore
from esource.errors import DatabaseBusyError, DatabaseReadOnlyError, DatabaseUnavailableError
from esource.tables.append_function import LAST_VERSION
from esource.testing.server import dsn


@pytest.fixture
async def store(postgres_url, open_stores):
    return await open_stores(postgres_url)


@pytest.fixture
async def admin(postgres_url):
    """A connection beside the store's own."""
    connection = await asyncpg.connect(**dsn(make_url(postgres_url)))
    yield connection
    await connection.close()


async def append_one(store):
    event = placed()
    return await store.append_events(event.aggregate_id, "Order", [event], 0)


async def terminate_all(admin):
    """End every other connection to this database, and wait until they are gone."""
    ended = await admin.fetch(
        "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    pids = [row["pid"] for row in ended]
    while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)", pids):
        await asyncio.sleep(0)
    return len(pids)


async def until_waiting(admin, count=1):
    """Wait until so many connections wait for the append lock."""
    while (
        await admin.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        < count
    ):
        await asyncio.sleep(0)


# -- plans -----------------------------------------------------------------------------------------


async def test_on_postgresql_the_plan_kept_for_an_append_stays_good_while_the_table_grows(store, admin):
    """Made while the table is so small that walking over all of it would do as well."""
    last_version = LAST_VERSION.replace("<into>", "")
    await admin.execute("SET plan_cache_mode = force_generic_plan")
    for _ in range(4):
        await asyncio.gather(*(append_one(store) for _ in range(60)))  # fewer are not analysed by themselves
        await admin.execute("ANALYZE events")
        await admin.execute(f"PREPARE one(uuid, text) AS {last_version.replace('<place>', '$1, $2')}")
        await admin.execute(
            "PREPARE many(uuid[], text[]) AS SELECT coalesce(("
            + last_version.replace("<place>", "s.id, s.type")
            + "), 0) "
            "FROM unnest($1, $2) AS s(id, type)"
        )
        for name in ("one", "many"):
            plan = await admin.fetch(f"EXPLAIN EXECUTE {name}(NULL, NULL)")
            assert "using uq_events_aggregate_version" in "\n".join(row[0] for row in plan)
        await admin.execute("DEALLOCATE one")
        await admin.execute("DEALLOCATE many")


# -- order -----------------------------------------------------------------------------------------


async def test_a_later_append_is_not_visible_before_an_earlier_position(
    store, postgres_url, open_stores, admin
):
    other = await open_stores(postgres_url)
    async with store.transaction() as tx:
        first = placed()
        await tx.append_events(first.aggregate_id, "Order", [first])
        later = asyncio.create_task(append_one(other))
        await until_waiting(admin)
        assert await admin.fetchval("SELECT count(*) FROM events") == 0
        assert not later.done()
    assert (await later).global_position == 2


async def test_a_version_that_changed_while_waiting_for_the_lock_is_a_conflict(
    store, postgres_url, open_stores, admin
):
    """The waiting statement's snapshot is older than the lock it gets: it must look again."""
    order, other, more = await open_stores(postgres_url), await open_stores(postgres_url), uuid4()
    stream = uuid4()
    async with store.transaction() as tx:
        await tx.append_events(stream, "Order", [placed(stream)], 0)
        stale = asyncio.create_task(order.append_events(stream, "Order", [placed(stream)], 0))
        behind = asyncio.create_task(other.append_events(stream, "Order", [placed(stream)]))
        beside = asyncio.create_task(other.append_events(more, "Order", [placed(more)], 0))
        await until_waiting(admin, 2)
    with pytest.raises(OptimisticLockError) as caught:
        await stale
    assert caught.value.actual_version >= 1
    assert (await behind).new_version == 2
    assert (await beside).new_version == 1


async def test_stores_in_different_schemas_do_not_wait_for_each_other(store, postgres_url, admin):
    await admin.execute("CREATE SCHEMA second")
    engine = create_async_engine(
        make_url(postgres_url).set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": {"search_path": "second"}},
    )
    async with PostgreSQLEventStore(engine, enable_tracing=False) as second:
        await second.initialize()
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event])
            assert (await append_one(second)).global_position == 1
    await engine.dispose()


async def test_the_lock_waits_no_longer_than_the_servers_timeout(postgres_url, store):
    engine = create_async_engine(
        make_url(postgres_url).set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": {"lock_timeout": "20ms"}},
    )
    async with PostgreSQLEventStore(engine, enable_tracing=False) as hasty:
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event])
            results = await asyncio.gather(*(append_one(hasty) for _ in range(3)), return_exceptions=True)
        assert {type(result) for result in results} == {DatabaseBusyError}
        assert (await append_one(hasty)).success
    await engine.dispose()


async def test_a_pooler_that_forbids_writing_is_a_clear_error(postgres_url):
    engine = create_async_engine(
        make_url(postgres_url).set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": {"default_transaction_read_only": "on"}},
    )
    async with PostgreSQLEventStore(engine, enable_tracing=False) as store:
        with pytest.raises(DatabaseReadOnlyError, match="primary"):
            await append_one(store)
        assert await store.get_global_position() == 0
    await engine.dispose()


# -- connections that die --------------------------------------------------------------------------


async def test_held_connections_that_died_are_replaced(store, admin):
    await append_one(store)
    await asyncio.gather(*(store.get_global_position() for _ in range(5)))
    async with store.transaction():
        pass
    for position in range(2, 5):
        assert await terminate_all(admin)
        assert (await append_one(store)).global_position == position
        await terminate_all(admin)
        assert await store.get_global_position() == position
        await terminate_all(admin)
        async with store.transaction() as tx:
            assert await store.get_global_position() == position
            assert tx.connection is not None


async def test_a_transaction_whose_connection_died_is_an_error_and_the_next_one_works(store, admin):
    event = placed()
    with pytest.raises(DatabaseUnavailableError):
        async with store.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event])
            await terminate_all(admin)
            await tx.append_events(event.aggregate_id, "Order", [placed(event.aggregate_id)])
    async with store.transaction() as tx:
        await tx.append_events(event.aggregate_id, "Order", [event], 0)
    assert await store.get_global_position() > 0


async def test_an_append_whose_connection_dies_while_it_waits_is_written_once(
    store, postgres_url, open_stores, admin
):
    other = await open_stores(postgres_url)
    async with store.transaction() as tx:
        first = placed()
        await tx.append_events(first.aggregate_id, "Order", [first])
        events = [placed() for _ in range(3)]
        waiting = [asyncio.create_task(other.append_events(e.aggregate_id, "Order", [e], 0)) for e in events]
        await until_waiting(admin)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        await until_waiting(admin)
    results = await asyncio.gather(*waiting)
    assert [r.new_version for r in results] == [1, 1, 1]
    assert Counter([e.event_id async for e in store.read_all()]) == Counter(
        e.event_id for e in [first, *events]
    )


async def test_a_commit_whose_answer_was_lost_is_found_by_its_event_ids(store):
    """The server has committed, the client never hears of it: no conflict with itself."""
    backend = store._opened.database.backend
    order, stored = uuid4(), []

    class Answerless(type(backend)):
        async def append(self, driver, plan, *, commit):
            written = await super().append(driver, plan, commit=commit)
            if not stored:
                stored.append(written)
                driver.terminate()
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
            return written

    store._opened.database.backend = Answerless()
    events = several(2, order)
    other = placed()
    one, two, conflict = await asyncio.gather(
        store.append_events(order, "Order", events, 0),
        store.append_events(other.aggregate_id, "Order", [other], 0),
        store.append_events(order, "Order", [placed(order)], 0),
        return_exceptions=True,
    )
    assert (one.new_version, one.global_position, two.global_position) == (2, 2, 3)
    assert isinstance(conflict, OptimisticLockError)
    assert await store.get_global_position() == 3


async def test_terminating_connections_at_random_loses_and_repeats_nothing(store, admin):
    acknowledged, unknown = [], []
    done = asyncio.Event()

    async def write(number):
        chance = random.Random(number)
        for _ in range(25):
            events = several(chance.randint(1, 3))
            try:
                result = await store.append_events(events[0].aggregate_id, "Order", events, 0)
            except DatabaseUnavailableError:
                unknown.extend(e.event_id for e in events)
            else:
                assert result.new_version == len(events)
                acknowledged.extend(e.event_id for e in events)

    async def kill():
        # Each time something was written, so that every append has its chance on a busy machine.
        for goal in range(20, 220, 20):
            while len(acknowledged) < goal and not done.is_set():
                await asyncio.sleep(0.001)
            await terminate_all(admin)

    killing = asyncio.create_task(kill())
    await asyncio.gather(*(write(n) for n in range(8)))
    done.set()
    await killing
    log = Counter([e.event_id async for e in store.read_all()])
    assert set(log.values()) == {1}
    assert set(acknowledged) <= set(log) <= {*acknowledged, *unknown}
    assert not unknown  # a server that is back at once is no reason to fail


async def test_a_server_that_stays_away_fails_all_waiting_appends_at_once(store, admin, monkeypatch):
    """And not one after the other, each after the same time of trying."""
    await append_one(store)
    database = store._opened.database
    database.retry_seconds = 0.2
    tries = []

    async def refuse():
        tries.append(1)
        raise ConnectionRefusedError(111, "Connect call failed")

    connections = database.connections
    for place, name in ((connections, "connect"), (connections.writers, "_connect")):
        monkeypatch.setattr(place, name, refuse)
    await terminate_all(admin)
    results = await asyncio.gather(*(append_one(store) for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} <= {DatabaseUnavailableError}
    assert len(tries) < 50
    monkeypatch.undo()
    assert (await append_one(store)).global_position == 2


async def test_cancelling_appends_at_random_leaves_connections_clean(store, admin):
    for moment in range(40):
        tasks = [asyncio.create_task(append_one(store)) for _ in range(5)]
        for _ in range(moment % 8):
            await asyncio.sleep(0)
        tasks[moment % 5].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, AppendResult) for result in results) >= 4
    idle_inside = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND state LIKE 'idle in transaction%'"
    )
    assert idle_inside == 0


# -- transactions of the application that keep an old snapshot ---------------------------------------


@pytest.fixture
async def snapshot(store, postgres_url):
    """Begins transactions whose snapshot is taken at once; closes them afterwards."""
    engine = create_async_engine(make_url(postgres_url).set(drivername="postgresql+asyncpg"))
    async with AsyncExitStack() as opened:

        async def begin(level):
            connection = await opened.enter_async_context(engine.connect())
            await connection.execution_options(isolation_level=level)
            await connection.exec_driver_sql("SELECT count(*) FROM events")
            return connection

        yield begin
    await engine.dispose()


@pytest.mark.parametrize("expected", [0, 1])
async def test_a_conflict_that_a_repeatable_read_transaction_cannot_see_is_still_a_conflict(
    store, snapshot, expected
):
    order = uuid4()
    if expected:
        await store.append_events(order, "Order", [placed(order)], 0)
    connection = await snapshot("REPEATABLE READ")
    await store.append_events(order, "Order", [placed(order)], expected)
    with pytest.raises(OptimisticLockError) as conflict:
        await store.append_events(order, "Order", [placed(order)], expected, connection=connection)
    assert (conflict.value.expected_version, conflict.value.actual_version) == (expected, expected + 1)
    await connection.rollback()
    assert await store.get_stream_version(order, "Order") == expected + 1


async def test_a_conflict_that_a_serializable_transaction_cannot_see_is_an_error_of_ours(store, snapshot):
    """The server may name the constraint or report a serialization failure, as it finds out first."""
    order = uuid4()
    connection = await snapshot("SERIALIZABLE")
    await store.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises((OptimisticLockError, DatabaseBusyError)):
        await store.append_events(order, "Order", [placed(order)], 0, connection=connection)


@pytest.mark.parametrize("same", ["stream", "event"])
async def test_what_an_old_snapshot_cannot_judge_says_read_committed(store, snapshot, same):
    event = placed()
    connection = await snapshot("REPEATABLE READ")
    await store.append_events(event.aggregate_id, "Order", [event])
    late = (
        placed(event.aggregate_id)
        if same == "stream"
        else placed().model_copy(update={"event_id": event.event_id})
    )
    with pytest.raises(DatabaseBusyError, match="READ COMMITTED"):
        await store.append_events(late.aggregate_id, "Order", [late], connection=connection)
    await connection.rollback()
    assert await store.get_global_position() == 1
