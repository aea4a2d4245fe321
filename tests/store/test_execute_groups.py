"""Commands on one aggregate that wait at the same time are stored by one append."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from support.orders import Order, OrderPlaced

from esource import AggregateRepository, OptimisticLockError, Retry, sync
from esource.errors import DatabaseUnavailableError, InvalidEventError
from esource.store import groups

SHORT = Retry(attempts=3, first_seconds=0.001, longest_seconds=0.001)


class RefusalError(Exception):
    """What a command raises that has changed the state."""


class Tally(Order):
    aggregate_type = "Order"

    def add(self, name: str, total: float = 1.0) -> None:
        self.apply_event(OrderPlaced(customer_id=name, total=total))

    def add_once(self, name: str) -> None:
        if self.current.customer_id != name:
            self.add(name)

    def spoil(self) -> None:
        self.add("spoiled")
        self.current.customer_id = "spoiled, too"
        raise RefusalError


@pytest.fixture
def tallies(store):
    return AggregateRepository(store, Tally, retry=SHORT)


@pytest.fixture
def appends(store, monkeypatch):
    """How many events each append had; the errors put in here are raised by the next ones."""
    append = store.append_events
    noted = []
    noted_errors = []

    async def append_events(aggregate_id, aggregate_type, events, expected_version):
        noted.append(len(events))
        if noted_errors:
            raise noted_errors.pop(0)
        return await append(aggregate_id, aggregate_type, events, expected_version)

    monkeypatch.setattr(store, "append_events", append_events)
    return noted, noted_errors


@asynccontextmanager
async def held(tallies, i):
    """Commands that are begun in this block wait until its end, in their order."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(order):
        begun.set()
        await go_on.wait()

    holder = asyncio.create_task(tallies.execute(i, hold))
    await begun.wait()
    yield
    await asyncio.sleep(0)  # each has begun, and waits
    go_on.set()
    await holder


async def begun(tallies, i, *commands):
    async with held(tallies, i):
        return [asyncio.create_task(tallies.execute(i, *command)) for command in commands]


async def stored(store, i):
    return [event.customer_id for event in (await store.get_events(i, "Order")).events]


@pytest.fixture
async def i(tallies):
    await tallies.execute_or_create(i := uuid4(), Tally.add, "first")
    return i


async def test_they_share_an_append_and_each_has_its_own_version(tallies, store, i, appends):
    tasks = await begun(
        tallies, i, (Tally.add, "a"), (Tally.add, "b"), (Tally.add_once, "b"), (Tally.add, "c")
    )
    results = await asyncio.gather(*tasks)
    assert appends[0] == [3]
    end = await store.get_global_position()
    assert [(r.new_version, r.global_position) for r in results] == [(2, end), (3, end), (3, 0), (4, end)]
    assert await stored(store, i) == ["first", "a", "b", "c"]
    assert (await tallies.execute(i, Tally.add, "d")).new_version == 5


async def test_one_that_raises_leaves_nothing_of_itself_in_what_the_others_see(tallies, store, i, appends):
    first, spoiler, last = await begun(
        tallies,
        i,
        (Tally.add, "a"),
        (Tally.spoil,),
        (lambda order: order.add(order.current.customer_id + "!"),),
    )
    with pytest.raises(RefusalError):
        await spoiler
    assert [(await first).new_version, (await last).new_version] == [2, 3]
    assert appends[0] == [2]
    assert await stored(store, i) == ["first", "a", "a!"]


async def test_if_the_first_one_raises_the_others_go_on(tallies, store, i):
    spoiler, last = await begun(tallies, i, (Tally.spoil,), (Tally.add, "a"))
    with pytest.raises(RefusalError):
        await spoiler
    assert (await last).new_version == 2
    assert await stored(store, i) == ["first", "a"]


async def test_after_a_conflict_all_of_them_are_called_again_and_a_refusal_too(tallies, store, i, appends):
    """The second one refuses what the first one has made of the aggregate, and that comes to nothing."""
    calls = []

    def add_the_first_time(order):
        calls.append("first")
        if calls.count("first") == 1:
            order.add("b")

    def refuse_b(order):
        calls.append(order.current.customer_id)
        if order.current.customer_id == "b":
            raise RefusalError

    appends[1][:] = [OptimisticLockError("Order", i, 1, 2)]
    first, second = await begun(tallies, i, (add_the_first_time,), (refuse_b,))
    assert [(await first).new_version, (await second).new_version] == [1, 1]
    assert calls[:2] == ["first", "b"]
    assert await stored(store, i) == ["first"]


async def test_conflicts_without_end_are_told_to_all_of_them(tallies, store, i, appends):
    appends[1][:] = [OptimisticLockError("Order", i, 1, 2)] * 20
    tasks = await begun(tallies, i, (Tally.add, "a"), (Tally.add, "b"))
    for task in tasks:
        with pytest.raises(OptimisticLockError):
            await task
    appends[1].clear()
    assert (await tallies.execute(i, Tally.add, "c")).new_version == 2


async def test_an_event_that_may_not_be_stored_is_the_fault_of_its_command_alone(tallies, store, i):
    first, wrong, last = await begun(
        tallies, i, (Tally.add, "a"), (Tally.add, "b", float("nan")), (Tally.add, "c")
    )
    with pytest.raises(InvalidEventError):
        await wrong
    assert sorted([(await first).new_version, (await last).new_version]) == [2, 3]
    assert sorted(await stored(store, i)) == ["a", "c", "first"]


async def test_if_it_is_unknown_what_became_of_the_append_none_of_them_is_called_again(
    tallies, store, i, appends
):
    appends[1][:] = [DatabaseUnavailableError("the answer was lost")]
    tasks = await begun(tallies, i, (Tally.add, "a"), (Tally.add, "b"))
    for task in tasks:
        with pytest.raises(DatabaseUnavailableError):
            await task
    assert appends[0] == [2]
    assert (await tallies.execute(i, Tally.add, "c")).new_version == 2  # nothing was kept in memory


async def test_the_first_one_may_be_cancelled_while_it_lets_the_others_go_before(tallies, store, i):
    tasks = []

    def cancels_the_first(order):
        tasks[0].cancel()
        order.add("b")

    async with held(tallies, i):
        for command in ((Tally.add, "a"), (cancels_the_first,), (Tally.add, "c")):
            tasks.append(asyncio.create_task(tallies.execute(i, *command)))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert sorted([(await tasks[1]).new_version, (await tasks[2]).new_version]) == [2, 3]
    assert sorted(await stored(store, i)) == ["b", "c", "first"]


async def test_the_first_one_may_be_cancelled_during_the_append_of_all(tallies, store, i, monkeypatch):
    append, sent, go_on = store.append_events, asyncio.Event(), asyncio.Event()

    async def slow(*arguments, **options):
        sent.set()
        await go_on.wait()
        return await append(*arguments, **options)

    monkeypatch.setattr(store, "append_events", slow)
    first, second = await begun(tallies, i, (Tally.add, "a"), (Tally.add, "b"))
    await sent.wait()
    first.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).new_version == 3
    assert await stored(store, i) == ["first", "a", "b"]


async def test_one_that_is_cancelled_behind_the_first_holds_nobody_up(tallies, store, i):
    tasks = []

    def cancels_the_second(order):
        tasks[1].cancel()
        order.add("c")

    async with held(tallies, i):
        for command in ((Tally.add, "a"), (Tally.add, "b"), (cancels_the_second,)):
            tasks.append(asyncio.create_task(tallies.execute(i, *command)))
    assert (await tasks[0]).success
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    await tasks[2]
    assert await stored(store, i) == ["first", "a", "b", "c"]  # it was part of what the third has seen


async def test_one_that_awaits_something_waits_for_nobody_and_nobody_for_it(tallies, store, i, appends):
    go_on = asyncio.Event()

    async def slow(order, name):
        await go_on.wait()
        order.add(name)

    first, slow_one, last = await begun(tallies, i, (Tally.add, "a"), (slow, "b"), (Tally.add, "c"))
    assert (await first).new_version == 2
    go_on.set()
    assert [(await slow_one).new_version, (await last).new_version] == [3, 4]
    assert appends[0] == [1, 1, 1]


async def test_other_repositories_store_what_waits_before_their_own(tallies, store, i):
    others = [AggregateRepository(store, Tally, retry=Retry(attempts=1)) for _ in range(3)]
    async with held(tallies, i):
        tasks = [
            asyncio.create_task(others[number % 3].execute(i, Tally.add, str(number))) for number in range(12)
        ]
    assert sorted([(await task).new_version for task in tasks]) == list(range(2, 14))


async def test_a_group_is_stored_when_it_has_many_events(tallies, store, i, appends, monkeypatch):
    monkeypatch.setattr(groups, "GROUP_EVENTS", 2)
    tasks = await begun(tallies, i, *((Tally.add, str(number)) for number in range(5)))
    assert sorted([(await task).new_version for task in tasks]) == [2, 3, 4, 5, 6]
    assert appends[0] == [2, 2, 1]


async def test_their_publisher_is_told_once_of_each_event_in_order(store):
    told = []

    class Publisher:
        async def publish(self, events):
            await asyncio.sleep(0)
            told.extend(event.customer_id for event in events)

    tallies = AggregateRepository(store, Tally, event_publisher=Publisher())
    await tallies.execute_or_create(i := uuid4(), Tally.add, "first")
    tasks = await begun(tallies, i, *((Tally.add, str(number)) for number in range(4)))
    await asyncio.gather(*tasks)
    assert told == ["first", "0", "1", "2", "3"]


async def test_what_many_tasks_of_two_stores_execute_is_stored_once_each(
    shared_store, shared_database_url, open_stores
):
    patient = Retry(attempts=1000, first_seconds=0.001, longest_seconds=0.02)
    stores = [shared_store, await open_stores(shared_database_url)]
    both = [AggregateRepository(each, Tally, retry=patient) for each in stores]
    await both[0].execute_or_create(i := uuid4(), Tally.add, "first")

    async def work(number):
        versions = []
        for step in range(5):
            try:
                result = await both[number % 2].execute(i, Tally.add, f"{number}-{step}")
                versions.append(result.new_version)
                await both[number % 2].execute(i, Tally.spoil)
            except RefusalError:
                continue
        return versions

    versions = [version for each in await asyncio.gather(*map(work, range(8))) for version in each]
    assert sorted(versions) == list(range(2, 42))
    names = await stored(shared_store, i)
    assert sorted(names) == sorted(["first", *(f"{n}-{s}" for n in range(8) for s in range(5))])


@pytest.mark.parametrize("execution", ["caller", "thread"])
def test_threads_of_a_program_without_an_event_loop_take_turns(shared_database_url, execution):
    options = {"execution": execution} if shared_database_url.startswith("sqlite") else {}
    with sync.open_store(shared_database_url, **options) as store:
        tallies = sync.AggregateRepository(store, Tally, retry=Retry(attempts=1))
        tallies.execute_or_create(i := uuid4(), Tally.add, "first")

        def work(number):
            for step in range(5):
                tallies.execute(i, Tally.add, f"{number}-{step}")
                with pytest.raises(RefusalError):
                    tallies.execute(i, Tally.spoil)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(work, range(6)))
        names = [event.customer_id for event in store.get_events(i, "Order").events]
        assert sorted(names) == sorted(["first", *(f"{n}-{s}" for n in range(6) for s in range(5))])


async def test_no_command_is_called_again_while_another_task_stores_it(tallies, store):
    i = uuid4()
    await tallies.execute_or_create(i, Tally.add, "first")
    calls, joining = [], []

    def lead(tally):
        calls.append("lead")
        tally.add("leads")
        if not joining:  # one that waits is cancelled, and another comes, in the same turn of the loop
            waiting.cancel()
            joining.append(asyncio.create_task(tallies.execute(i, Tally.add, "joins")))

    async with held(tallies, i):
        leading = asyncio.create_task(tallies.execute(i, lead))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(tallies.execute(i, Tally.add, "waits"))
    await asyncio.gather(leading, *joining)

    assert calls == ["lead"]
    stream = await store.get_events(i, "Order")
    assert [event.customer_id for event in stream.events] == ["first", "leads", "joins"]


async def test_the_publisher_is_told_of_a_group_whose_first_command_is_cancelled(store, monkeypatch):
    told = []

    class Publisher:
        async def publish(self, events):
            told.extend(event.customer_id for event in events)

    tallies = AggregateRepository(store, Tally, event_publisher=Publisher())
    i = uuid4()
    await tallies.execute_or_create(i, Tally.add, "before")
    append = store.append_events

    async def append_events(*arguments, **keywords):
        first.cancel()
        await asyncio.sleep(0)  # the cancellation arrives before the events are stored
        return await append(*arguments, **keywords)

    async with held(tallies, i):
        first, *others = [asyncio.create_task(tallies.execute(i, Tally.add, name)) for name in "abc"]
        monkeypatch.setattr(store, "append_events", append_events)
    assert len(await asyncio.gather(*others)) == 2
    with pytest.raises(asyncio.CancelledError):
        await first

    assert told == ["before", "a", "b", "c"]
