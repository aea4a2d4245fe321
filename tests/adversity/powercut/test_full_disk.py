"""PostgreSQL on a disk that is full: that of its tables, or that of its write-ahead log. nox's session `powercut` runs
these; SQLite's are in `adversity/faults/test_files.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.effort import examples
from support.tally import Tally

from adversity.powercut import full

ROUNDS = 2


@pytest.fixture
def filled(small_disk: list[str], place: Path) -> Callable[[str], dict[str, Any]]:
    """What became of a server whose disk was filled several times (`adversity.powercut.full`)."""

    def fill(kind: str) -> dict[str, Any]:
        folder = place / kind
        folder.mkdir()
        command = [*small_disk, sys.executable, full.__file__, kind, str(folder), str(examples(ROUNDS))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return fill


def conclude(fault: str, said: dict[str, Any]) -> None:
    errors = sum(said["errors"].values())
    counts = (errors, said["written"], said["lost"], said["duplicated"])
    Tally(fault, "postgresql", examples(ROUNDS), *counts).conclude()


def test_a_full_disk_under_the_tables_refuses_whole_appends_and_reading_and_work_with_space_go_on(filled):
    said = filled("data")
    assert said["errors"].keys() == {"DatabaseFullError"}
    assert said["unknown"] == 0, "an append that was refused is stored"
    assert said["halves"] == 0
    conclude("disk full, tables (tmpfs)", said)


def test_a_full_disk_under_the_servers_log_ends_the_server_and_nothing_acknowledged_is_lost(filled):
    """Appends that were under way may be stored: the error is that of a server that went away."""
    said = filled("log")
    assert said["errors"].keys() == {"DatabaseUnavailableError"}
    assert said["halves"] == 0
    conclude("disk full, write-ahead log (tmpfs)", said)
