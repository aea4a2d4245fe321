"""What becomes of an event that cannot be handled: tried again, then as the projection's policy says."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import text
from support.orders import OrderPlaced, placed
from support.read_models import Journal, Letters, append, catch_up, rows, running, until

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventStore,
    ProjectionContext,
    ProjectionFailedError,
    ProjectionRunner,
    Retry,
    handles,
)


class Skipping(Journal):
    name = "skipping"
    on_failure = "skip"


class Halting(Journal):
    name = "halting"
    on_failure = "halt_stream"


class SkippingLetters(Letters):
    name = "skipping letters"
    on_failure = "skip"


class HaltingLetters(Letters):
    name = "halting letters"
    on_failure = "halt_stream"


async def dead_letters(store: EventStore, name: str):
    return await DLQRepository(store).get_failed_events(name, status=None)


@pytest.mark.parametrize("kind", [Journal, Letters])
async def test_stop_ends_the_run_with_everything_before_saved(store: EventStore, kind):
    positions = await append(store, "a", "b", "bad", "c")
    projection = kind()
    projection.bad = {"bad"}
    runner = ProjectionRunner(store, projection)
    with pytest.raises(
        ProjectionFailedError, match=r"stopped at OrderPlaced .*cannot stand|no letters"
    ) as caught:
        await runner.run(live=False)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.global_position == positions[2]
    assert caught.value.projection == projection.name
    assert await CheckpointRepository(store).get_position(projection.name) == positions[1]
    assert await dead_letters(store, projection.name) == []
    projection.bad = set()
    await runner.run(live=False)
    assert await CheckpointRepository(store).get_position(projection.name) == positions[3]
    if kind is Journal:
        assert await rows(store, projection.table, "position") == positions
    else:
        assert projection.sent == positions


async def test_an_event_is_tried_as_often_as_the_projection_says(store: EventStore):
    class Stubborn(Skipping):
        name = "stubborn"
        retry = Retry(attempts=4, first_seconds=0.001, longest_seconds=0.002)

    await append(store, "bad")
    stubborn = Stubborn()
    stubborn.bad = {"bad"}
    await catch_up(store, stubborn)
    assert stubborn.calls == ["bad"] * 4
    [letter] = await dead_letters(store, "stubborn")
    assert letter.retry_count == 3


async def test_a_passing_trouble_leaves_no_trace(store: EventStore):
    class Moody(Journal):
        name = "moody"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            self.bad = {"b"} if self.calls.count("b") < 2 else set()
            await super().placed(event, context)

    await append(store, *"abc")
    moody = Moody()
    await catch_up(store, moody)
    assert await rows(store, moody.table, "customer") == list("abc")
    assert await dead_letters(store, "moody") == []


async def test_skip_makes_a_dead_letter_and_the_batch_survives(store: EventStore):
    positions = await append(store, "a", "bad", "b", "bad", "c")
    skipping = Skipping()
    skipping.bad = {"bad"}
    await catch_up(store, skipping)
    assert await rows(store, skipping.table, "customer") == ["a", "b", "c"]
    letters = await dead_letters(store, "skipping")
    assert [letter.event_type for letter in letters] == ["OrderPlaced"] * 2
    assert letters[0].error_message == "ValueError: cannot stand bad"
    assert 'raise ValueError(f"cannot stand' in letters[0].error_stacktrace
    assert letters[0].event_data["customer_id"] == "bad"
    saved = await CheckpointRepository(store).get_checkpoint_data("skipping")
    assert (saved.global_position, saved.events_processed) == (positions[-1], 5)


async def test_skip_outside_a_transaction_goes_on_with_the_next_event(store: EventStore):
    positions = await append(store, "a", "bad", "b")
    letters = SkippingLetters()
    letters.bad = {"bad"}
    await catch_up(store, letters)
    assert letters.sent == [positions[0], positions[2]]
    assert len(await dead_letters(store, "skipping letters")) == 1


async def test_an_error_that_only_the_commit_reveals_is_traced_to_its_event(store: EventStore):
    """A handler that swallows a broken statement, or a constraint that is checked late."""

    class Late(Skipping):
        name = "late"

        async def reset(self, connection) -> None:
            await super().reset(connection)
            await connection.execute(text("CREATE TABLE parents (id INTEGER PRIMARY KEY)"))
            await connection.execute(
                text(
                    "CREATE TABLE children (id INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
                )
            )

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            if context.connection.dialect.name == "sqlite":
                await context.connection.execute(text("PRAGMA defer_foreign_keys = ON"))
            await super().placed(event, context)
            if event.customer_id == "orphan":
                await context.connection.execute(text("INSERT INTO children VALUES (1)"))

    if store._opened.database.backend.name == "sqlite":
        async with store._opened.database.connections.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
        for lane in store._opened.database.connections.writers.idle:
            await lane.driver.execute("PRAGMA foreign_keys = ON")
    await append(store, "a", "orphan", "b")
    late = Late()
    await catch_up(store, late)
    assert await rows(store, late.table, "customer") == ["a", "b"]
    [letter] = await dead_letters(store, "late")
    assert letter.event_data["customer_id"] == "orphan"


async def test_an_event_that_cannot_be_decoded_fails_like_a_handler(store: EventStore):
    positions = await append(store, "a", "b", "c")
    async with store.transaction() as transaction:
        await transaction.connection.execute(
            text("UPDATE events SET payload = '{\"total\": 1.0}' WHERE global_position = :position"),
            {"position": positions[1]},
        )
    skipping = Skipping()
    await catch_up(store, skipping)
    assert await rows(store, skipping.table, "customer") == ["a", "c"]
    [letter] = await dead_letters(store, "skipping")
    assert letter.error_message.startswith("EventDecodeError")


async def test_an_event_type_without_a_class_fails_like_a_handler(database_url, open_stores):
    from esource import EventRegistry

    store = await open_stores(database_url)
    await append(store, "a")
    store.codec.registry = EventRegistry()
    with pytest.raises(ProjectionFailedError, match="UnknownEventTypeError"):
        await catch_up(store, Journal())


@pytest.mark.parametrize("kind", [Halting, HaltingLetters])
async def test_halt_stream_holds_one_stream_back_and_no_other(store: EventStore, kind):
    one, other = uuid4(), uuid4()
    expected = []
    expected += await append(store, "1a", stream=one)
    expected += await append(store, "2a", stream=other)
    [failed] = await append(store, "bad", stream=one)
    waiting = await append(store, "1b", stream=one)
    expected += await append(store, "2b", stream=other)
    projection = kind()
    projection.bad = {"bad"}
    await catch_up(store, projection)
    after_restart = kind()  # nothing but the database remembers
    waiting += await append(store, "1c", stream=one)
    expected += await append(store, "2c", stream=other)
    await catch_up(store, after_restart)
    if kind is Halting:
        assert await rows(store, projection.table, "position") == expected
    else:
        assert projection.sent + after_restart.sent == expected
    letters = await dead_letters(store, projection.name)
    assert [letter.event_data["customer_id"] for letter in letters] == ["bad", "1b", "1c"]
    assert [letter.error_message for letter in letters[1:]] == [
        f"StreamHaltedError: waits behind the failed event at global position {failed}"
    ] * 2
    assert await CheckpointRepository(store).get_position(projection.name) == max(*waiting, *expected)


@pytest.mark.parametrize("kind", [Halting, HaltingLetters])
async def test_retried_dead_letters_are_handled_in_the_order_of_the_log(store: EventStore, kind):
    streams = [uuid4(), uuid4()]
    for number, customer in enumerate(["bad", "bad", "b", "c", "d"]):
        await append(store, customer, stream=streams[number % 2])
    projection = kind()
    projection.bad = {"bad"}
    runner = await catch_up(store, projection)
    assert (await runner.retry_dead_letters()).failed == 2
    projection.bad = set()
    retried = await runner.retry_dead_letters()
    assert (retried.resolved, retried.failed, retried.waiting) == (5, 0, 0)
    await append(store, "e", stream=streams[0])
    await runner.run(live=False)
    if kind is Halting:
        assert await rows(store, projection.table, "position") == [1, 2, 3, 4, 5, 6]
    else:
        assert projection.sent == [1, 2, 3, 4, 5, 6]
    letters = await dead_letters(store, projection.name)
    assert {(letter.status, letter.resolved_by) for letter in letters} == {("resolved", "retry")}
    assert (await runner.retry_dead_letters()).resolved == 0


async def test_a_dead_letter_that_fails_again_holds_its_stream_back(store: EventStore):
    one, other = uuid4(), uuid4()
    await append(store, "bad", "1a", stream=one)
    await append(store, "bad too", "2a", stream=other)
    halting = Halting()
    halting.bad = {"bad", "bad too"}
    runner = await catch_up(store, halting)
    halting.bad = {"bad"}
    retried = await runner.retry_dead_letters()
    assert (retried.resolved, retried.failed, retried.waiting) == (2, 1, 1)
    assert await rows(store, halting.table, "customer") == ["bad too", "2a"]
    letters = await DLQRepository(store).get_failed_events("halting")
    assert [(letter.event_data["customer_id"], letter.retry_count) for letter in letters] == [
        ("bad", 3),
        ("1a", 0),
    ]


async def test_single_dead_letters_can_be_retried(store: EventStore):
    await append(store, "bad", "a", "bad")
    skipping = Skipping()
    skipping.bad = {"bad"}
    runner = await catch_up(store, skipping)
    letters = await dead_letters(store, "skipping")
    skipping.bad = set()
    assert (await runner.retry_dead_letters([letters[1].id])).resolved == 1
    assert await rows(store, skipping.table, "position") == [2, 3]
    assert [letter.status for letter in await dead_letters(store, "skipping")] == ["failed", "resolved"]


async def test_a_dead_letter_behind_another_is_not_retried_before_it(store: EventStore):
    await append(store, "bad", "a", stream=uuid4())
    halting = Halting()
    halting.bad = {"bad"}
    runner = await catch_up(store, halting)
    halting.bad = set()
    letters = await dead_letters(store, "halting")
    retried = await runner.retry_dead_letters([letters[1].id])
    assert (retried.resolved, retried.waiting) == (0, 1)
    assert (await runner.retry_dead_letters()).resolved == 2
    assert await rows(store, halting.table, "customer") == ["bad", "a"]


async def test_dead_letters_are_retried_while_the_worker_goes_on(store: EventStore):
    """However the two interleave, the stream's events are applied once each and in order."""
    stream = uuid4()
    halting = Halting()
    halting.bad = {"bad"}
    await append(store, "bad", stream=stream)
    runner = ProjectionRunner(store, halting, poll_seconds=0.05)
    async with running(runner):

        async def is_parked():
            return await dead_letters(store, "halting")

        await until(is_parked)

        async def write() -> None:
            for number in range(60):
                await append(store, str(number), stream=stream)

        writing = asyncio.create_task(write())
        await until(lambda: is_parked_behind(store, 5))
        halting.bad = set()
        await runner.retry_dead_letters()
        await writing

        async def is_done():
            await runner.retry_dead_letters()
            return len(await rows(store, halting.table, "position")) == 61

        await until(is_done)
    assert await rows(store, halting.table, "customer") == ["bad", *map(str, range(60))]


async def is_parked_behind(store: EventStore, count: int) -> bool:
    return len(await dead_letters(store, "halting")) > count


async def test_two_at_once_retry_a_dead_letter_once(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    await append(stores[0], *["bad"] * 20)
    first, second = Skipping(), Skipping()
    first.bad = {"bad"}
    await catch_up(stores[0], first)
    runners = [ProjectionRunner(stores[0], Skipping()), ProjectionRunner(stores[1], second)]
    retried = await asyncio.gather(*(runner.retry_dead_letters() for runner in runners))
    assert sorted(await rows(stores[0], first.table, "position")) == list(range(1, 21))
    assert sum(each.failed for each in retried) == 0


async def test_a_connection_that_breaks_is_not_the_events_fault_on_postgresql(postgres_url, open_stores):
    class Cut(Skipping):
        name = "cut"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            await super().placed(event, context)
            if self.calls.count("b") == 1 and event.customer_id == "b":
                pid = (await context.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                async with other.transaction() as transaction:
                    await transaction.connection.execute(text(f"SELECT pg_terminate_backend({pid})"))
                await context.connection.execute(text("SELECT 1"))

    store, other = await open_stores(postgres_url), await open_stores(postgres_url)
    positions = await append(store, *"abc")
    cut = Cut()
    await catch_up(store, cut)
    assert await rows(store, cut.table, "position") == positions
    assert await dead_letters(store, "cut") == []


async def test_a_handlers_own_oserror_is_its_failure(store: EventStore):
    class Reads(Skipping):
        name = "reads"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            raise FileNotFoundError("template.html")

    await append(store, "a")
    await catch_up(store, Reads())
    [letter] = await dead_letters(store, "reads")
    assert letter.error_message == "FileNotFoundError: template.html"


async def test_the_dead_letter_commits_with_the_checkpoint(store: EventStore, monkeypatch):
    await append(store, "bad")
    skipping = Skipping()
    skipping.bad = {"bad"}
    boom = RuntimeError("no more")

    async def fail(*args, **kwargs):
        raise boom

    monkeypatch.setattr("esource.projections.share.Share._save", fail)
    with pytest.raises(RuntimeError):
        await catch_up(store, skipping)
    assert await dead_letters(store, "skipping") == []
    assert await CheckpointRepository(store).get_position("skipping") == 0


async def test_an_append_is_not_held_up_by_a_pause_between_attempts(store: EventStore):
    class Slow(Skipping):
        name = "slow"
        retry = Retry(attempts=2, first_seconds=300, longest_seconds=600)

    await append(store, "bad")
    slow = Slow()
    slow.bad = {"bad"}
    async with running(ProjectionRunner(store, slow)):
        await until(lambda: slow.calls == ["bad"])
        event = placed()
        await asyncio.wait_for(store.append_events(event.aggregate_id, "Order", [event]), 30)
