"""Reading what one wrote: waiting until a projection, or another checkpoint, has come to a position."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from support import without_async
from support.effort import examples
from support.orders import placed
from support.projection_worker import Totals
from support.read_models import Journal, Letters, append, catch_up, rows, running, until
from support.schemas import rows as rows_of

from esource import (
    CheckpointRepository,
    EventStore,
    InvalidOptionError,
    Lease,
    ProjectionRunner,
    partition_of,
)
from esource.errors import CheckpointNotReachedError, StoreClosedError
from esource.projections import checkpoints, share
from esource.repositories import waiting

SUPPORT = Path(__file__).parents[1] / "support"
ROUNDS = examples(5)
"""How often a worker is killed; the more, the longer."""


async def append_one(store: EventStore, customer: str = "a"):
    event = placed(customer_id=customer)
    return await store.append_events(event.aggregate_id, "Order", [event])


async def save(store: EventStore, name: str, position: int) -> None:
    await CheckpointRepository(store).save_position(name, position, uuid4(), "OrderPlaced")


async def set_to(store: EventStore, name: str, position: int) -> None:
    database = store._opened.database
    async with database.transaction() as unit:
        await checkpoints.rewind(database, unit, [name], position)


@asynccontextmanager
async def waiting_for(store: EventStore, position: int, **what) -> AsyncIterator[asyncio.Task[int]]:
    """A task that waits, and has found that it has to."""
    task = asyncio.create_task(store.wait_for(position, timeout=60, **what))
    await until(lambda: store._opened.database.wake_up.awaited)
    yield task
    await task


@pytest.fixture
def unpolled(monkeypatch):
    """Nobody looks again unless something wakes him up."""
    for name in ("POLL_SECONDS", "FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(waiting, name, 600.0)


# -- what is waited for ------------------------------------------------------------------------------


async def test_what_a_projection_has_handled_already_is_not_waited_for(store):
    result = await append_one(store)
    await catch_up(store, Journal())
    assert await store.wait_for(result, projection="journal", timeout=0) == result.global_position
    assert await store.wait_for(result.global_position, projection=Journal, timeout=0) == 1
    assert await store.wait_for(0, projection=Journal(), timeout=0) == 0


async def test_an_append_is_waited_for_until_its_effect_is_there(store):
    journal = Journal()
    async with running(ProjectionRunner(store, journal)):
        for number in range(5):
            result = await append_one(store, f"c{number}")
            reached = await store.wait_for(result, projection="journal", timeout=60)
            assert reached >= result.global_position
            assert (await rows(store, journal.table, "customer"))[-1] == f"c{number}"


async def test_an_append_of_nothing_is_not_waited_for(store):
    nothing = await store.append_events(uuid4(), "Order", [])
    assert await store.wait_for(nothing, projection="never run", timeout=0) == 0


async def test_an_event_that_the_projection_does_not_handle_is_passed_over(store, monkeypatch):
    monkeypatch.setattr(share, "IDLE_SAVE_SECONDS", 0.01)
    async with running(ProjectionRunner(store, Journal())):
        result = await store.close_stream(uuid4(), "Order", -1)
        await store.wait_for(result, projection="journal", timeout=60)


async def test_a_projection_with_effects_elsewhere_is_waited_for(store):
    letters = Letters()
    async with running(ProjectionRunner(store, letters)):
        result = await append_one(store)
        await store.wait_for(result, projection=letters, timeout=60)
        assert letters.sent == [result.global_position]


async def test_a_subscription_is_waited_for_by_the_name_of_its_checkpoint(store):
    async def read(events) -> None:
        async for _ in events:
            await events.save()

    async with store.subscribe(checkpoint="mails") as events:
        reading = asyncio.create_task(read(events))
        result = await append_one(store)
        await store.wait_for(result, checkpoint="mails", timeout=60)
        assert await CheckpointRepository(store).get_position("mails") == result.global_position
        events.stop()
        await reading


async def test_the_version_that_readers_use_is_waited_for(store):
    class Second(Journal):
        name = "journal"
        version = 2

    result = await append_one(store)
    await catch_up(store, Journal())
    await set_to(store, "journal@2", 0)  # being built: readers do not use it
    await store.wait_for(result, projection="journal", timeout=0)
    await catch_up(store, Second())
    later = await append_one(store)
    await set_to(store, "journal", later.global_position)  # the old one is not looked at any more
    with pytest.raises(CheckpointNotReachedError):
        await store.wait_for(later, projection="journal", timeout=0)
    await catch_up(store, Second())
    await store.wait_for(later, projection="journal", timeout=0)


async def test_a_rebuild_is_waited_for(store):
    result = await append_one(store)
    await catch_up(store, Journal())
    await set_to(store, "journal", 0)
    with pytest.raises(CheckpointNotReachedError):
        await store.wait_for(result, projection="journal", timeout=0)


# -- partitions --------------------------------------------------------------------------------------


async def test_all_partitions_that_may_hold_the_event_are_waited_for(store):
    await append(store, *"abcdefgh")
    await catch_up(store, Journal(), partitions=3)
    event = placed()
    number = partition_of(event.aggregate_id, 3)
    result = await store.append_events(event.aggregate_id, "Order", [event])
    others = [f"journal[{other}/3]" for other in range(3) if other != number]
    for name in others:
        await set_to(store, name, result.global_position)
    with pytest.raises(CheckpointNotReachedError) as late:
        await store.wait_for(result, projection="journal", timeout=0)
    assert late.value.found == 8
    await set_to(store, f"journal[{number}/3]", result.global_position)
    # The others have nothing to do up to there, whether they have saved that or not.
    for name in others:
        await set_to(store, name, 8)
    await store.wait_for(result, projection="journal", timeout=0)


async def test_an_earlier_event_of_another_partition_is_waited_for_too(store):
    await append(store, "a")
    await catch_up(store, Journal(), partitions=2)
    events = {partition_of((event := placed()).aggregate_id, 2): event for _ in range(64)}
    async with store.transaction() as transaction:
        await transaction.append_events(events[0].aggregate_id, "Order", [events[0]])
        last = await transaction.append_events(events[1].aggregate_id, "Order", [events[1]])
    await set_to(store, "journal[1/2]", last.global_position)
    with pytest.raises(CheckpointNotReachedError):
        await store.wait_for(last, projection="journal", timeout=0)


async def test_workers_that_share_a_projection_are_waited_for(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    journal = Journal()
    async with running(*(ProjectionRunner(each, Journal(), partitions=4) for each in stores)):
        for number in range(12):
            result = await append_one(stores[0], f"c{number}")
            await stores[0].wait_for(result, projection=Journal, timeout=60)
            assert f"c{number}" in await rows(stores[0], journal.table, "customer")


# -- what wakes a waiter -----------------------------------------------------------------------------


async def test_another_process_that_saves_a_checkpoint_wakes_the_waiter(
    unpolled, shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    await save(other, "mails", 1)
    async with waiting_for(shared_store, 2, checkpoint="mails"):
        await until(lambda: shared_store._opened.database.wake_up.covers(frozenset({"mails"})))
        await save(other, "mails", 2)


async def test_a_checkpoint_that_moves_past_what_is_left_out_wakes_the_waiter(
    unpolled, shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    checkpoints_of_other = CheckpointRepository(other)
    for position in (1, 2):  # the first makes the checkpoint, the second moves it
        async with waiting_for(shared_store, position, checkpoint="mails"):
            await until(lambda: shared_store._opened.database.wake_up.covers(frozenset({"mails"})))
            await checkpoints_of_other.move_past("mails", 0, position, create=True)


async def test_all_partitions_of_a_subscription_are_waited_for(store):
    event = placed()
    number = partition_of(event.aggregate_id, 2)
    result = await store.append_events(event.aggregate_id, "Order", [event])
    for part in (1 - number, number):
        with pytest.raises(CheckpointNotReachedError):
            await store.wait_for(result, checkpoint="mails", timeout=0)
        async with store.subscribe(checkpoint="mails", partition=(part, 2), live=False) as events:
            async for _ in events:
                await events.save()
    await store.wait_for(result, checkpoint="mails", timeout=0)


async def test_a_checkpoint_that_was_not_there_before_wakes_the_waiter(
    unpolled, shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    async with waiting_for(shared_store, 2, checkpoint="mails"):
        await until(lambda: shared_store._opened.database.wake_up.covers(frozenset({"mails"})))
        await save(other, "mails", 2)


async def test_a_projection_of_another_process_that_begins_wakes_the_waiter(
    unpolled, shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    result = await append_one(other)
    async with waiting_for(shared_store, result, projection="journal"):
        await until(lambda: shared_store._opened.database.wake_up.covers(frozenset({"journal"})))
        await catch_up(other, Journal(), partitions=2)


async def test_a_task_of_the_same_store_wakes_the_waiter(unpolled, store):
    async with waiting_for(store, 2, checkpoint="mails"):
        await save(store, "mails", 2)
    async with waiting_for(store, 3, checkpoint="mails"), store.transaction() as transaction:
        await transaction.checkpoints.save_position("mails", 3, uuid4(), "OrderPlaced")


async def test_many_waiters_are_woken_each_at_its_position(
    unpolled, shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    tasks = {
        position: asyncio.create_task(shared_store.wait_for(position, checkpoint="mails", timeout=60))
        for position in range(1, 11)
    }
    await until(lambda: shared_store._opened.database.wake_up.covers(frozenset({"mails"})))
    for position in range(1, 11):
        await save(other, "mails", position)
        assert await tasks[position] >= position


async def test_a_store_without_a_watch_looks_again(postgres_url, open_stores):
    store, other = [await open_stores(postgres_url, notify=False) for _ in range(2)]
    async with waiting_for(store, 2, checkpoint="mails"):
        await save(other, "mails", 2)


async def test_no_watch_begins_where_nothing_has_to_be_waited_for(shared_store):
    await save(shared_store, "mails", 2)
    await shared_store.wait_for(2, checkpoint="mails", timeout=60)
    assert shared_store._opened.database.wake_up._watcher is None


# -- the end of a wait -------------------------------------------------------------------------------


async def test_a_wait_that_is_too_long_says_how_far_the_projection_is_and_who_holds_it(store):
    await append(store, "a")
    await catch_up(store, Journal())
    await append(store, *"bc")
    with pytest.raises(CheckpointNotReachedError) as late:
        await store.wait_for(3, projection="journal", timeout=0.05)
    error = late.value
    assert (error.checkpoint, error.position, error.found, error.head) == ("journal", 3, 1, 3)
    assert (error.owners, error.lag_seconds >= 0) == ((), True)
    assert isinstance(error, TimeoutError)
    for part in (
        "after 0.05 s journal is at position 1, not yet at 3",
        "ends at 3",
        "No worker holds its lease",
    ):
        assert part in str(error)
    async with Lease(store, "journal", owner="worker 7"):
        with pytest.raises(CheckpointNotReachedError, match="held by worker 7") as late:
            await store.wait_for(3, projection="journal", timeout=0)
    assert late.value.owners == ("worker 7",)


async def test_a_name_that_nobody_has_used_is_waited_for_and_told(store):
    await append(store, "a")
    await catch_up(store, Journal())
    with pytest.raises(
        CheckpointNotReachedError, match=r"jurnal has no position yet.*\(known are journal\)"
    ) as late:
        await store.wait_for(1, projection="jurnal", timeout=0.05)
    assert late.value.found is None
    with pytest.raises(CheckpointNotReachedError) as late:
        await store.for_tenant(uuid4()).wait_for(1, projection="jurnal", timeout=0)
    assert "known" not in str(late.value)


async def test_a_closed_store_ends_the_wait(shared_store):
    waits = asyncio.create_task(shared_store.wait_for(1, checkpoint="mails", timeout=60))
    await until(lambda: shared_store._opened.database.wake_up.awaited)
    await shared_store.close()
    with pytest.raises(StoreClosedError):
        await waits
    with pytest.raises(StoreClosedError):
        await shared_store.wait_for(1, checkpoint="mails", timeout=60)


async def test_a_cancelled_wait_ends_at_once_and_leaves_the_others_alone(store):
    tasks = [asyncio.create_task(store.wait_for(1, checkpoint="mails", timeout=60)) for _ in range(3)]
    await until(lambda: store._opened.database.wake_up.awaited)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert tasks[0].cancelled()
    await save(store, "mails", 1)
    assert await asyncio.gather(*tasks[1:]) == [1, 1]
    assert not store._opened.database.wake_up.awaited


async def test_a_database_that_does_not_answer_is_not_waited_for(postgres_url, open_stores, monkeypatch):
    monkeypatch.setattr(waiting, "ANSWER_SECONDS", 0.05)
    store, other = [await open_stores(postgres_url) for _ in range(2)]
    await save(store, "mails", 1)
    async with other.transaction() as transaction:
        await transaction.connection.exec_driver_sql(
            "LOCK TABLE projection_checkpoints IN ACCESS EXCLUSIVE MODE"
        )
        with pytest.raises(CheckpointNotReachedError, match="does not answer") as late:
            await store.wait_for(2, checkpoint="mails", timeout=0.1)
    assert late.value.head is None
    await until(lambda: not waiting._reading[store._opened.database])  # the answer comes after all


async def test_waiting_inside_a_transaction_is_refused(store):
    for block in (store.transaction, store.reading):
        async with block():
            with pytest.raises(InvalidOptionError, match="Wait outside of the block"):
                await store.wait_for(1, checkpoint="mails")


@pytest.mark.parametrize(
    ("result", "options"),
    [
        (1, {}),
        (1, {"projection": "a", "checkpoint": "a"}),
        (1, {"projection": object()}),
        (1, {"projection": ""}),
        (1, {"checkpoint": 3}),
        (-1, {"projection": "a"}),
        (None, {"projection": "a"}),
        (1, {"projection": "a", "timeout": -1}),
        (1, {"projection": "a", "timeout": float("nan")}),
    ],
)
async def test_what_cannot_be_waited_for_is_refused(store, result, options):
    with pytest.raises((InvalidOptionError, ValueError, Exception)) as refused:
        await store.wait_for(result, **options)
    assert type(refused.value).__module__ == "esource.errors"


# -- tenants -----------------------------------------------------------------------------------------


async def test_a_bound_store_waits_for_the_projection_of_the_whole_log_and_for_checkpoints_of_its_own(store):
    tenant = uuid4()
    bound = store.for_tenant(tenant)
    result = await append_one(bound)
    await catch_up(store, Journal())
    await bound.wait_for(result, projection="journal", timeout=0)
    await save(store, "mails", result.global_position)
    with pytest.raises(CheckpointNotReachedError):
        await bound.wait_for(result, checkpoint="mails", timeout=0)
    await save(bound, "mails", result.global_position)
    await bound.wait_for(result, checkpoint="mails", timeout=0)


# -- PostgreSQL tells nobody where nobody waits ------------------------------------------------------


async def locks(url: str) -> int:
    [(count,)] = await rows_of(
        url,
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE locktype = 'advisory' AND d.datname = current_database()",
    )
    return count


async def test_a_wait_that_ended_leaves_no_lock_behind(postgres_url, open_stores):
    store = await open_stores(postgres_url)
    async with store.subscribe() as events:  # the watch goes on
        reading = asyncio.ensure_future(anext(events))
        async with waiting_for(store, 1, checkpoint="mails"):
            await until(lambda: store._opened.database.wake_up.covers(frozenset({"mails"})))
            assert await locks(postgres_url) == 2  # the log's and the checkpoint's
            await save(store, "mails", 1)

        async def is_gone():
            return await locks(postgres_url) == 1

        await until(is_gone)
        events.stop()
        with pytest.raises(StopAsyncIteration):
            await reading


async def test_nobody_is_told_of_a_checkpoint_that_nobody_waits_for(postgres_url, open_stores):
    store, other = [await open_stores(postgres_url) for _ in range(2)]
    wake_up = other._opened.database.wake_up
    with wake_up.listening():
        await until(lambda: wake_up.is_watching)
        before = wake_up.saves
        await save(store, "mails", 1)
        async with waiting_for(store, 3, checkpoint="mails"):
            await until(lambda: store._opened.database.wake_up.covers(frozenset({"mails"})))
            await save(store, "others", 2)
            assert wake_up.saves == before
            await save(store, "mails", 3)
            await until(lambda: wake_up.saves == before + 1)
    await wake_up.settle()


async def test_a_wait_that_begins_while_a_checkpoint_is_moved_is_woken_by_the_commit(
    postgres_url, open_stores
):
    store, other = [await open_stores(postgres_url) for _ in range(2)]
    async with other.transaction() as transaction:
        await transaction.checkpoints.save_position("mails", 1, uuid4(), "OrderPlaced")
        waits = asyncio.create_task(store.wait_for(1, checkpoint="mails", timeout=60))
        await until(lambda: store._opened.database.wake_up.is_watching)
        assert not store._opened.database.wake_up.covers(frozenset({"mails"}))
    assert await waits == 1


# -- processes ---------------------------------------------------------------------------------------


@asynccontextmanager
async def program(name: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of `tests/support`, until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *without_async.program(SUPPORT / name),
        *map(str, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SUPPORT.parent)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_a_new_connection_sees_what_a_worker_in_another_process_was_waited_for(
    shared_store, shared_database_url
):
    async with program("projection_worker.py", shared_database_url, 1, 15):
        for _ in range(3):
            result = await append_one(shared_store)
            await shared_store.wait_for(result, projection=Totals, timeout=60)
            found = await rows_of(shared_database_url, "SELECT positions FROM totals")
            assert (str(result.global_position),) in found


@pytest.mark.slow
@pytest.mark.timeout(300 + 20 * ROUNDS)
@pytest.mark.parametrize("partitions", [1, 3])
async def test_no_wait_is_over_early_and_none_hangs_while_workers_are_killed(shared_database_url, partitions):
    async with AsyncExitStack() as programs:
        clients = [
            await programs.enter_async_context(program("waiting_client.py", shared_database_url))
            for _ in range(4)
        ]
        for _ in range(ROUNDS):
            async with AsyncExitStack() as workers:  # two, each of which is killed at its end
                for _ in range(2):
                    worker = program("projection_worker.py", shared_database_url, partitions, 0.5)
                    await workers.enter_async_context(worker)
                for client in clients:
                    assert (await client.stdout.readline()).strip().isdigit()
                await asyncio.sleep(random.random() / 5)  # at any moment
        async with program("projection_worker.py", shared_database_url, partitions, 0.5):
            for client in clients:
                output, _ = await client.communicate(b"")
                assert client.returncode == 0
                assert all(line.isdigit() for line in output.split(b"\n") if line)
