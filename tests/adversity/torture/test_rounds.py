"""`nox -s torture` goes on until the time is up, repeats nothing that broke, and says which seed it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adversity.torture.__main__ import PLACES, ROOT, table

TEST = """
import os
from support.tally import Tally

def test_that_breaks_with_the_seed():
    tally = Tally("power cut", "sqlite", 1, written=3)
    assert os.environ["ESOURCE_TEST_SEED"] != "{bad}"
    tally.conclude()
"""


def torture(*arguments: str, test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "test_it.py"
    path.write_text(test)
    return subprocess.run(
        [sys.executable, "tests/adversity/torture", *arguments, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "-n 0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "code"), [("7", 0), ("6", 1)])
def test_the_seed_that_breaks_something_is_named(tmp_path: Path, bad: str, code: int):
    report = tmp_path / "report"
    options = ["--seed", "6", "--minutes", "0", "--effort", "2", "--report", str(report)]
    done = torture(*options, test=TEST.format(bad=bad), folder=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "FAILED with seed 6: nox -s torture -- --seed 6 --effort 2 --minutes 0" in done.stdout
    else:
        assert "| power cut | sqlite | 1 | 0 | 3 | 0 | 0 | 0 |" in done.stdout
        assert "seeds 6 to 6" in done.stdout
        assert json.loads(report.read_text())["fault"] == "power cut"


def test_what_several_rounds_counted_is_added_up():
    tally = {
        "fault": "f",
        "database": "d",
        "test": "adversity/faults/test_files.py::test_it",
        "errors": 1,
        "lost": 0,
    }
    line = json.dumps({**tally, "injected": 2, "written": 3, "duplicated": 0, "skipped": 0})
    assert table([line, line]).splitlines()[2:] == [
        "| f | d | 4 | 2 | 6 | 0 | 0 | 0 | `adversity/faults/test_files.py::test_it` |"
    ]


def test_every_place_that_is_tortured_exists():
    assert [place for place in PLACES if not (ROOT / place.split("::")[0]).exists()] == []
