"""A move of a log that is ended at any moment, by force, while the log is written to: nothing is lost, nothing is twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from adversity.faults.cluster import Cluster, own_cluster
from support.move_worker import STAGES
from support.orders import placed
from support.read_models import until

from esource.directory import Directory
from esource.directory import directory as directory_module
from esource.errors import DatabaseError, EventSourceError, InvalidOptionError, StoreMovedError

WORKER = Path(__file__).parents[1] / "support" / "move_worker.py"
EVENTS = 60

pytestmark = [pytest.mark.slow, pytest.mark.awaited]


class Writer:
    """Writes to a log all the time, and knows what it was told is stored."""

    def __init__(self, store) -> None:
        self._store = store
        self.stored: list = []
        self._is_over = False

    async def write(self) -> None:
        while not self._is_over:
            event = placed()
            while True:
                try:
                    await self._store.append_events(event.aggregate_id, "Order", [event])
                except (DatabaseError, StoreMovedError):
                    await asyncio.sleep(0.02)  # the same event again: it is stored once
                else:
                    break
            self.stored.append(event.event_id)

    async def more(self, count: int = 10) -> None:
        goal = len(self.stored) + count
        await until(lambda: len(self.stored) >= goal, 120)

    @asynccontextmanager
    async def at_work(self):
        task = asyncio.create_task(self.write())
        try:
            yield self
        finally:
            self._is_over = True
            await task


def elsewhere(directory: Directory):
    return directory.places.resolve(
        "elsewhere/red.db" if directory.places.in_files else "?schema=elsewhere"
    ).render_as_string(hide_password=False)


async def killed_at(url: str, place: str, stage: str) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), url, "red", place, stage)
    return await process.wait()


async def whole(directory: Directory, writer: Writer) -> None:
    """The log has what the writer was told is stored, in its order, once, and positions rise."""
    events = [stored async for stored in (await directory.log("red")).read_all()]
    positions = [stored.global_position for stored in events]
    assert positions == sorted(set(positions))
    assert [stored.event_id for stored in events] == writer.stored


@pytest.fixture
async def directory(empty_database_url, open_directories, monkeypatch):
    monkeypatch.setattr(directory_module, "FIND_SECONDS", 0.2)  # writers ask again themselves
    directory = await open_directories(empty_database_url)
    await directory.create("red")
    return directory


@pytest.mark.parametrize("stage", [*STAGES, "1", "2", "3"])
async def test_a_move_that_is_killed_is_finished_by_the_next_call(directory, empty_database_url, stage):
    async with Writer(await directory.log("red")).at_work() as writer:
        await writer.more(EVENTS)
        died = await killed_at(empty_database_url, elsewhere(directory), stage)
        assert died == -signal.SIGKILL
        if stage not in ("fenced off", "cut over"):  # until the move is noted, what is fenced off is nowhere
            await writer.more()
        if stage != "done":
            await directory.move("red", elsewhere(directory))
        await writer.more()
    assert (await directory.entry("red")).state == "open"
    assert "elsewhere" in (await directory.log("red")).name
    await whole(directory, writer)


@pytest.mark.parametrize("stage", ["noted", "in the copy", "copied", "writers wait"])
async def test_a_move_that_was_killed_before_its_cut_over_is_taken_back(directory, empty_database_url, stage):
    async with Writer(await directory.log("red")).at_work() as writer:
        await writer.more(EVENTS)
        assert await killed_at(empty_database_url, elsewhere(directory), stage) == -signal.SIGKILL
        await directory.stay("red")
        await writer.more()
        assert "elsewhere" not in (await directory.log("red")).name
        await directory.move("red", elsewhere(directory))  # what was copied before is the beginning of it
        await writer.more()
    await whole(directory, writer)


async def test_two_movers_of_one_log_do_it_once(directory, empty_database_url, open_directories):
    other = await open_directories(empty_database_url)
    async with Writer(await directory.log("red")).at_work() as writer:
        await writer.more(EVENTS)
        place = elsewhere(directory)
        ends = await asyncio.gather(
            directory.move("red", place), other.move("red", place), return_exceptions=True
        )
        errors = [end for end in ends if isinstance(end, BaseException)]
        assert all(isinstance(error, EventSourceError) for error in errors), errors
        if (await directory.entry("red")).state != "open":
            await directory.move("red", place)
        await writer.more()
        with pytest.raises(InvalidOptionError, match="is at .* already"):
            await other.move("red", place)
    await whole(directory, writer)


@pytest.fixture
def target() -> Iterator[Cluster]:
    with own_cluster() as cluster:
        yield cluster


@pytest.mark.parametrize("progress", [1, 3])
async def test_a_log_stays_where_it_is_while_its_new_server_dies(
    target, postgres_url, empty_postgres_url, open_directories, progress
):
    directory = await open_directories(empty_postgres_url, retry_seconds=1.0)
    await directory.create("red")
    place = target.url.update_query_dict({"schema": "red"})
    count = 0

    def stop(_) -> None:
        nonlocal count
        count += 1
        if count == progress:
            target.stop()

    async with Writer(await directory.log("red")).at_work() as writer:
        await writer.more(EVENTS)
        with pytest.raises(EventSourceError):
            await directory.move("red", place, on_progress=stop)
        await writer.more()
        assert (await directory.entry("red")).state in ("moving", "open")
        target.start()
        await directory.move("red", place)
        await writer.more()
    await whole(directory, writer)
    assert (await directory.log("red")).reader.database.connections.server is directory.places.server(
        directory.places.resolve((await directory.entry("red")).place)
    )
