"""Programs without an event loop: the same promises, in the caller's thread or over one loop for all threads."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from uuid import uuid4

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from support.orders import Order, OrderPlaced, placed, several

from esource.database.calls import answer_of, called
from esource.dialect.sqlite import caller
from esource.errors import (
    DatabaseUnavailableError,
    InvalidOptionError,
    OptimisticLockError,
)
from esource.sync import (
    AggregateRepository,
    CheckpointRepository,
    EventStore,
    ExpectedVersion,
    InMemoryEventStore,
    Lease,
    OutboxRelay,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    ReadOptions,
    SnapshotStore,
    handles,
    open_store,
    partition_of,
)
from esource.sync.driver import Driver, drive

counts = Table("counts", MetaData(), Column("id", Integer, primary_key=True))


def versions(store: EventStore, id_) -> list[int]:
    return [event.aggregate_version for event in store.get_events(id_, "Order").events]


def test_appends_and_reads(store: EventStore):
    id_ = uuid4()
    assert store.append_events(id_, "Order", [placed(id_)], 0).new_version == 1
    with pytest.raises(OptimisticLockError):
        store.append_events(id_, "Order", [placed(id_)], 0)
    for _ in range(300):
        store.append_events(id_, "Order", [placed(id_)])
    assert versions(store, id_) == [*range(1, 302)]
    assert [event.stream_position for event in store.read_stream(f"{id_}:Order")] == [*range(1, 302)]
    assert len([*store.read_all(ReadOptions(limit=290))]) == 290
    assert next(iter(store.read_all())).global_position >= 1
    assert store.get_global_position() > 300


def test_a_transaction_commits_or_vanishes_as_a_whole(store: EventStore):
    first, second = uuid4(), uuid4()
    with store.transaction() as tx:
        tx.connection.run_sync(counts.metadata.create_all)
    with store.transaction() as tx:
        tx.append_events(first, "Order", [placed(first)])
        store.append_events(second, "Order", [placed(second)])
        tx.connection.execute(insert(counts).values(id=1))
        tx.checkpoints.update_checkpoint("counts", uuid4(), "OrderPlaced")
        assert versions(store, first) == [1]
    assert versions(store, second) == [1]
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        tx.append_events(first, "Order", [placed(first)])
        store.append_events(second, "Order", [placed(second)])
        tx.connection.execute(insert(counts).values(id=2))
        raise ZeroDivisionError
    assert versions(store, first) == versions(store, second) == [1]
    with store.reading() as connection:
        assert connection.scalars(select(counts.c.id)).all() == [1]
    assert CheckpointRepository(store).get_checkpoint("counts") is not None


def test_many_threads_share_a_store(store: EventStore):
    ids = [uuid4() for _ in range(16)]

    def work(id_) -> None:
        for version in range(10):
            store.append_events(id_, "Order", [placed(id_)], version)
            assert versions(store, id_) == [*range(1, version + 2)]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, ids))
    positions = [event.global_position for event in store.read_all()]
    assert len(positions) == 160
    assert positions == sorted(set(positions))


def test_aggregates_are_loaded_and_saved(store: EventStore):
    snapshots = SnapshotStore(store)
    orders = AggregateRepository(store, Order, snapshot_store=snapshots, snapshot_threshold=1)
    order = orders.create_new(uuid4())
    order.place("c", 5)
    orders.save(order)
    assert orders.load(order.aggregate_id).version == 1
    assert snapshots.get_snapshot(order.aggregate_id, "Order") is not None


def test_a_projection_has_plain_handlers_in_the_callers_thread(store: EventStore):
    threads = set()

    class Counts(Projection):
        def reset(self, connection) -> None:
            connection.run_sync(counts.metadata.create_all)

        @handles(OrderPlaced)
        def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            threads.add(threading.get_ident())
            context.connection.execute(insert(counts).values(id=context.position))

    ids = [uuid4() for _ in range(20)]
    for id_ in ids:
        store.append_events(id_, "Order", [placed(id_)])
    ProjectionRunner(store, Counts()).run(live=False)
    with store.transaction() as tx:
        assert len(tx.connection.execute(select(counts)).all()) == 20
    assert threads == {threading.get_ident()}


def test_a_relay_has_a_plain_publisher(database_url: str):
    published = []

    class Publisher:
        def publish(self, entry) -> None:
            published.append(entry.aggregate_id)

    with open_store(database_url, outbox_enabled=True, enable_tracing=False) as store:
        store.initialize()
        ids = [uuid4() for _ in range(5)]
        for id_ in ids:
            store.append_events(id_, "Order", [placed(id_)])
        with OutboxRelay(store, Publisher()) as relay:
            relay.drain()
    assert sorted(published) == sorted(ids)


def test_a_time_limit_does_not_count_how_long_a_call_waits_for_the_thread(monkeypatch):
    async def work() -> str:
        loop = asyncio.get_running_loop()
        time, later = loop.time, 0

        def first() -> None:
            nonlocal later
            later = 3600
            for _ in range(3):  # an alarm that is due would go off
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)

        monkeypatch.setattr(loop, "time", lambda: time() + later)
        calls = answer_of(first), called(answer_of(lambda: "in time"), "the handler", 600, "handler_seconds")
        return (await asyncio.gather(*calls))[1]

    assert drive(work(), at_once=False) == "in time"


def test_a_call_that_was_cancelled_while_it_waited_for_the_thread_is_never_made():
    made, waiting = [], []

    async def work() -> None:
        async def cancel() -> None:
            waiting[1].cancel()

        loop = asyncio.get_running_loop()

        def first() -> None:
            made.append("first")
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(60)

        for function in (first, lambda: made.append("second"), lambda: made.append("third")):
            waiting.append(asyncio.ensure_future(answer_of(function)))
            await asyncio.sleep(0)
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [False, True, False]

    drive(work(), at_once=False)
    assert made == ["first", "third"]


def test_a_subscription_is_an_iterator_that_another_thread_can_stop(store: EventStore):
    seen = []
    subscription = store.subscribe()
    id_ = uuid4()

    def follow() -> None:
        for stored in subscription:
            seen.append(stored.global_position)
            if len(seen) == 2:
                threading.Thread(target=subscription.stop).start()

    follower = threading.Thread(target=follow)
    follower.start()
    for _ in range(2):
        store.append_events(id_, "Order", [placed(id_)])
    follower.join(60)
    assert len(seen) == 2


@pytest.mark.parametrize("partition", [None, (0, 2)], ids=["whole", "partition"])
def test_a_subscription_asks_the_thread_of_the_loop_once_for_a_page(
    store: EventStore, monkeypatch, partition: tuple[int, int] | None
):
    hops, wait = [], Driver._wait
    monkeypatch.setattr(Driver, "_wait", lambda *arguments: hops.append(1) or wait(*arguments))
    ids = [uuid4() for _ in range(8)] * 3
    with store.transaction() as tx:
        for id_ in ids:
            tx.append_events(id_, "Order", several(20, id_), ExpectedVersion.ANY)
    own = [id_ for id_ in ids for _ in range(20) if partition is None or partition_of(id_, 2) == 0]
    before = len(hops)
    with store.subscribe(live=False, partition=partition) as events:
        assert [stored.aggregate_id for stored in events] == own
        assert events.position == 480
    assert len(hops) - before < 20


def test_a_lease_is_held_in_a_block(store: EventStore):
    with Lease(store, "mailer") as lease:
        assert lease.is_held
        assert not Lease(store, "mailer").acquire()
    assert Lease(store, "mailer").acquire()


async def test_it_is_refused_where_an_event_loop_runs():
    with pytest.raises(InvalidOptionError, match="where an event loop runs"):
        InMemoryEventStore().get_global_position()


def test_a_transaction_is_refused_to_other_threads(store: EventStore):
    id_ = uuid4()
    with store.transaction() as tx:
        for context in (copy_context(), None):
            call = tx.append_events if context is None else store.append_events
            with ThreadPoolExecutor(1) as pool:
                run = (
                    pool.submit(call, id_, "Order", [placed(id_)])
                    if context is None
                    else pool.submit(context.run, call, id_, "Order", [placed(id_)])
                )
                with pytest.raises(InvalidOptionError, match="by no other"):
                    run.result()
        tx.append_events(id_, "Order", [placed(id_)])
    assert versions(store, id_) == [1]


def test_a_file_that_is_no_database_is_told_in_our_words(tmp_path: Path):
    """SQLAlchemy closes such a connection in a task, which a caller without a loop does not have."""
    path = tmp_path / "events.db"
    path.write_bytes(b"shopping: milk, bread, events " * 1000)
    store = open_store(path)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match=str(path)):
            store.open()
    path.unlink()
    store.initialize()
    assert store.get_global_position() == 0
    store.close()


def test_a_relay_runs_in_the_background_of_a_program(sqlite_url: str):
    published = threading.Semaphore(0)

    class Publisher:
        def publish(self, entry) -> None:
            published.release()

    with open_store(sqlite_url, outbox_enabled=True, synchronous="NORMAL", enable_tracing=False) as store:
        with OutboxRelay(store, Publisher()).supervised():
            id_ = uuid4()
            store.append_events(id_, "Order", [placed(id_)])
            assert published.acquire(timeout=60)


@pytest.mark.parametrize("at_once", [False, True])
def test_what_a_background_asks_as_its_caller_leaves_is_answered(at_once: bool):
    answers: SimpleQueue[int] = SimpleQueue()

    async def later(number: int) -> None:
        for _ in range(number % 4):
            await asyncio.sleep(0)
        answers.put(await answer_of(lambda: number))

    async def begin(number: int) -> None:
        tasks.append(asyncio.get_running_loop().create_task(later(number)))

    tasks: list[asyncio.Task[None]] = []
    for number in range(200):
        drive(begin(number), at_once=at_once)
    assert {answers.get(timeout=60) for _ in range(200)} == set(range(200))


def test_a_store_opens_a_fresh_file_that_another_has_locked(tmp_path: Path, monkeypatch):
    """SQLAlchemy opens it in a greenlet, which has to go on in the thread that it began in."""
    other = sqlite3.connect(tmp_path / "fresh.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    pause, waited = caller._pause, []

    async def let_go() -> None:
        waited.append(other.in_transaction)
        if other.in_transaction:
            other.execute("ROLLBACK")
        await pause()

    monkeypatch.setattr(caller, "_pause", let_go)
    try:
        with open_store(tmp_path / "fresh.db") as store:
            store.initialize()
            order = placed()
            store.append_events(order.aggregate_id, "Order", [order], 0)
            assert store.get_global_position() == 1
        assert waited[:1] == [True]
    finally:
        other.close()
