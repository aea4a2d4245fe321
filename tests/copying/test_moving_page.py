"""docs/moving.md is a recording: its commands run, in their order, and print what it says, but for the numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import blocks

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_walk_from_a_live_sqlite_application_to_postgresql(empty_postgres_url, tmp_path):
    shutil.copy(ROOT / "examples" / "moving" / "writers.py", tmp_path)
    recorded = "".join(blocks((ROOT / "docs" / "moving.md").read_text(encoding="utf-8"), "console"))
    commands = [line[2:] for line in recorded.splitlines() if line.startswith("$ ")]
    assert len(commands) == 14
    script = "\n".join(f"echo {_quoted('$ ' + command)}\n{command}" for command in commands)
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "TARGET": empty_postgres_url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert _without_numbers(done.stdout) == _without_numbers(recorded), done.stderr
    assert not done.stderr


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _without_numbers(text: str) -> list[str]:
    """The lines, without the numbers and addresses that are different each time. How much the copy that followed
    had left for the cut-over is different, too."""
    text = re.sub(r"postgresql://[^\s?]*(\?\S*)?", "postgresql://server", text).replace("server.", "server")
    text = re.sub(
        r"^\d+ events were copied from (.*) to (.*?)\.?$",
        r"Nothing was to be done: \2 holds all of \1.",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r"\b(?!0 )\d+", "N", text)
    return text.splitlines()
