"""`store.transaction()`: everything inside commits together or not at all."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from support.orders import Order, placed, several

from esource import (
    AggregateRepository,
    AppendResult,
    CheckpointRepository,
    DLQRepository,
    DuplicateEventError,
    OptimisticLockError,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
)
from esource.errors import DatabaseBusyError, InvalidOptionError, StoreClosedError

totals = Table("totals", MetaData(), Column("id", Integer, primary_key=True), Column("total", Integer))


class Undo(Exception):
    pass


async def make_table(store):
    async with store.transaction() as tx:
        await tx.connection.run_sync(totals.metadata.create_all)


async def rows_of(store):
    async with store.transaction() as tx:
        return [tuple(row) for row in await tx.connection.execute(select(totals))]


async def write_everything(tx, order):
    event = placed(order)
    await tx.append_events(order, "Order", [event], 0)
    await tx.checkpoints.save_position("totals", 1, event.event_id, "OrderPlaced")
    await tx.outbox.add_event(event)
    await tx.dead_letters.add_failed_event(event.event_id, "totals", "OrderPlaced", {}, ValueError("no"))
    await tx.snapshots.save_snapshot(Snapshot(order, "Order", 1, {"a": 1}))
    await tx.connection.execute(insert(totals).values(id=1, total=7))


async def everything_in(store, order):
    return [
        await store.get_stream_version(order, "Order"),
        await CheckpointRepository(store).get_position("totals"),
        len(await OutboxRepository(store).get_pending_events()),
        len(await DLQRepository(store).get_failed_events()),
        (await SnapshotStore(store).get_snapshot(order, "Order")) is not None,
        await rows_of(store),
    ]


async def test_everything_inside_commits_together(store):
    await make_table(store)
    order = uuid4()
    async with store.transaction() as tx:
        await write_everything(tx, order)
    assert await everything_in(store, order) == [1, 1, 1, 1, True, [(1, 7)]]


async def test_an_exception_rolls_everything_back(store):
    await make_table(store)
    order = uuid4()
    with pytest.raises(Undo):
        async with store.transaction() as tx:
            await write_everything(tx, order)
            raise Undo
    assert await everything_in(store, order) == [0, None, 0, 0, False, []]
    await store.append_events(order, "Order", [placed(order)], 0)


async def test_reads_inside_see_what_was_written_inside(store):
    order = uuid4()
    event = placed(order)
    with pytest.raises(Undo):
        async with store.transaction() as tx:
            result = await tx.append_events(order, "Order", [event], 0)
            assert result.new_version == 1
            assert await store.event_exists(event.event_id)
            assert await store.get_stream_version(order, "Order") == 1
            assert await store.get_global_position() == result.global_position
            assert [e.event_id async for e in store.read_all()] == [event.event_id]
            assert (await store.get_events(order, "Order")).events == [event]
            raise Undo
    assert not await store.event_exists(event.event_id)


async def test_reads_outside_see_nothing_before_the_commit(shared_store, shared_database_url, open_stores):
    other = await open_stores(shared_database_url)
    order = uuid4()
    async with shared_store.transaction() as tx:
        await tx.append_events(order, "Order", several(3, order), 0)
        assert await other.get_global_position() == 0
        assert [e async for e in other.read_all()] == []
    assert len([e async for e in other.read_all()]) == 3


async def test_a_task_outside_sees_nothing_before_the_commit(shared_store):
    asked, answered = asyncio.Event(), asyncio.Event()
    seen = []

    async def look():
        await asked.wait()
        seen.append(await shared_store.get_global_position())
        answered.set()

    outside = asyncio.create_task(look())
    async with shared_store.transaction() as tx:
        order = uuid4()
        await tx.append_events(order, "Order", [placed(order)])
        asked.set()
        await answered.wait()
    await outside
    assert seen == [0]


async def test_saving_an_aggregate_inside_joins_the_transaction(store):
    repository = AggregateRepository(store, Order, enable_tracing=False)
    kept, dropped = repository.create_new(uuid4()), repository.create_new(uuid4())
    kept.place("c", 1.0)
    dropped.place("c", 1.0)
    async with store.transaction():
        await repository.save(kept)
        loaded = await repository.load(kept.aggregate_id)
        loaded.ship("T-1")
        await repository.save(loaded)
    with pytest.raises(Undo):
        async with store.transaction():
            await repository.save(dropped)
            raise Undo
    assert (await repository.load(kept.aggregate_id)).state.status == "shipped"
    assert not await repository.exists(dropped.aggregate_id)


async def test_repositories_of_the_store_join_the_transaction(store):
    with pytest.raises(Undo):
        async with store.transaction():
            await CheckpointRepository(store).save_position("p", 3, uuid4(), "OrderPlaced")
            assert await CheckpointRepository(store).get_position("p") == 3
            raise Undo
    assert await CheckpointRepository(store).get_position("p") is None


async def test_a_conflict_inside_leaves_the_transaction_usable(store):
    order, other = uuid4(), uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    async with store.transaction() as tx:
        with pytest.raises(OptimisticLockError):
            await tx.append_events(order, "Order", [placed(order)], 0)
        await tx.append_events(other, "Order", [placed(other)], 0)
    assert await store.get_stream_version(order, "Order") == 1
    assert await store.get_stream_version(other, "Order") == 1


async def test_a_duplicate_inside_leaves_the_transaction_usable(store):
    order, other = uuid4(), uuid4()
    event = placed(order)
    await store.append_events(order, "Order", [event], 0)
    async with store.transaction() as tx:
        assert (await tx.append_events(order, "Order", [event], 0)).idempotent
        with pytest.raises(DuplicateEventError):
            await tx.append_events(other, "Order", [event.model_copy(update={"aggregate_id": other})])
        await tx.append_events(order, "Order", [placed(order)], 1)
    assert await store.get_stream_version(order, "Order") == 2


async def test_a_transaction_inside_another_is_a_savepoint(store):
    order = uuid4()
    async with store.transaction() as tx:
        await tx.append_events(order, "Order", [placed(order)], 0)
        with pytest.raises(Undo):
            async with store.transaction() as inner:
                await inner.append_events(order, "Order", several(3, order), 1)
                assert await store.get_stream_version(order, "Order") == 4
                raise Undo
        assert await store.get_stream_version(order, "Order") == 1
        async with store.transaction():
            await store.append_events(order, "Order", [placed(order)], 1)
    assert await store.get_stream_version(order, "Order") == 2


async def test_the_outer_rollback_takes_the_inner_commit_with_it(store):
    order = uuid4()
    with pytest.raises(Undo):
        async with store.transaction():
            async with store.transaction() as inner:
                await inner.append_events(order, "Order", [placed(order)], 0)
            raise Undo
    assert await store.get_global_position() == 0


async def test_tasks_inside_take_turns(store):
    events = [placed() for _ in range(30)]
    async with store.transaction():
        results = await asyncio.gather(
            *(store.append_events(e.aggregate_id, "Order", [e], 0) for e in events),
            *(store.get_global_position() for _ in range(5)),
        )
    assert {r.new_version for r in results[:30]} == {1}
    assert len([e async for e in store.read_all()]) == 30


async def test_a_savepoint_beside_other_tasks_is_kept_apart_from_their_statements(store):
    events = [placed() for _ in range(10)]

    async def within_a_savepoint():
        async with store.transaction() as tx:
            event = placed()
            await tx.append_events(event.aggregate_id, "Order", [event], 0)

    async with store.transaction():
        await asyncio.gather(
            within_a_savepoint(), *(store.append_events(e.aggregate_id, "Order", [e], 0) for e in events)
        )
    assert len([e async for e in store.read_all()]) == 11


async def test_what_another_task_writes_while_a_savepoint_is_open_is_rolled_back_with_it(store):
    """As `EventStore.transaction` says. If it waited instead, a savepoint that waits for it never ended."""
    inside, written = asyncio.Event(), asyncio.Event()
    kept, beside = placed(), placed()

    async def write_beside():
        await inside.wait()
        result = await store.append_events(beside.aggregate_id, "Order", [beside], 0)
        written.set()
        return result

    async with store.transaction() as tx:
        writing = asyncio.create_task(write_beside())
        await tx.append_events(kept.aggregate_id, "Order", [kept], 0)
        with pytest.raises(Undo):
            async with store.transaction():
                inside.set()
                await written.wait()
                raise Undo
        assert (await writing).new_version == 1
    assert [e.aggregate_id async for e in store.read_all()] == [kept.aggregate_id]


@pytest.mark.awaited
async def test_a_task_that_outlives_the_block_writes_nothing_after_its_rollback(store):
    """`gather` raises at the first failure and leaves the others running."""
    orders = [placed() for _ in range(20)]
    tasks = []
    with pytest.raises(Undo):
        async with store.transaction():
            tasks = [
                asyncio.create_task(store.append_events(e.aggregate_id, "Order", [e], 0)) for e in orders
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            raise Undo
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert await store.get_global_position() == 0
    # Those that had not come to their turn were refused; without a thread all may have come to it.
    assert all(isinstance(r, (AppendResult, StoreClosedError)) for r in results)


@pytest.mark.awaited
async def test_a_task_started_inside_is_on_its_own_after_the_block(store):
    go = asyncio.Event()

    async def later():
        await go.wait()
        order = uuid4()
        return await store.append_events(order, "Order", [placed(order)], 0)

    async with store.transaction():
        task = asyncio.create_task(later())
    go.set()
    assert (await task).new_version == 1
    assert await store.get_global_position() == 1


@pytest.mark.awaited
async def test_a_transaction_that_has_ended_refuses_more_work(store):
    order = uuid4()
    async with store.transaction() as tx:
        checkpoints = tx.checkpoints
    with pytest.raises(StoreClosedError, match="ended"):
        await tx.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises(StoreClosedError, match="ended"):
        await tx.connection.execute(select(1))
    with pytest.raises(StoreClosedError, match="ended"):
        await checkpoints.save_position("p", 1, uuid4(), "OrderPlaced")
    with pytest.raises(StoreClosedError, match="ended"):
        await tx.outbox.get_pending_events()
    await store.append_events(order, "Order", [placed(order)], 0)
    assert await store.get_global_position() == 1


@pytest.mark.parametrize("statement", ["append", "own"])
async def test_a_cancelled_transaction_rolls_back(store, statement):
    await make_table(store)
    order = uuid4()
    kept = placed()
    await store.append_events(kept.aggregate_id, "Order", [kept], 0)
    inside = asyncio.Event()

    async def work():
        async with store.transaction() as tx:
            await tx.append_events(order, "Order", [placed(order)], 0)
            inside.set()
            for number in range(10_000):
                if statement == "append":
                    await tx.append_events(order, "Order", [placed(order)])
                else:
                    await tx.connection.execute(insert(totals).values(id=number, total=1))
                await asyncio.sleep(0)  # in memory all of them may need no turn of the loop

    task = asyncio.create_task(work())
    await inside.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.get_stream_version(order, "Order") == 0
    assert await rows_of(store) == []
    assert await store.event_exists(kept.event_id)
    await store.append_events(order, "Order", [placed(order)], 0)
    assert await store.get_stream_version(order, "Order") == 1


@pytest.mark.awaited
async def test_cancelling_at_any_moment_leaves_no_half_transaction(store):
    await make_table(store)
    for moment in range(30):
        order = uuid4()

        async def work(order=order, number=moment):
            async with store.transaction() as tx:
                await tx.append_events(order, "Order", several(2, order), 0)
                await tx.connection.execute(insert(totals).values(id=number, total=1))
                async with store.transaction() as inner:
                    await inner.append_events(order, "Order", [placed(order)], 2)

        task = asyncio.create_task(work())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        version = await store.get_stream_version(order, "Order")
        there = (moment, 1) in await rows_of(store)
        assert (version, there) in ((0, False), (3, True))
        await store.append_events(order, "Order", [placed(order)], version)


async def test_a_failing_statement_of_the_applications_own_rolls_back(store):
    order = uuid4()
    with pytest.raises(Exception, match="no_such_table"):
        async with store.transaction() as tx:
            await tx.append_events(order, "Order", [placed(order)], 0)
            await tx.connection.exec_driver_sql("SELECT * FROM no_such_table")
    assert (await store.append_events(order, "Order", [placed(order)], 0)).new_version == 1


async def test_a_failing_statement_inside_a_savepoint_can_be_survived(store):
    order = uuid4()
    async with store.transaction() as tx:
        await tx.append_events(order, "Order", [placed(order)], 0)
        with pytest.raises(Exception, match="no_such_table"):
            async with store.transaction() as inner:
                await inner.connection.exec_driver_sql("SELECT * FROM no_such_table")
        await tx.append_events(order, "Order", [placed(order)], 1)
    assert await store.get_stream_version(order, "Order") == 2


async def test_an_append_waits_for_an_open_transaction(shared_store):
    """Another append could not be ordered against the open one: it comes after it."""
    order, other = uuid4(), uuid4()
    opened, finish = asyncio.Event(), asyncio.Event()

    async def hold():
        async with shared_store.transaction() as tx:
            await tx.append_events(order, "Order", [placed(order)], 0)
            opened.set()
            await finish.wait()

    holding = asyncio.create_task(hold())
    await opened.wait()
    waiting = asyncio.create_task(shared_store.append_events(other, "Order", [placed(other)], 0))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    finish.set()
    await holding
    await waiting
    assert [e.aggregate_id async for e in shared_store.read_all()] == [order, other]


async def test_an_aggregate_keeps_its_events_when_the_conflict_comes_inside(store):
    repository = AggregateRepository(store, Order, enable_tracing=False)
    order = repository.create_new(uuid4())
    order.place("c", 1.0)
    await repository.save(order)
    stale = repository.create_new(order.aggregate_id)
    stale.place("d", 2.0)
    async with store.transaction():
        with pytest.raises(OptimisticLockError):
            await repository.save(stale)
    assert stale.has_uncommitted_events


async def test_something_that_is_no_connection_is_refused(store):
    order = uuid4()
    with pytest.raises(InvalidOptionError, match="AsyncConnection or AsyncSession"):
        await store.append_events(order, "Order", [placed(order)], 0, connection=object())


async def append_one(to):
    event = placed()
    return await to.append_events(event.aggregate_id, "Order", [event])


async def test_a_transaction_that_awaits_an_append_made_outside_of_it_gets_that_append_s_error(
    database_url, open_stores
):
    limits: dict = {"busy_timeout": 50}
    if database_url.startswith("postgres"):
        limits = {"connect_args": {"server_settings": {"lock_timeout": "50ms"}}}
    store = await open_stores(database_url, **limits)
    may_append = asyncio.Event()

    async def append_outside():
        await may_append.wait()
        return await append_one(store)

    outside = asyncio.create_task(append_outside())  # begun before the transaction, so not inside of it
    async with store.transaction() as transaction:
        await append_one(transaction)
        may_append.set()
        with pytest.raises(DatabaseBusyError):
            await outside
        await append_one(transaction)
    assert await store.get_global_position() == 2
    assert (await append_one(store)).success
