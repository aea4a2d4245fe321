"""The table of claims is complete, and names tests that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def rows(root):
    lines = (root / "tests" / "claims.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return table[2:]


def test_every_claim_is_there_once(rows):
    assert [int(number) for number, *_ in rows] == list(range(1, 135))


def test_a_claim_without_a_test_says_why(rows):
    untested = {int(number): remarks for number, _, proof, remarks in rows if proof == "none"}
    assert set(untested) == {111}
    assert all(untested.values())


@pytest.mark.slow
def test_every_test_in_the_table_is_in_the_suite(rows, root):
    named = {name.strip() for _, _, proof, _ in rows if proof != "none" for name in proof.split(",")}
    assert all(re.fullmatch(r"test_\w+\.py::test_\w+", name) for name in named)
    collected = subprocess.run(
        # The program, not `-m`: that would put the checkout in front of an installed package.
        [
            str(Path(sys.executable).with_name("pytest")),
            *("--collect-only", "-q", "-m", "", "-p", "no:cacheprovider", "tests/documents/tutorial"),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert collected.returncode == 0, collected.stdout + collected.stderr
    found = set(re.findall(r"tests/documents/tutorial/(test_\w+\.py::test_\w+)", collected.stdout))
    assert named <= found, named - found
