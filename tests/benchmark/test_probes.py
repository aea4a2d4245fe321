"""The probes of `bench.probes` run, and count right. What the peers do is not a test."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from support.documents import ROOT
from support.matrix import databases

from bench.probes.__main__ import faults, table
from bench.probes.probe import PROBES, judged
from bench.probes.subject import is_kept

KINDS = {"sqlite": "sqlite-normal", "postgresql": "postgresql"}


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a minute on two cores that nobody else uses
@pytest.mark.parametrize("name", [name for name in databases() if name in KINDS])
def test_no_probe_finds_anything_wrong_with_esource(name, tmp_path, request):
    options = [
        "--contender",
        "esource",
        "--scale",
        "0.1",
        "--database",
        KINDS[name],
        "--folder",
        str(tmp_path),
    ]
    if name == "postgresql":
        server = request.getfixturevalue("postgres_server")
        options += ["--postgres-url", server.render_as_string(hide_password=False)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.probes", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for probe, (_, kinds) in PROBES.items():
        assert (f"| {probe} |" in done.stdout) == (KINDS[name] in kinds)


def test_what_is_lost_and_what_is_there_twice_is_counted():
    assert judged(["a", "b", "c"], ["a", "c", "c", "d"]) == {"acknowledged": 3, "lost": 1, "duplicated": 1}


def test_a_value_is_kept_if_it_is_equal_and_of_its_type():
    naive = datetime(2024, 7, 1)
    assert is_kept(math.nan, math.nan)
    assert not is_kept(1.0, 1)
    assert not is_kept(naive, naive.replace(tzinfo=timezone.utc))


def test_only_esource_fails_the_run_and_everybody_is_in_the_table():
    results = {
        ("follow", "SQLite", "esource"): {"lost": 0},
        ("follow", "SQLite", "other"): {"lost": 2, "errors": 1},
    }
    assert faults(results) == []
    assert table(results, ["esource", "other"]).splitlines()[2:] == [
        "| follow | SQLite | lost | 0 | 2 |",
        "| follow | SQLite | errors |  | 1 |",
    ]
    results["follow", "SQLite", "esource"] = {"lost": 1}
    assert faults(results) == [("follow", "SQLite", "esource")]
