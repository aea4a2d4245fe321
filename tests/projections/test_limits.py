"""A handler that hangs is a failed attempt, and holds up nobody for longer than its limit."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from support.orders import OrderPlaced
from support.read_models import QUICK, Journal, append, rows, running, until

from esource import EventStore, InvalidOptionError, Projection, ProjectionRunner, Retry, handles
from esource.database import calls
from esource.database.calls import called
from esource.errors import DatabaseBusyError, TimeLimitError


class Hanging(Journal):
    """Hangs at the events of "slow", after it has written, as often as it is told to."""

    name = "hanging"
    handler_seconds = 0.2

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.hangs = asyncio.Event()

    @handles(OrderPlaced)
    async def placed(self, event, context):
        await super().placed(event, context)
        if event.customer_id == "slow" and self.times:
            self.times -= 1
            self.hangs.set()
            await asyncio.Event().wait()


class Endless(Hanging):
    name = "endless"
    handler_seconds = None


class Parking(Hanging):
    name = "parking"
    on_failure = "skip"


async def test_a_handler_that_hangs_is_tried_again(store: EventStore, caplog):
    positions = await append(store, "a", "slow", "b")
    projection = Hanging()
    runner = ProjectionRunner(store, projection)
    await runner.run(live=False)
    assert await rows(store, projection.table, "position") == positions
    health = await runner.health()
    assert health.failures == 1
    assert "handler_seconds = 0.2 s" in health.last_error
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "attempt 1 of 3" in said
    assert f"position {positions[1]}" in said


async def test_a_handler_that_always_hangs_makes_a_dead_letter(store: EventStore):
    positions = await append(store, "slow", "b")
    projection = Parking(times=QUICK.attempts)
    await ProjectionRunner(store, projection).run(live=False)
    assert await rows(store, projection.table, "position") == positions[1:]


async def test_the_limit_of_a_runner_goes_before_that_of_its_projection(store: EventStore):
    [position] = await append(store, "slow")
    projection = Endless()
    runner = ProjectionRunner(store, projection, handler_seconds=0.05)
    await runner.run(live=False)
    assert await rows(store, projection.table, "position") == [position]
    assert "handler_seconds = 0.05 s" in (await runner.health()).last_error
    with pytest.raises(InvalidOptionError, match="handler_seconds"):
        ProjectionRunner(store, projection, handler_seconds=0)


async def test_health_says_that_a_limit_is_passed_while_the_handler_goes_on(store: EventStore):
    await append(store, "slow")
    released = asyncio.Event()

    class Deaf(Hanging):
        name = "deaf"

        @handles(OrderPlaced)
        async def placed(self, event, context):
            if self.times:
                self.times -= 1
                while not released.is_set():
                    with suppress(asyncio.CancelledError):
                        await released.wait()

    runner = ProjectionRunner(store, Deaf(), handler_seconds=0.05)
    async with running(runner):
        await until(lambda: runner.health_now().last_error is not None)
        assert "handler_seconds = 0.05 s" in runner.health_now().last_error
        assert runner.health_now().failures == 0  # the attempt has not ended
        released.set()
        await until(lambda: runner.health_now().failures > 0 or runner.health_now().events_processed > 0)


@pytest.mark.awaited
async def test_stop_ends_a_handler_that_hangs(store: EventStore, monkeypatch, caplog):
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.1)
    [position] = await append(store, "slow")
    projection = Endless()
    async with running(ProjectionRunner(store, projection)):
        await projection.hangs.wait()
    assert "has not ended" in caplog.text
    await ProjectionRunner(store, projection).run(live=False)
    assert await rows(store, projection.table, "position") == [position]


@pytest.mark.awaited
async def test_an_append_waits_for_busy_timeout_behind_a_handler_that_hangs(
    open_stores, database_url, monkeypatch
):
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.1)
    is_file = database_url.startswith("sqlite")
    store = await open_stores(database_url, **({"busy_timeout": 300} if is_file else {}))
    await append(store, "slow")
    projection = Endless()
    async with running(ProjectionRunner(store, projection)):
        await projection.hangs.wait()
        if is_file:
            with pytest.raises(DatabaseBusyError, match="busy_timeout"):
                await append(store, "b")
        else:
            await append(store, "b")
    await append(store, "c")


async def test_writes_that_wait_for_a_lock_are_a_failed_attempt(postgres_url, open_stores):
    store, other = await open_stores(postgres_url), await open_stores(postgres_url)
    projection = Gathering()
    await ProjectionRunner(store, projection).run(live=False)
    [position] = await append(store, "a")
    runner = ProjectionRunner(store, projection)
    async with running(runner), other.transaction() as transaction:
        await transaction.connection.exec_driver_sql(f"LOCK TABLE {projection.table.name}")
        await append(store, "b")

        async def failed() -> bool:
            return "context.write()" in ((await runner.health()).last_error or "")

        await until(failed)
    await ProjectionRunner(store, projection).run(live=False)
    assert await rows(store, projection.table, "position") == [position, position + 1]


class Gathering(Journal):
    name = "gathering"
    handler_seconds = 0.2
    retry = Retry(attempts=1000, first_seconds=0.001, longest_seconds=0.01)

    @handles(OrderPlaced)
    async def placed(self, event, context):
        context.write(self.table.insert(), {"position": context.position})


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), "60"])
def test_a_limit_is_a_number_of_seconds_or_none(seconds):
    with pytest.raises(InvalidOptionError, match="handler_seconds"):
        type("Odd", (Projection,), {"handler_seconds": seconds})


@pytest.mark.awaited
async def test_a_call_that_swallows_its_cancellation_is_told_and_cancelled_again(monkeypatch, caplog):
    monkeypatch.setattr("esource.database.calls.AGAIN_SECONDS", 0.01)

    async def stubborn() -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    late: list[BaseException] = []
    with pytest.raises(TimeLimitError) as caught:
        await called(stubborn(), "the handler", 0.01, "handler_seconds", late.append)
    assert isinstance(caught.value, TimeoutError)
    assert [str(error) for error in late] == [str(caught.value)]
    assert caplog.text.count("swallows asyncio.CancelledError") == 1
    await asyncio.sleep(0)  # the task is not cancelled any more


@pytest.mark.awaited
async def test_a_task_that_is_cancelled_itself_stays_cancelled():
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(called(work(), "the handler", 60.0, "handler_seconds"))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
