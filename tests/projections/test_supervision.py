"""`async with runner:` runs a projection in the background: it does not end unsaid, and begins again by itself."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.read_models import Journal, append, rows, until

from esource import EventStore, InvalidOptionError, ProjectionRunner
from esource.database import calls

FAST = {"restart_seconds": 0.01, "max_restart_seconds": 0.05}


def ends(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


async def state_of(runner: ProjectionRunner) -> str:
    return (await runner.health()).state


async def test_a_projection_that_failed_begins_again_until_its_handler_is_mended(store: EventStore, caplog):
    positions = await append(store, "a", "bad", "b")
    journal = Journal()
    journal.bad = {"bad"}
    runner = ProjectionRunner(store, journal, **FAST)
    async with runner:
        await until(lambda: len(ends(caplog)) >= 3)
        health = await runner.health()
        assert health.state in ("running", "restarting")
        assert health.since is not None
        assert "cannot stand bad" in health.last_error
        journal.bad = set()

        async def caught_up() -> bool:
            return (await runner.health()).position >= positions[-1]

        await until(caught_up)
        assert await state_of(runner) == "running"
    assert await state_of(runner) == "stopped"
    assert await rows(store, journal.table, "position") == positions
    assert all("projection journal has ended, and begins again in" in said for said in ends(caplog))


async def test_stop_ends_the_pause_before_the_next_run(store: EventStore):
    await append(store, "bad")
    journal = Journal()
    journal.bad = {"bad"}
    runner = ProjectionRunner(store, journal, restart_seconds=3600.0, max_restart_seconds=3600.0)
    async with runner:

        async def restarts() -> bool:
            return await state_of(runner) == "restarting"

        await until(restarts)
        with pytest.raises(InvalidOptionError, match="projection journal is at work already"):
            await runner.run(live=False)
        runner.stop()
        await runner.wait()
        assert await state_of(runner) == "failed"


async def test_a_run_that_is_not_supervised_ends_as_failed(store: EventStore):
    await append(store, "bad")
    journal = Journal()
    journal.bad = {"bad"}
    runner = ProjectionRunner(store, journal)
    assert await state_of(runner) == "stopped"
    with pytest.raises(Exception, match="cannot stand bad"):
        await runner.run(live=False)
    assert await state_of(runner) == "failed"


async def test_a_supervised_runner_is_at_work_already(store: EventStore):
    runner = ProjectionRunner(store, Journal())
    async with runner:
        with pytest.raises(InvalidOptionError, match="at work already"):
            await runner.__aenter__()
    async with store.transaction():
        with pytest.raises(InvalidOptionError, match="outside of yours"):
            await ProjectionRunner(store, Journal()).__aenter__()


@pytest.mark.awaited
async def test_a_supervised_runner_that_other_code_cancels_says_so(store: EventStore, caplog):
    runner = ProjectionRunner(store, Journal())
    before = asyncio.all_tasks()
    async with runner:
        await until(lambda: runner._job.stats.is_running)
        [own] = [task for task in asyncio.all_tasks() - before if "_keep_running" in repr(task.get_coro())]
        own.cancel()
        await runner.wait()
    [said] = ends(caplog)
    assert "was cancelled by other code" in said
    assert runner.health_now().state == "failed"


async def test_an_error_inside_the_block_stops_the_runner_and_is_raised(store: EventStore):
    runner = ProjectionRunner(store, Journal())
    with pytest.raises(LookupError):
        async with runner:
            raise LookupError
    assert await state_of(runner) == "stopped"


class Resetting(Journal):
    name = "resetting"

    def __init__(self) -> None:
        super().__init__()
        self.resets = 0

    async def reset(self, connection) -> None:
        self.resets += 1
        if self.resets == 1:
            await self.fail()
        await super().reset(connection)


async def test_a_cancellation_inside_reset_is_its_failure(store: EventStore, caplog):
    positions = await append(store, "a")

    class Cancelled(Resetting):
        async def fail(self) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    projection = Cancelled()
    runner = ProjectionRunner(store, projection, **FAST)
    async with runner:
        await until(lambda: runner.health_now().position >= positions[-1])
    assert ["reset() raised CancelledError" in said for said in ends(caplog)] == [True]
    assert await rows(store, projection.table, "position") == positions


async def test_stop_ends_a_reset_that_hangs(store: EventStore, monkeypatch, caplog):
    monkeypatch.setattr(calls, "STOP_SECONDS", 0.05)
    positions = await append(store, "a")

    class Hanging(Resetting):
        async def fail(self) -> None:
            await asyncio.Event().wait()

    projection = Hanging()
    async with ProjectionRunner(store, projection, **FAST):
        await until(lambda: projection.resets)
    assert "its reset() has not ended" in caplog.text
    await ProjectionRunner(store, projection).run(live=False)
    assert await rows(store, projection.table, "position") == positions
