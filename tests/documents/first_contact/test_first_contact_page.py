"""The page on first contact: every step leads where it says, and the lines are counted."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT))  # last: the esource that the tests run on may be an installed one

from bench.first_contact import FILTER, PROGRAMS, SETTING, steps, take

PAGE = (ROOT / "docs" / "first-contact.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_step_from_the_first_event_to_the_move_works(tmp_path, empty_postgres_url):
    for step in steps(empty_postgres_url):
        take(step, tmp_path, Path(sys.executable).parent)


def test_the_page_shows_each_program_and_each_setting():
    for program in ("event", "aggregate", "projection"):
        text = (PROGRAMS / f"{program}.py").read_text(encoding="utf-8")
        assert f"```python\n{text.partition(chr(10) * 2)[2]}```" in PAGE, program
    assert f"```ini\n{SETTING}\n```" in PAGE
    assert f"`{FILTER}`" in PAGE


def test_the_page_counts_commands_and_lines_as_they_are():
    found = dict(re.findall(r"^\| ([^|]+) \| (\d+ \| \d+) \| [\d.]+ \|$", PAGE, flags=re.MULTILINE))
    for step in steps("postgresql://server/database"):
        assert found[step.name] == f"{len(step.commands)} | {step.lines}", step.name
