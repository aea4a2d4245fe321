"""Several processes append to one store and read it, and nothing in their histories contradicts its promises.

``ESOURCE_TEST_EFFORT`` multiplies how long they do; ``ESOURCE_TEST_SEED`` decides what they do, in an order that no seed
decides. Histories stay in the test's folder (``--basetemp``): ``python -m histories.checker`` checks them again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from support.effort import examples, seed
from support.tally import Tally
from support.without_async import program

from adversity.histories.checker import check, summary
from adversity.histories.client import Client
from adversity.histories.history import Operation, Recorder, load
from esource import EventStore

TESTS = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")


def start(url: str, folder: Path, name: str, operations: int) -> subprocess.Popen[bytes]:
    arguments = [url, str(folder / name), name, str(seed()), "3", str(operations)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen([*program(CLIENT), *arguments], env=environment)


async def kill_when_busy(process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
    """Once each of its tasks is in the middle of something."""
    while any(
        not (path := folder / f"{name}.{task}").exists() or path.stat().st_size < 5_000 for task in range(3)
    ):
        assert process.poll() is None
        await asyncio.sleep(0.01)
    process.kill()


async def read_everything(store: EventStore, folder: Path) -> None:
    """The last word: what is not in it is not stored."""
    recorder = Recorder(folder / "last", "last")
    await Client(store, recorder, "last", 0).read_log(0, None)
    recorder.close()


def count(operations: list[Operation], do: str, end: str) -> int:
    return sum(o.asked["do"] == do and o.end == end for o in operations)


@pytest.mark.slow
async def test_the_histories_of_several_processes_contradict_no_promise(
    shared_store: EventStore, shared_database_url: str, tmp_path: Path
):
    folder = tmp_path / "histories"
    folder.mkdir()
    victim = start(shared_database_url, folder, "victim", 10**6)
    writers = [start(shared_database_url, folder, f"writer{n}", examples(60)) for n in range(2)]
    await kill_when_busy(victim, folder, "victim")
    for process in [victim, *writers]:
        await asyncio.to_thread(process.wait)
    assert [writer.returncode for writer in writers] == [0, 0]
    await read_everything(shared_store, folder)
    operations = load(sorted(folder.iterdir()))
    anomalies = check(operations)
    assert not anomalies, "\n".join(map(str, anomalies))
    tally = Tally("SIGKILL of a client, histories checked", shared_store._opened.database.backend.name, 1)
    tally.written = sum(len(o.answer["events"]) for o in operations if o.name.startswith("last"))
    tally.conclude()
    for end in ("ok", "conflict", "duplicate", "aborted", "unknown"):
        assert count(operations, "append", end), f"no append ended so: {summary(operations)}"
    refused = sum("match" in operation.answer for operation in operations)
    accepted = sum(o.is_ok and "condition" in o.asked.get("parts", [{}])[0] for o in operations)
    assert refused, f"no condition was refused: {summary(operations)}"
    assert accepted, f"no condition was accepted: {summary(operations)}"
