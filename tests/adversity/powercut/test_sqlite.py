"""SQLite, and a power cut at any moment. nox's session `powercut` runs these.

A writer is recorded once (`adversity.powercut.recording`); the disk is then put into states in which a cut may leave it
(`adversity.powercut.disk`), and each is opened. The file `-shm` is left out: it is shared memory, which SQLite builds again.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support.effort import examples, seed
from support.tally import Tally, chance

from adversity.powercut import workload
from adversity.powercut.aftermath import Recording, contents, log_at, lost_after
from adversity.powercut.recording import record

SETTINGS = ("FULL WAL", "NORMAL WAL", "FULL DELETE", "NORMAL DELETE", "FULL WAL new")
"""`synchronous`; the journal, with a write-ahead log, as a store has by default, or with `wal_mode=False`; and whether the
file is there already, or made while it is recorded."""


def is_shared_memory(name: str) -> bool:
    return name.endswith("-shm")


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, place: Path, strace: str) -> Callable[[str], Recording]:
    """The recording of a writer with some settings."""

    @cache
    def make(settings: str) -> Recording:
        folder = place / settings.replace(" ", "-")
        folder.mkdir()
        base, live = folder / "base", folder / "live"
        synchronous, journal, *is_new = settings.split()
        for each in (base, live):
            each.mkdir()
            if not is_new:
                shutil.copy(sqlite_template, each / "events.db")
        path = live / "events.db"
        command = [sys.executable, workload.__file__, "sqlite", str(path), str(seed()), synchronous, journal]
        calls = record(command, live, folder / "said", is_shared_memory, strace)
        after = contents(live, is_shared_memory)
        with ThreadPoolExecutor(1) as apart:  # from the test's event loop
            whole = apart.submit(asyncio.run, log_at(f"sqlite:///{path}")).result()
        return Recording(base, calls, after, whole)

    return make


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_recording_misses_nothing_that_was_done_to_a_file(recorded, place, settings):
    assert recorded(settings).missed(place / "disk") == set()


async def lost(recording: Recording, cut, folder: Path) -> set[str]:
    path = folder / "events.db"
    missing = await lost_after(cut, f"sqlite:///{path}", recording.whole)
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    file.close()
    return missing


def test_the_recordings_hold_checkpoints_and_syncs(recorded):
    """Else the tests below would cut the power of a program that does little."""
    full, normal = (
        [call.path for call in recorded(settings).calls if call.name == "sync"] for settings in SETTINGS[:2]
    )
    assert full.count("events.db") > 5, "hardly a checkpoint"
    assert normal.count("events.db") > 5
    assert full.count("events.db-wal") > 2 * normal.count("events.db-wal")


@pytest.mark.parametrize("journal", ["WAL", "DELETE", "WAL new"])
async def test_nothing_acknowledged_is_lost_wherever_the_power_is_cut(recorded, place, journal):
    recording = recorded(f"FULL {journal}")
    tally = Tally(f"power cut, synchronous=FULL, {journal}", "sqlite", written=recording.acknowledged())
    for cut in recording.cuts(examples(40), chance(f"power, FULL, {journal}"), place / "disk"):
        tally.injected += 1
        tally.lost += len(await lost(recording, cut, place / "disk"))
    tally.conclude()


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
async def test_with_synchronous_normal_a_power_cut_takes_whole_appends_from_the_end(recorded, place, journal):
    """Which they do lose, as the checker notices: else it would notice nothing of a store that does not wait, either."""
    recording = recorded(f"NORMAL {journal}")
    tally = Tally(f"power cut, synchronous=NORMAL, {journal}", "sqlite", written=recording.acknowledged())
    taken = 0
    for cut in recording.cuts(examples(40), chance(f"power, NORMAL, {journal}"), place / "disk"):
        tally.injected += 1
        taken += bool(await lost(recording, cut, place / "disk"))
    assert taken
    tally.conclude()


@pytest.mark.parametrize("lie", ["events.db-wal", "events.db"])
async def test_a_disk_that_confirms_what_it_has_not_written_is_found_out(recorded, place, lie):
    """What `fsync` of one file returned means nothing: acknowledged events are lost, or the file is damaged."""
    recording = recorded("FULL WAL")
    honest = [call for call in recording.calls if (call.name, call.path) != ("sync", lie)]
    recording = replace(recording, calls=honest)
    harmed = 0
    for cut in recording.cuts(examples(20), chance(f"power, {lie}"), place / "disk"):
        try:
            harmed += bool(await lost(recording, cut, place / "disk"))
        except Exception:  # whatever a reader makes of a damaged file
            harmed += 1
    assert harmed
