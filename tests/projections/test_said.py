"""Nothing fails in silence: each failed attempt and each end of a projection is one record of the log."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.orders import OrderPlaced
from support.read_models import QUICK, Journal, append, rows, running, until

from esource import EventStore, Projection, ProjectionFailedError, ProjectionRunner, handles


class Nameless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words for it")


class Trouble(Projection):
    """Raises what it is told to, once or always."""

    name = "trouble"
    retry = QUICK

    def __init__(self, *errors: BaseException, always: BaseException | None = None) -> None:
        self.errors = list(errors)
        self.always = always
        self.calls = 0
        self.handled: list[int] = []

    @handles(OrderPlaced)
    async def placed(self, event, context):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.always is not None:
            raise self.always
        self.handled.append(context.position)


class Skipping(Trouble):
    name = "skipping"
    on_failure = "skip"


def records(caplog, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_every_attempt_and_the_end_are_said(store: EventStore, caplog):
    [position] = await append(store, "a")
    runner = ProjectionRunner(store, Trouble(always=ValueError("no")))
    with pytest.raises(ProjectionFailedError):
        await runner.run(live=False)
    attempts = records(caplog, logging.WARNING)
    assert [f"attempt {n} of 3" in text for n, text in enumerate(attempts, 1)] == [True] * 3
    assert all(f"position {position}" in text and "ValueError: no" in text for text in attempts)
    [end] = records(caplog, logging.ERROR)
    assert "projection trouble has ended" in end


async def test_a_dead_letter_is_said_with_what_to_do(store: EventStore, caplog):
    await append(store, "a")
    await ProjectionRunner(store, Skipping(always=ValueError("no"))).run(live=False)
    [said] = records(caplog, logging.ERROR)
    assert "has become a dead letter" in said
    assert "retry_dead_letters()" in said


async def test_an_error_without_a_text_is_a_failure_like_any_other(store: EventStore, caplog):
    await append(store, "a", "b")
    runner = ProjectionRunner(store, Skipping(always=Nameless()))
    await runner.run(live=False)
    assert "Nameless" in (await runner.health()).last_error
    assert len(records(caplog, logging.ERROR)) == 2


async def test_a_cancellation_inside_a_handler_is_its_failure(store: EventStore, caplog):
    positions = await append(store, "a", "b")
    once = Trouble(asyncio.CancelledError())
    await ProjectionRunner(store, once).run(live=False)
    assert (once.handled, once.calls) == (positions, 3)
    assert "CancelledError" in records(caplog, logging.WARNING)[0]
    always = Skipping(always=asyncio.CancelledError())
    await ProjectionRunner(store, always).run(live=False)
    assert always.calls == 2 * QUICK.attempts


@pytest.mark.awaited
async def test_a_runner_whose_tasks_are_cancelled_goes_on(store: EventStore):
    """A shutdown that cancels all tasks, of which the runner's own is protected by the application."""
    journal = Journal()
    written = await append(store, "a")
    async with running(ProjectionRunner(store, journal)):
        await until(lambda: journal.calls)
        own = {
            task
            for task in asyncio.all_tasks()
            if "run()" in repr(task.get_coro()) or "ProjectionRunner.run" in repr(task)
        }
        for _ in range(3):
            for task in asyncio.all_tasks() - own - {asyncio.current_task()}:
                task.cancel()
            written += await append(store, "b")
            await until(lambda: len(journal.calls) >= len(written))

        async def is_written() -> bool:
            return await rows(store, journal.table, "position") == written

        await until(is_written)  # a call is counted before its transaction is committed
