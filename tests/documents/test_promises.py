"""docs/promises.md names the tests that hold esource to it: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"


def test_every_test_that_a_promise_names_exists():
    named = re.findall(r"`([\w/]+/test_\w+\.py)(?:::(test_\w+))?`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    for file, test in named:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^(async )?def {test}\(", text, flags=re.MULTILINE), f"{file}::{test}"


def test_every_promise_names_its_tests():
    sections = re.split(r"^###? ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    promises = [section for section in sections if "\n*Not promised*" in section]
    assert len(promises) > 8
    assert [section.splitlines()[0] for section in promises if "\n*Tests*: `" not in section] == []


def test_every_row_of_a_table_of_faults_names_its_test():
    text = PAGE.read_text(encoding="utf-8")
    for title in ("What survives what", "What the machine found"):
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        assert len(rows) > 20
        assert [row for row in rows if "::test_" not in row] == []


def test_every_file_of_tests_that_try_to_break_promises_is_named():
    text = PAGE.read_text(encoding="utf-8")
    folders = ("faults", "histories", "model", "hostile", "powercut")
    files = [file for folder in folders for file in (TESTS / "adversity" / folder).glob("test_*.py")]
    assert [file.name for file in files if f"`{file.relative_to(TESTS)}" not in text] == []
