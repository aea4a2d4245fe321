"""docs/promises.md names the tests that hold esource to it: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "promises.md"


def test_every_test_that_a_promise_names_exists():
    named = re.findall(r"`(\w+/test_\w+\.py)(?:::(test_\w+))?`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 40
    for file, test in named:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^(async )?def {test}\(", text, flags=re.MULTILINE), f"{file}::{test}"


def test_every_promise_names_its_tests():
    sections = re.split(r"^###? ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    promises = [section for section in sections if "\n*Not promised*" in section]
    assert len(promises) > 8
    assert [section.splitlines()[0] for section in promises if "\n*Tests*: `" not in section] == []
