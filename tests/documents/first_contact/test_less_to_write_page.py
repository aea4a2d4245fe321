"""The page on how little has to be written: its program runs, and its numbers are counted."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PROGRAMS = DOCS / "less-to-write"
PAGE = (DOCS / "less-to-write.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["esource_short.py", "esource_long.py"])
def test_both_forms_do_the_same_on_sqlite(program, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAMS / program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("2 shipped TRACK-ABC123\n", "")


def test_the_short_form_runs_on_postgresql_as_it_is(postgres_url, tmp_path):
    text = (PROGRAMS / "esource_short.py").read_text()
    assert text.count("sqlite:///orders.db") == 1  # what moving to a server changes
    program = tmp_path / "orders.py"
    program.write_text(text.replace("sqlite:///orders.db", postgres_url))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("2 shipped TRACK-ABC123\n", "")


def test_the_page_shows_the_program_and_what_was_counted():
    assert f"```python\n{(PROGRAMS / 'esource_short.py').read_text()}```" in PAGE
    assert runpy.run_path(str(PROGRAMS / "count.py"))["table"]() in PAGE
