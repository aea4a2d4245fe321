"""Running a projection: to the end of the log, live, in each way of saving progress."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import select, text
from support.orders import OrderPlaced, placed
from support.read_models import Journal, Letters, append, catch_up, rows, running, ship, until

from esource import (
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventRegistry,
    EventStore,
    Every,
    InvalidOptionError,
    Projection,
    ProjectionContext,
    ProjectionFailedError,
    ProjectionRunner,
    UntypedEvent,
    handles,
)
from esource.tables.rows import EVENT_TYPE, STORED_AT


async def test_a_projection_handles_the_log_in_order_and_only_once(store: EventStore):
    positions = await append(store, *"abc")
    journal = Journal()
    runner = await catch_up(store, journal)
    assert await rows(store, journal.table, "position") == positions
    await runner.run(live=False)
    positions += await append(store, "d")
    await runner.run(live=False)
    assert await rows(store, journal.table, "position") == positions


async def test_a_live_projection_handles_what_is_appended(store: EventStore):
    journal = Journal()
    before = await append(store, "a")
    async with running(ProjectionRunner(store, journal, poll_seconds=600)):
        await until(lambda: len(journal.calls) == 1)
        after = await append(store, "b", "c")
        await until(lambda: len(journal.calls) == 3)
    assert await rows(store, journal.table, "position") == before + after


async def test_a_live_projection_goes_on_without_any_notification(store: EventStore):
    journal = Journal()
    async with running(ProjectionRunner(store, journal, poll_seconds=0.05)):
        store._opened.database.wake_up.set = lambda: None
        await append(store, "a", "b")
        await until(lambda: len(journal.calls) == 2)
        del store._opened.database.wake_up.set


async def test_a_batch_is_one_transaction_with_one_checkpoint(store: EventStore):
    class Batched(Journal):
        name = "batched"
        batch_size = 4

    await append(store, *"abcdefghij")
    batched, reports = Batched(), []
    await ProjectionRunner(store, batched).run(live=False, on_progress=reports.append)
    assert [report.events for report in reports] == [4, 8, 10]
    assert [report.head for report in reports] == [10, 10, 10]
    assert [report.position for report in reports] == [4, 8, 10]
    assert await rows(store, batched.table, "customer") == list("abcdefghij")


async def test_the_checkpoint_moves_past_what_is_not_handled(store: EventStore):
    stream = uuid4()
    await append(store, "a", stream=stream)
    for _ in range(5):
        last = await ship(store, stream)
    journal = Journal()
    await catch_up(store, journal)
    saved = await CheckpointRepository(store).get_checkpoint_data("journal")
    assert (saved.global_position, saved.last_event_type, saved.events_processed) == (last, "OrderPlaced", 1)
    assert journal.calls == ["a"]


async def test_only_handled_types_are_fetched(store: EventStore, monkeypatch):
    stream = uuid4()
    await append(store, "a", stream=stream)
    await ship(store, stream)
    fetched = []
    database = store._opened.database
    read = database.rows

    async def spy(statement, values, unit=None):
        found = await read(statement, values, unit)
        fetched.extend(row[EVENT_TYPE] for row in found if len(row) > STORED_AT)
        return found

    monkeypatch.setattr(database, "rows", spy)
    await catch_up(store, Journal())
    assert fetched == ["OrderPlaced"]


async def test_progress_after_each_event_is_saved_each_time(store: EventStore):
    positions = await append(store, *"abc")
    letters, saved = Letters(), []
    checkpoints = CheckpointRepository(store)

    class Watching(Letters):
        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            saved.append(await checkpoints.get_position("watching"))

        name = "watching"

    await catch_up(store, letters)
    await catch_up(store, Watching())
    assert letters.sent == positions
    assert saved == [0, *positions[:2]]
    assert await checkpoints.get_position("letters") == positions[-1]


async def test_progress_is_saved_every_so_many_events(store: EventStore):
    positions = await append(store, *"abcdefg")
    checkpoints, saved = CheckpointRepository(store), []

    class Seldom(Letters):
        name = "seldom"
        progress = Every(events=3, seconds=600)

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            saved.append(await checkpoints.get_position("seldom"))

    await catch_up(store, Seldom())
    assert saved == [0, 0, 0, positions[2], positions[2], positions[2], positions[5]]
    assert await checkpoints.get_position("seldom") == positions[-1]


async def test_progress_is_saved_after_so_many_seconds(store: EventStore):
    class Sometimes(Letters):
        name = "sometimes"
        progress = Every(events=1000, seconds=0.05)

    letters, checkpoints = Sometimes(), CheckpointRepository(store)
    async with running(ProjectionRunner(store, letters, poll_seconds=600)):
        [position] = await append(store, "a")

        async def is_saved():
            return await checkpoints.get_position("sometimes") == position

        await until(is_saved)


async def test_a_stopped_runner_saves_what_it_has_done_and_lets_go(store: EventStore):
    class Seldom(Letters):
        name = "seldom"
        progress = Every(events=1000, seconds=600)

    letters = Seldom()
    async with running(ProjectionRunner(store, letters)):
        positions = await append(store, *"abc")
        await until(lambda: letters.sent == positions)
    assert await CheckpointRepository(store).get_position("seldom") == positions[-1]
    await asyncio.wait_for(catch_up(store, Seldom()), 30)  # its lease is free


async def test_a_runner_that_is_stopped_before_it_begins_does_not_run(store: EventStore):
    await append(store, "a")
    journal = Journal()
    runner = ProjectionRunner(store, journal)
    task = asyncio.create_task(runner.run())
    runner.stop()
    await asyncio.wait_for(task, 30)
    assert journal.calls == []
    with pytest.raises(InvalidOptionError, match="stopped"):
        await runner.rebuild()


@pytest.mark.awaited
async def test_a_cancelled_runner_saves_what_it_has_done_and_lets_go(store: EventStore):
    class Seldom(Letters):
        name = "seldom"
        progress = Every(events=1000, seconds=600)

    letters = Seldom()
    task = asyncio.create_task(ProjectionRunner(store, letters).run())
    positions = await append(store, *"abc")
    await until(lambda: letters.sent == positions)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await CheckpointRepository(store).get_position("seldom") == positions[-1]


async def test_a_handler_may_append(store: EventStore):
    """A process manager: the event that it appends commits with its checkpoint."""

    class Follows(Journal):
        name = "follows"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            if event.customer_id != "answer":
                answer = placed(customer_id="answer")
                await store.append_events(answer.aggregate_id, "Order", [answer])

    await append(store, *"abc")
    await catch_up(store, Follows())
    found = [stored.event.customer_id async for stored in store.read_all()]
    assert found == [*"abc", *["answer"] * 3]


async def test_a_method_for_a_base_class_is_for_all_below_it(store: EventStore):
    seen = []

    class All(Projection):
        @handles(DomainEvent)
        async def any_event(self, event: DomainEvent, context: ProjectionContext) -> None:
            seen.append((event.event_type, context.stored.stream_position, context.tenant_id))

    stream = uuid4()
    await append(store, "a", stream=stream)
    await ship(store, stream)
    await catch_up(store, All())
    assert seen == [("OrderPlaced", 1, None), ("OrderShipped", 2, None)]


@pytest.mark.parametrize(("policy", "expected"), [("skip", []), ("untyped", [UntypedEvent] * 2)])
async def test_events_without_a_class_follow_the_stores_policy(
    database_url, open_stores, policy: str, expected: list
):
    store = await open_stores(database_url, event_registry=EventRegistry(), unknown_events=policy)
    seen = []

    class All(Projection):
        @handles(DomainEvent)
        async def any_event(self, event: DomainEvent, context: ProjectionContext) -> None:
            seen.append(type(event))

    await append(store, "a", "b")
    await catch_up(store, All())
    assert seen == expected
    assert await CheckpointRepository(store).get_position("All") == 2


async def test_a_handler_without_a_transaction_has_no_connection(store: EventStore):
    class Wrong(Letters):
        name = "wrong"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            with pytest.raises(InvalidOptionError, match="in_transaction"):
                context.connection  # noqa: B018
            self.sent.append(0)

    await append(store, "a")
    wrong = Wrong()
    await catch_up(store, wrong)
    assert wrong.sent == [0]


async def test_a_runner_refuses_what_makes_no_sense(store: EventStore):
    class Empty(Projection):
        pass

    with pytest.raises(InvalidOptionError, match="handles"):
        ProjectionRunner(store, Empty())
    with pytest.raises(InvalidOptionError, match="partitions"):
        ProjectionRunner(store, Journal(), partitions=0)
    with pytest.raises(InvalidOptionError, match="lease_seconds"):
        ProjectionRunner(store, Journal(), lease_seconds=0)
    with pytest.raises(InvalidOptionError, match="poll_seconds"):
        ProjectionRunner(store, Journal(), poll_seconds=-1)
    async with store.transaction():
        with pytest.raises(InvalidOptionError, match="transaction"):
            await ProjectionRunner(store, Journal()).run(live=False)
    runner = ProjectionRunner(store, Journal())
    async with running(runner):
        await until(lambda: runner._job.stats.is_running)
        with pytest.raises(InvalidOptionError, match="already"):
            await runner.run()


def test_a_projection_refuses_what_makes_no_sense():
    with pytest.raises(InvalidOptionError, match="both handle"):

        class Twice(Projection):
            @handles(OrderPlaced)
            async def one(self, event: OrderPlaced, context: ProjectionContext) -> None: ...

            @handles(OrderPlaced)
            async def two(self, event: OrderPlaced, context: ProjectionContext) -> None: ...

    for options in (
        {"name": "orders@2"},
        {"name": "orders[1/2]"},
        {"version": 0},
        {"batch_size": 0},
        {"progress": "never"},
        {"on_failure": "ignore"},
    ):
        with pytest.raises(InvalidOptionError):
            type("Wrong", (Projection,), options)
    with pytest.raises(InvalidOptionError):
        Every(events=0)


# -- writing in batches ----------------------------------------------------------------------------


class Bulk(Journal):
    """The same read model, written through `ProjectionContext.write`."""

    name = "bulk"
    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.insert = self.table.insert()

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        context.write(
            self.insert,
            {"position": context.position, "customer": event.customer_id, "total": event.total},
        )
        if event.customer_id in self.bad:
            raise ValueError(f"cannot stand {event.customer_id}")
        if event.customer_id == "look":
            self.calls += [row[0] for row in await context.connection.execute(select(self.table.c.customer))]
            await context.flush()
            self.calls += [row[0] for row in await context.connection.execute(select(self.table.c.customer))]


async def test_what_handlers_write_is_there_with_the_checkpoint(store: EventStore):
    positions = await append(store, *"abcdefghij")
    bulk = Bulk()
    await catch_up(store, bulk)
    assert await rows(store, bulk.table, "position") == positions
    assert await rows(store, bulk.table, "customer") == list("abcdefghij")


async def test_what_was_written_is_seen_after_a_flush(store: EventStore):
    await append(store, "a", "look", "b")
    bulk = Bulk()
    await catch_up(store, bulk)
    assert bulk.calls == ["a", "look"]
    assert await rows(store, bulk.table, "customer") == ["a", "look", "b"]


async def test_a_failing_handlers_writes_vanish_with_it(store: EventStore):
    await append(store, *"abxcdexf")
    bulk = Bulk()
    bulk.bad, bulk.on_failure = {"x"}, "skip"
    await catch_up(store, bulk)
    assert await rows(store, bulk.table, "customer") == list("abcdef")


async def test_a_write_that_the_database_refuses_is_traced_to_its_event(store: EventStore):
    class Unique(Bulk):
        name = "unique"
        on_failure = "skip"

        async def reset(self, connection):
            await super().reset(connection)
            await connection.exec_driver_sql(
                f"CREATE UNIQUE INDEX once_{self.version} ON journal_1 (customer)"
            )

    await append(store, *"abcbda")
    unique = Unique()
    await catch_up(store, unique)
    assert await rows(store, unique.table, "customer") == list("abcd")
    letters = await DLQRepository(store).get_failed_events()
    assert [letter.event_data["customer_id"] for letter in letters] == ["b", "a"]


async def test_writing_needs_the_transaction(store: EventStore):
    class Elsewhere(Bulk):
        name = "elsewhere"
        progress = "after_event"

    await append(store, "a")
    with pytest.raises(ProjectionFailedError, match="in_transaction"):
        await catch_up(store, Elsewhere())


def test_an_event_of_a_class_that_no_method_is_for_has_no_handler():
    """As when another class stands under a type that is handled."""

    class Stranger(DomainEvent):
        event_type: str = "OrderPlaced"

    assert Journal().handler(OrderPlaced) is not None
    assert Journal().handler(Stranger) is None


async def test_a_checkpoint_ahead_of_the_log_is_refused_until_a_rebuild(store: EventStore):
    positions = await append(store, "a")
    journal = Journal()
    await catch_up(store, journal)
    await CheckpointRepository(store).save_position("journal", positions[-1] + 10, uuid4(), "OrderPlaced")
    with pytest.raises(InvalidOptionError, match="restored from an older copy"):
        await catch_up(store, journal)
    await ProjectionRunner(store, journal).rebuild()
    assert await rows(store, journal.table, "position") == positions


async def test_another_class_under_one_name_is_refused(store: EventStore):
    class Impostor(Letters):
        name = Journal.name

    workers = [ProjectionRunner(store, Journal()) for _ in range(2)]
    async with running(*workers):
        await until(lambda: all(worker.health_now().is_running for worker in workers))
        with pytest.raises(InvalidOptionError, match="are both called 'journal'"):
            await ProjectionRunner(store, Impostor()).run(live=False)
    await append(store, "a")
    impostor = Impostor()
    await catch_up(store, impostor)
    assert impostor.sent == [1]


async def test_a_projection_outlives_a_lock_timeout(postgres_url, open_stores):
    limits = {"connect_args": {"server_settings": {"lock_timeout": "20ms"}}}
    store, other = await open_stores(postgres_url, **limits), await open_stores(postgres_url)
    letters = Letters()
    runner = ProjectionRunner(store, letters)
    async with running(runner):
        positions = await append(other, "a")
        await until(lambda: letters.sent == positions)
        async with other.transaction() as transaction:
            await transaction.connection.execute(text("LOCK TABLE events IN ACCESS EXCLUSIVE MODE"))
            store.reader.database.wake_up.set()
            await until(lambda: runner.health_now().failures > 0)
        positions += await append(other, "b")
        await until(lambda: letters.sent == positions)
