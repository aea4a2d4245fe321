"""What ends a synchronous program early: Ctrl-C, a thread that ends, a fork. Nothing is left half done."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from uuid import UUID, uuid4

import pytest
from support.orders import OrderPlaced, placed, several

from esource.database.calls import answer_of
from esource.database.cancellation import unseen
from esource.errors import DatabaseBusyError, StoreClosedError
from esource.store.subscription import Subscription
from esource.sync import (
    DLQRepository,
    EventStore,
    Projection,
    ProjectionRunner,
    Retry,
    handles,
    open_store,
)
from esource.sync.driver import _made, drive
from esource.tables.rows import VERSION, EventRow

# Ctrl-C may come before a call is driven. Then nothing of it has begun, and its coroutine is dropped.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


def versions(store: EventStore) -> list[int]:
    return [stored.stream_position for stored in store.read_all()]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_store_is_made_before_a_fork_and_used_after_it(sqlite_url: str):
    program = f"""
import os
from uuid import UUID, uuid4
from esource.sync import DomainEvent, open_store, register_event
@register_event
class Placed(DomainEvent):
    aggregate_type: str = "Order"
store = open_store({sqlite_url!r})
other = open_store({sqlite_url!r})
other.append_events(uuid4(), "Order", [Placed()])
for _ in range(3):
    if os.fork() == 0:
        with store:
            for _ in range(20):
                store.append_events(uuid4(), "Order", [Placed()])
        try:
            other.get_global_position()
        except Exception as error:
            assert "forked" in str(error), error
            os._exit(0)
        os._exit(1)
assert [os.wait()[1] for _ in range(3)] == [0, 0, 0]
assert other.get_global_position() == 61
other.close()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_thread_that_ends_inside_a_transaction_leaves_nothing_half_done(store: EventStore):
    id_, left = uuid4(), []

    def fail() -> None:
        with suppress(SystemExit), store.transaction() as tx:
            tx.append_events(id_, "Order", [placed(id_)])
            raise SystemExit

    def forget() -> None:
        block = store.transaction()
        block.__enter__().append_events(id_, "Order", [placed(id_)])

    def abandon() -> None:
        left.append(store.transaction())
        left[0].__enter__().append_events(id_, "Order", [placed(id_)])

    for version, end in enumerate((fail, forget, abandon), start=1):
        thread = threading.Thread(target=end)
        thread.start()
        thread.join(60)
        left.clear()
        assert store.append_events(id_, "Order", [placed(id_)]).new_version == version


def test_a_transaction_that_a_dead_thread_holds_open_does_not_block_the_store_for_ever(
    shared_database_url: str, monkeypatch
):
    """Its block is never left, because something still has it."""
    monkeypatch.setattr("esource.database.neighbours.STANDSTILL_SECONDS", 0.2)
    options = {"busy_timeout": 200} if shared_database_url.startswith("sqlite") else {}
    with open_store(shared_database_url, enable_tracing=False, **options) as store:
        store.initialize()
        store._target._opened.database.close_seconds = 0.05
        id_, left = uuid4(), []

        def abandon() -> None:
            left.append(store.transaction())
            left[0].__enter__().append_events(id_, "Order", [placed(id_)])

        thread = threading.Thread(target=abandon)
        thread.start()
        thread.join(60)
        with pytest.raises(DatabaseBusyError):
            store.append_events(id_, "Order", [placed(id_)])
        assert versions(store) == []
    with pytest.raises(StoreClosedError):
        left.pop().__exit__(None, None, None)
    with store:
        assert store.append_events(id_, "Order", [placed(id_)]).new_version == 1


@pytest.fixture
def default_sigint() -> Iterator[None]:
    """Ctrl-C is what it is in a program."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


def interrupt(seconds: float, work: Callable[..., object], *arguments: object) -> None:
    """Call a function, and press Ctrl-C after so many seconds, wherever it is by then."""
    main, pressed = threading.get_ident(), threading.Event()

    def press() -> None:
        time.sleep(seconds)
        signal.pthread_kill(main, signal.SIGINT)
        pressed.set()

    pressing = threading.Thread(target=press)
    with pytest.raises(KeyboardInterrupt):
        pressing.start()
        work(*arguments)
        pressed.wait(60)
        time.sleep(0)
    pressing.join()


def append(store: EventStore, id_: UUID, events: list[OrderPlaced]) -> None:
    store.append_events(id_, "Order", events)


def transact(store: EventStore, id_: UUID, events: list[OrderPlaced]) -> None:
    with store.transaction() as tx:
        for event in events:
            tx.append_events(id_, "Order", [event])


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no thread there")
@pytest.mark.parametrize(("work", "count"), [(append, 1), (append, 100), (transact, 3)])
def test_ctrl_c_leaves_nothing_half_done(store: EventStore, default_sigint, work, count):
    id_ = uuid4()
    for attempt in range(15):
        interrupt(attempt / 1500, work, store, id_, several(count, id_))
    found = versions(store)
    assert found == [*range(1, len(found) + 1)]
    assert len(found) % count == 0
    work(store, id_, several(count, id_))
    assert len([*store.read_all()]) == len(found) + count


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no thread there")
@pytest.mark.parametrize("number", [1, 3])
def test_ctrl_c_loses_no_event_of_a_subscription(store: EventStore, default_sigint, monkeypatch, number):
    """It comes while that event is fetched: the first with its page, the third from the page at hand."""
    id_ = uuid4()
    store.append_events(id_, "Order", several(4, id_))
    positions = [stored.global_position for stored in store.read_all()]
    main, pressed, belongs = threading.get_ident(), [], Subscription._belongs

    def press(subscription: Subscription, row: EventRow) -> bool:
        if row[VERSION] == number and not pressed:
            pressed.append(row)
            signal.pthread_kill(main, signal.SIGINT)
        return belongs(subscription, row)

    monkeypatch.setattr(Subscription, "_belongs", press)
    events, seen = store.subscribe(checkpoint="mails", live=False), []
    with pytest.raises(KeyboardInterrupt):
        for stored in events:
            seen.append(stored.global_position)
    assert seen == positions[: number - 1]
    assert events.position < positions[number - 1]
    events.save()
    with store.subscribe(checkpoint="mails", live=False) as others:
        assert [stored.global_position for stored in others] == positions[number - 1 :]
    assert [stored.global_position for stored in events] == positions[number - 1 :]
    events.save()
    assert [*store.subscribe(checkpoint="mails", live=False)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no thread there")
def test_ctrl_c_in_a_handler_is_no_failure_of_its(store: EventStore, default_sigint):
    """The event is handled again, and is no dead letter."""
    order = placed()
    store.append_events(order.aggregate_id, "Order", [order])
    handled, main = [], threading.get_ident()

    class Mails(Projection):
        name = "mails"
        progress = "after_event"
        retry = Retry(attempts=1)
        on_failure = "skip"

        @handles(OrderPlaced)
        def send(self, event: OrderPlaced, _: object) -> None:
            handled.append(event.event_id)
            if len(handled) == 1:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        ProjectionRunner(store, Mails()).run(live=False)
    assert DLQRepository(store).get_failed_events() == []
    ProjectionRunner(store, Mails()).run(live=False)
    assert handled == [order.event_id] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals have no thread there")
def test_ctrl_c_in_a_handler_ends_the_run_before_its_partition_begins_anew(
    store: EventStore, default_sigint, monkeypatch
):
    """The loop has all the time that it could need between the first thing that the interrupted thread tells it and the next."""
    store.append_events(UUID(int=1), "Order", [placed(UUID(int=1))])
    loop, handled, late = _made()._loop, [], []
    tell = loop.call_soon_threadsafe

    def tell_in_turn(function: Callable[..., object], *arguments: object) -> None:
        if not handled or threading.current_thread() is not threading.main_thread():
            tell(function, *arguments)
            return
        late.append(partial(tell, function, *arguments))
        if len(late) == 1:
            late[0]()
            for _ in range(100):
                turned = threading.Event()
                tell(turned.set)
                assert turned.wait(60)
        elif len(late) == 3:  # the handler was called again
            late[1]()
            late[2]()

    class Mails(Projection):
        name = "mails"
        progress = "after_event"

        @handles(OrderPlaced)
        def send(self, event: OrderPlaced, _: object) -> None:
            handled.append(event.event_id)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "call_soon_threadsafe", tell_in_turn)
    with pytest.raises(KeyboardInterrupt):
        ProjectionRunner(store, Mails()).run(live=False)
    assert len(handled) == 1


def test_a_second_ctrl_c_leaves_nothing_waiting_for_the_answer_that_the_first_one_ended(default_sigint):
    """The loop has had no turn in between, and what waits has a task of its own: the cancellation of the call ends the wait
    for it, and not the task."""
    have_asked, go_on, has_ended = threading.Event(), threading.Event(), threading.Semaphore(0)

    def first() -> None:
        assert have_asked.wait(60)
        _made().tell(go_on.wait)
        raise KeyboardInterrupt

    def second() -> None:
        raise KeyboardInterrupt

    async def ask() -> None:
        tasks = [unseen(answer_of(function)) for function in (first, second)]
        for task in tasks:
            task.add_done_callback(lambda _: has_ended.release())
        await asyncio.sleep(0)
        have_asked.set()
        await asyncio.wait(tasks)

    with pytest.raises(KeyboardInterrupt):
        drive(ask(), at_once=False)
    go_on.set()
    assert all(has_ended.acquire(timeout=30) for _ in range(2))


def test_ctrl_c_ends_a_call_that_waits_for_another_writer(shared_database_url: str, default_sigint):
    patient = {"busy_timeout": 3_600_000} if shared_database_url.startswith("sqlite") else {}
    id_ = uuid4()
    with (
        open_store(shared_database_url, enable_tracing=False) as first,
        open_store(shared_database_url, enable_tracing=False, **patient) as second,
    ):
        first.initialize()
        second.open()
        with first.transaction() as tx:
            tx.append_events(id_, "Order", [placed(id_)], 0)
            interrupt(0.1, append, second, id_, [placed(id_)])
            tx.append_events(id_, "Order", [placed(id_)], 1)
        assert second.append_events(id_, "Order", [placed(id_)], 2).new_version == 3
