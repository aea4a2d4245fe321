"""All that tries to break the promises, round after round, each with a seed of its own, until the time is up.

    python tests/adversity/torture [--seed N] [--minutes M] [--effort E] [--report FILE] [PATH ...]

Ends with the table of the faults: how often each struck, and what became of the events. The first round that fails ends
the run with exit code 1, its seed, and the command that repeats it. A seed decides what is drawn; how processes and
servers interleave it does not, so that a failure may take several rounds to come again. ``PYTEST_ADDOPTS`` reaches
pytest: ``-n 0`` in it runs one test after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PLACES = [
    "tests/adversity/torture",
    "tests/adversity/faults",
    "tests/adversity/histories",
    "tests/adversity/model",
    "tests/adversity/hostile",
    "tests/copying/test_kills.py",
    "tests/schema/test_initialize.py",
    "tests/projections/test_sharing.py::test_a_worker_killed_at_any_moment_leaves_what_a_rebuild_gives",
]
"""Where the tests are that kill, break, cancel, draw and check."""

COUNTS = ("injected", "errors", "written", "lost", "duplicated", "skipped")


def main(arguments: list[str]) -> int:
    given = parser().parse_args(arguments)
    seed = random.randrange(10**6) if given.seed is None else given.seed
    end = time.monotonic() + given.minutes * 60
    print(f"torture: {', '.join(versions())}", flush=True)
    with tempfile.TemporaryDirectory(prefix="esource-torture-") as folder:
        report = given.report or Path(folder) / "report"
        rounds = 0
        while True:
            print(f"torture: seed {seed + rounds}, effort {given.effort}", flush=True)
            code = run(seed + rounds, given.effort, report, given.paths or PLACES)
            if code:
                repeat = [f"--seed {seed + rounds} --effort {given.effort} --minutes 0", *given.paths]
                print(f"torture: FAILED with seed {seed + rounds}: nox -s torture -- {' '.join(repeat)}")
                return 1
            rounds += 1
            if time.monotonic() >= end:
                break
        print(table(report.read_text(encoding="utf-8").splitlines() if report.exists() else []))
    print(f"torture: {rounds} rounds, seeds {seed} to {seed + rounds - 1}, nothing broke")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nox -s torture --", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="of the first round; drawn and printed by default")
    parser.add_argument(
        "--minutes", type=float, default=30, help="begin no round after these (30); 0 is one round"
    )
    parser.add_argument("--effort", type=int, default=3, help="how many times what a plain `pytest` does (3)")
    parser.add_argument(
        "--report", type=Path, help="keep what was counted, a line of JSON each, in this file"
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="these tests instead of all")
    return parser


def run(seed: int, effort: int, report: Path, paths: list[str]) -> int:
    """One round; pytest's exit code."""
    environment = {
        "ESOURCE_TEST_SEED": str(seed),
        "ESOURCE_TEST_EFFORT": str(effort),
        "ESOURCE_TEST_REPORT": str(report.resolve()),
    }
    command = [
        # The program, not `python -m`: that would put the checkout in front of the installed package.
        str(Path(sys.executable).with_name("pytest")),
        *("-c", "pyproject.toml", "--rootdir", ".", "-q", "-m", ""),
        # More is done than by a plain `pytest`, and on a machine that may be busy with it.
        *("--timeout", str(600 + 300 * effort), f"--hypothesis-seed={seed}"),
    ]
    return subprocess.run(
        [*command, *paths], cwd=ROOT, env={**os.environ, **environment}, check=False
    ).returncode


def versions() -> list[str]:
    """Of everything that a result may depend on."""
    packages = [f"{name} {version(name)}" for name in ("esource", "sqlalchemy", "aiosqlite", "asyncpg")]
    return [
        f"Python {platform.python_version()}",
        f"SQLite {sqlite3.sqlite_version}",
        f"PostgreSQL {asyncio.run(postgresql_version())}",
        *packages,
    ]


async def postgresql_version() -> str:
    import asyncpg

    from esource.testing.server import dsn, postgres_server

    with postgres_server() as url:
        connection = await asyncpg.connect(**dsn(url))
        try:
            return str(await connection.fetchval("SHOW server_version")).split()[0]
        finally:
            await connection.close()


def table(lines: list[str]) -> str:
    """What the tests counted, one line for each fault and database, as Markdown."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    tests: dict[tuple[str, str], str] = {}
    for line in lines:
        said = json.loads(line)
        key = (said["fault"], said["database"])
        counts = sums.setdefault(key, dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            counts[name] += said[name]
        tests[key] = said["test"]
    rows = ["| fault | database | " + " | ".join(COUNTS) + " | test |", "|---|---|" + "---:|" * 6 + "---|"]
    for key, counts in sorted(sums.items(), key=lambda item: (tests[item[0]], item[0])):
        rows.append(f"| {key[0]} | {key[1]} | {' | '.join(map(str, counts.values()))} | `{tests[key]}` |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
