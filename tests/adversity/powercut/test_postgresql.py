"""PostgreSQL, and a power cut at any moment, like `test_sqlite`: a server on a disk that is recorded, and servers that
recover from what a cut may leave of it. nox's session `powercut` runs these."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support.effort import examples, seed
from support.tally import Tally, chance

from adversity.faults.cluster import Cluster
from adversity.powercut import workload
from adversity.powercut.aftermath import Recording, contents, log_at, lost_after
from adversity.powercut.disk import Cut
from adversity.powercut.recording import record
from esource import schema
from esource.testing import server

OF_ONE_LIFE = ("log", "postmaster.pid", "postmaster.opts", ".s.PGSQL.5432", ".s.PGSQL.5432.lock")
"""Files of a running server that are nobody's data."""


@pytest.fixture(scope="module")
def base(place: Path) -> Path:
    """A cluster that was shut down, with a database that has our tables."""
    folder = place / "base"
    folder.mkdir(mode=0o700)
    cluster = Cluster(str(folder))
    # So small that a run fills several: files are made, renamed and used again.
    cluster.call("pg_resetwal", "--wal-segsize=1")
    cluster.start()
    server.on_server(cluster.url, f"CREATE DATABASE {workload.DATABASE}")
    server.apart(lambda: schema.upgrade(url_of(cluster)))
    cluster.stop("fast")
    for name in OF_ONE_LIFE:
        (folder / name).unlink(missing_ok=True)
    return folder


def url_of(cluster: Cluster) -> str:
    return cluster.url.set(database=workload.DATABASE).render_as_string()


def cluster_in(folder: Path) -> Cluster:
    """The cluster whose files somebody has copied into a folder."""
    cluster = Cluster(str(folder))
    if cluster.user:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, cluster.user)
    return cluster


@pytest.fixture(scope="module")
def recorded(base: Path, place: Path, strace: str) -> Callable[[str], Recording]:
    """The recording of a server and its writer with one setting of `synchronous_commit`."""

    @cache
    def make(synchronous_commit: str) -> Recording:
        live = place / f"live-{synchronous_commit}"
        shutil.copytree(base, live)
        cluster = cluster_in(live)
        command = [
            sys.executable,
            workload.__file__,
            "postgresql",
            str(live),
            str(seed()),
            synchronous_commit,
        ]
        calls = record(command, live, place / "said", OF_ONE_LIFE.__contains__, strace)
        after = contents(live, OF_ONE_LIFE.__contains__)
        cluster.start()
        with ThreadPoolExecutor(1) as thread:  # apart from the test's event loop
            whole = thread.submit(asyncio.run, log_at(url_of(cluster))).result()
        cluster.stop()
        return Recording(base, calls, after, whole)

    return make


@pytest.mark.parametrize("synchronous_commit", ["on", "off"])
def test_a_recording_misses_nothing_that_was_done_to_a_file(recorded, place, synchronous_commit):
    assert recorded(synchronous_commit).missed(place / "disk") == set()


async def lost(recording: Recording, cut: Cut, folder: Path) -> set[str]:
    cluster = cluster_in(folder)
    await asyncio.to_thread(cluster.start)
    try:
        return await lost_after(cut, url_of(cluster), recording.whole)
    finally:
        await asyncio.to_thread(cluster.stop)


def test_the_recording_holds_checkpoints_and_files_of_the_log_that_are_used_again(recorded):
    calls = recorded("on").calls
    synced = [call.path for call in calls if call.name == "sync"]
    assert synced.count("global/pg_control") >= workload.CHECKPOINTS
    assert any(path.startswith("base/") for path in synced)
    assert len({path for path in synced if path.startswith("pg_wal/0")}) > 2
    assert any(call.name == "rename" and call.target.startswith("pg_wal/0") for call in calls)


async def test_nothing_acknowledged_is_lost_wherever_the_power_is_cut(recorded, place):
    recording = recorded("on")
    tally = Tally("power cut, synchronous_commit=on", "postgresql", written=recording.acknowledged())
    for cut in recording.cuts(examples(6), chance("power, on"), place / "disk"):
        tally.injected += 1
        tally.lost += len(await lost(recording, cut, place / "disk"))
    tally.conclude()


async def test_with_synchronous_commit_off_a_power_cut_takes_whole_appends_from_the_end(recorded, place):
    """Which they do lose, as the checker notices: else it would notice nothing of a server that does not wait, either."""
    recording = recorded("off")
    tally = Tally("power cut, synchronous_commit=off", "postgresql", written=recording.acknowledged())
    taken = 0
    for cut in recording.cuts(examples(6), chance("power, off"), place / "disk"):
        tally.injected += 1
        taken += bool(await lost(recording, cut, place / "disk"))
    assert taken
    tally.conclude()


async def test_a_disk_that_confirms_what_it_has_not_written_is_found_out(recorded, place):
    """What `fsync` of the log returned means nothing: acknowledged events are lost, or the server does not start."""
    recording = recorded("on")
    lie = [call for call in recording.calls if call.name == "sync" and call.path.startswith("pg_wal/")]
    recording = replace(recording, calls=[call for call in recording.calls if call not in lie])
    harmed = 0
    for cut in recording.cuts(examples(2), chance("power, lie"), place / "disk"):
        try:
            harmed += bool(await lost(recording, cut, place / "disk"))
        except Exception:  # whatever is left of it
            harmed += 1
    assert harmed
