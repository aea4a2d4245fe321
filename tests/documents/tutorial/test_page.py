"""The tutorial as a reader follows it: the files are written as they stand there, and the commands run as they stand there.

The quick tests also run on the oldest Python that is supported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from documents.tutorial.conftest import ROOT, run_program

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
PYTHON = ".venv/bin/python "


def stages() -> Iterator[tuple[str, str, str]]:
    """Each block of the page: its language, the last line before it, and its text."""
    prose, *rest = re.split(r"^```(\w*)\n", PAGE, flags=re.MULTILINE)
    before = prose.strip().splitlines()[-1]
    for language, text in zip(rest[::2], rest[1::2], strict=True):
        if language:
            yield language, before, text
        elif text.strip():
            before = text.strip().splitlines()[-1]


def promised(program: str) -> list[str]:
    return re.findall(r"^ *print\(.*\)  # (.*)$", program, flags=re.MULTILINE)


def test_every_stage_runs_and_prints_what_it_says(tmp_path: Path, empty_postgres_url: str):
    shown = commands = 0
    for language, before, text in stages():
        if language == "python":
            [file] = re.findall(r"`(\w+\.py)`", before)
            earlier = tmp_path / file
            is_added = "to the end of" in before
            earlier.write_text(f"{earlier.read_text()}\n\n{text}" if is_added else text, encoding="utf-8")
        elif language == "sh" and PYTHON in text:
            file = text.strip().removeprefix(PYTHON)
            printed = run_program(file, tmp_path, DATABASE_URL=empty_postgres_url).splitlines()
            assert printed == promised((tmp_path / file).read_text(encoding="utf-8")), file
            shown += len(printed)
            commands += 1
        elif language == "console":
            for command, expected in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", text, flags=re.MULTILINE):
                if command.startswith(PYTHON):
                    assert run_program(command.removeprefix(PYTHON), tmp_path) == expected
                    commands += 1
    assert (commands, shown) == (6, 5)


def test_no_page_asks_for_a_way_to_run_its_code_that_the_oldest_python_lacks():
    # Before Python 3.13 it takes no block with an empty line inside: each line after that is an IndentationError.
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        assert "python -m asyncio" not in page.read_text(encoding="utf-8"), page


def test_the_tutorial_sets_every_variable_that_it_reads():
    for name in re.findall(r'os\.environ\["(\w+)"\]', PAGE):
        assert f"export {name}=" in PAGE.partition(f'os.environ["{name}"]')[0]
