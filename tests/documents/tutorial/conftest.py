"""Running the examples as a reader would: in an empty folder, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from support.documents import printed_by_program

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
UUIDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

RunExample = Callable[..., str]


def run_program(program: str, cwd: Path, *, ignoring: str | None = None, **environment: str) -> str:
    """What a program prints, ids masked. Warnings are errors, as in the tests themselves."""
    return UUIDS.sub(
        "[UUID]", printed_by_program(cwd / program, cwd, {**os.environ, **environment}, ignoring)
    )


def run_text(code: str, cwd: Path, **environment: str) -> str:
    """The same of a program's text, in an interpreter that has loaded nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return UUIDS.sub("[UUID]", done.stdout)


@pytest.fixture
def run_example(tmp_path: Path) -> RunExample:
    """Runs an example in the test's own folder; its output."""

    def run(name: str, **options: str) -> str:
        return run_program(str(EXAMPLES / name), tmp_path, **options)

    return run


@pytest.fixture
def examples() -> Path:
    return EXAMPLES


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def run_code(tmp_path: Path) -> RunExample:
    """Runs a text of Python in a process of its own, beside the examples' modules; its output."""

    def run(code: str, **environment: str) -> str:
        return run_text(code, tmp_path, PYTHONPATH=str(EXAMPLES), **environment)

    return run


@pytest.fixture
def engine_url(postgres_url: str) -> str:
    """The PostgreSQL database's URL as SQLAlchemy's create_async_engine wants it."""
    return make_url(postgres_url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
