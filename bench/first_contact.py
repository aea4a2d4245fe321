"""``python -m bench.first_contact``: how long a newcomer takes, from an empty virtual environment.

The programs are those of `docs/first-contact`; every step is what its page says, with nothing prepared. Counted are
the commands that are entered, and the lines that are written, without imports, docstrings and blank lines. What the
time of an installation depends on is the network, or pip's cache.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.client import ROOT
from bench.databases import opened

PROGRAMS = ROOT / "docs" / "first-contact"


@dataclass(frozen=True)
class Step:
    """One thing that a newcomer wants to see."""

    name: str
    commands: Sequence[str]
    lines: int
    """That are written by hand before the commands."""
    prints: str
    """How the last command's last line ends."""
    prepare: Callable[[Path], None] = lambda folder: None
    """Writes those lines."""


def lines_of(program: Path) -> int:
    """Lines of a program that say something of their own."""
    text = program.read_text(encoding="utf-8")
    tree = ast.parse(text)
    left_out: set[int] = set()
    for node in tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_text:
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in left_out
    )


def _program(name: str, what: str, prints: str) -> Step:
    return Step(
        what,
        [f"python {name}.py"],
        lines_of(PROGRAMS / f"{name}.py"),
        prints,
        lambda folder: (folder / f"{name}.py").write_text((PROGRAMS / f"{name}.py").read_text()) and None,
    )


SETTING = "sqlalchemy.url = sqlite:///events.db"
"""What is set in the `alembic.ini` that `alembic init` has made."""
FILTER = "include_name=include_name"
"""What both calls of `context.configure` in its `env.py` get."""


def _set_up_alembic(folder: Path) -> None:
    place = folder / "alembic.ini"
    text = place.read_text(encoding="utf-8")
    place.write_text(re.sub(r"^sqlalchemy\.url = .*$", SETTING, text, flags=re.MULTILINE), encoding="utf-8")
    place = folder / "migrations" / "env.py"
    text = place.read_text(encoding="utf-8")
    assert text.count("target_metadata=target_metadata") == 2
    text = text.replace("target_metadata=target_metadata", f"target_metadata=target_metadata, {FILTER}")
    place.write_text(f"from esource.schema import include_name\n{text}", encoding="utf-8")


def steps(postgres_url: str) -> list[Step]:
    """Everything after the installation, in order."""
    return [
        _program("event", "the first stored event", "1"),
        _program("aggregate", "the first aggregate", "120"),
        _program("projection", "the first projection", "220"),
        Step("an Alembic of one's own", ["alembic init migrations"], 0, ""),
        Step(
            "the first migration in it",
            ["alembic revision -m customers", "alembic upgrade head"],
            3,
            "",
            _set_up_alembic,
        ),
        Step(
            "the move to PostgreSQL",
            [
                f"esource copy sqlite:///events.db {postgres_url}",
                f"esource cut-over sqlite:///events.db {postgres_url}",
            ],
            0,
            "",
        ),
        Step(
            "the same program there",
            ["python aggregate.py"],
            1,
            "120",
            lambda folder: _point(folder / "aggregate.py", postgres_url),
        ),
    ]


def _point(program: Path, url: str) -> None:
    text = program.read_text()
    assert text.count("sqlite:///events.db") == 1
    program.write_text(text.replace("sqlite:///events.db", url))


def take(step: Step, folder: Path, programs: Path) -> float:
    """Take a step in a folder, with the commands of an environment; the seconds that its commands took.

    Raises:
        RuntimeError: a command failed, or printed something else.
    """
    step.prepare(folder)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    started, printed = time.perf_counter(), ""
    for command in step.commands:
        done = subprocess.run(
            command.split(),
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        printed = done.stdout.rstrip()
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
    if not printed.endswith(step.prints):
        raise RuntimeError(f"{step.commands[-1]} printed {printed!r}")
    return time.perf_counter() - started


def _install(folder: Path, requirement: str, extras: str) -> float:
    started = time.perf_counter()
    python = folder / ".venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    subprocess.run(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            f"{requirement}[{extras}]",
        ],
        check=True,
    )
    return time.perf_counter() - started


def measure(folder: Path, requirement: str, postgres_url: str | None) -> str:
    """The table for people."""
    rows = ["| | commands | lines | seconds |", "|---|---|---|---|"]
    application = folder / "application"
    shutil.rmtree(application, ignore_errors=True)
    application.mkdir(parents=True)
    rows.append(f"| install `esource[sqlite]` | 2 | 0 | {_install(application, requirement, 'sqlite'):.1f} |")
    with opened("postgresql", folder / "data", postgres_url) as databases:
        for step in steps(databases.new(1).address):
            commands = len(step.commands)
            if "PostgreSQL" in step.name:
                seconds = _install(application, requirement, "cli,postgresql")
                rows.append(f"| install `esource[cli,postgresql]` | 1 | 0 | {seconds:.1f} |")
            seconds = take(step, application, application / ".venv" / "bin")
            rows.append(f"| {step.name} | {commands} | {step.lines} | {seconds:.1f} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.first_contact", description=__doc__)
    parser.add_argument("--requirement", default=str(ROOT), help="what pip installs (default: this checkout)")
    parser.add_argument("--postgres-url", help="a server where databases may be created")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        print(measure(Path(folder), given.requirement, given.postgres_url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
