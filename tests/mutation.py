"""Mutation testing, module by module: changes the code at one place at a time and sees whether a test notices.

    python tests/mutation.py [--sample N] [--seed N] [codec log ...]

mutmut makes the mutants in a copy of the tracked files, so that none gets into the checkout. Each module has
its own narrow set of tests, in memory, and a wider one for those that survive: all tests for each mutant would
take days. Mutants of texts that only people read are left out. `tests/mutants.md` explains what survived.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]

TESTS = {
    "codec": [
        "tests/codec",
        "tests/adversity/hostile/test_limits.py",
        "tests/privacy/test_sealing.py",
        "tests/log/test_duplicates.py",
        "tests/log/test_reading.py",
    ],
    "copying": ["tests/copying", "--ignore=tests/copying/test_kills.py"],
    "log": ["tests/log", "tests/store", "tests/adversity/hostile/test_limits.py"],
    "repositories": ["tests/repositories", "tests/log/test_outbox_rows.py"],
    "store": ["tests/store", "tests/log", "tests/privacy/test_sealing.py"],
}
"""The tests that are to notice, by room of esource."""

AGAIN = {
    "codec": [
        "tests/codec",
        "tests/domain/test_upcasters.py",
        "tests/privacy/test_sealing.py",
        "tests/documents/tutorial/test_claims_uuids.py",
    ],
    "copying": ["tests/copying", "tests/cli/test_keeping.py"],
    "log": [
        "tests/log",
        "tests/store",
        "tests/privacy/test_sealing.py",
        "tests/adversity/hostile/test_limits.py",
    ],
    "repositories": ["tests/repositories", "tests/projections/test_running.py", "tests/publishing"],
    "store": ["tests/store", "tests/log", "tests/privacy/test_sealing.py"],
}
"""The wider tests that a mutant has to survive as well, on a SQLite file and PostgreSQL."""

NOT_THESE = "not any_event and not pages and not killed"
"""Tests that draw their values take long, and kill a mutant in one run but not in the next."""

SETTINGS = """
[tool.mutmut]
source_paths = ["esource"]
only_mutate = ["esource/{module}/*.py"]
# What only people read: the texts of errors, and what they advise.
do_not_mutate_patterns = ['raise \\w+Error\\(', '^\\s+f?".*",?$', 'remedy=']
also_copy = ["alembic.ini", "bench", "docs", "examples", "migrations", "CHANGELOG.md", "README.md"]
pytest_add_cli_args = ["-n", "0", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
# Each mutant in a child of a process that never had an event loop, a thread or a connection.
process_isolation = "forkserver"
track_dependencies = false
# Seconds, times fifteen: on a loaded machine the start alone can take longer than the tests.
timeout_constant = 3.0
"""

GENERATE = """
from mutmut.__main__ import *
Path("mutants").mkdir()
set_mutant_under_test("mutant_generation")
copy_src_dir()
copy_also_copy_files()
setup_source_paths()
create_mutants(2)
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int, help="try this many of a module's mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--narrow", action="store_true", help="leave out the wider tests")
    arguments = parser.parse_args()
    for module in arguments.modules:
        with tempfile.TemporaryDirectory(prefix="esource-mutants-") as folder:
            try_module(Path(folder), module, arguments)
    return 0


def try_module(folder: Path, module: str, arguments: argparse.Namespace) -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as settings:
        settings.write(SETTINGS.format(module=module, tests=json.dumps([*TESTS[module], "-k", NOT_THESE])))

    # In memory all is ten times as quick; a copy needs two databases that can be opened again.
    database = "sqlite" if module == "copying" else "memory"
    environment = {"ESOURCE_TEST_DATABASES": database, **os.environ}
    subprocess.run(
        [sys.executable, "-c", GENERATE], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    names = sorted(states(folder))
    chosen = names
    if arguments.sample is not None and arguments.sample < len(names):
        chosen = random.Random(arguments.seed).sample(names, arguments.sample)
    subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", str(arguments.children), *chosen],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found = {name: state for name, state in states(folder).items() if name in set(chosen)}
    for name, state in found.items():
        if not arguments.narrow and state != "killed" and is_noticed_by_others(folder, name, module):
            found[name] = "killed by the wider tests"
    counts = ", ".join(f"{count} {state}" for state, count in Counter(found.values()).most_common())
    print(f"{module}: {len(names)} mutants, {len(chosen)} tried: {counts}", flush=True)
    for name, state in found.items():
        if not state.startswith("killed"):
            print(f"\n{state}: {name}", flush=True)
            subprocess.run(
                [sys.executable, "-m", "mutmut", "show", name], cwd=folder, env=environment, check=False
            )


def is_noticed_by_others(folder: Path, name: str, module: str) -> bool:
    place = folder / "mutants"
    environment = {
        **os.environ,
        "ESOURCE_TEST_DATABASES": "sqlite,postgresql",
        "MUTANT_UNDER_TEST": name,
        "PYTHONPATH": str(place),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        "-p",
        "no:cacheprovider",
        "-k",
        NOT_THESE,
    ]
    return bool(
        subprocess.run(
            [*command, *AGAIN[module]], cwd=place, env=environment, check=False, capture_output=True
        ).returncode
    )


def states(folder: Path) -> dict[str, str]:
    """What became of each mutant, from mutmut's records."""
    words = {
        0: "survived",
        1: "killed",
        2: "killed",
        3: "killed",
        5: "not reached",
        33: "not reached",
        None: "not tried",
    }
    return {
        name: words.get(code, "timed out")
        for record in sorted((folder / "mutants").rglob("*.meta"))
        for name, code in json.loads(record.read_text(encoding="utf-8"))["exit_code_by_key"].items()
    }


if __name__ == "__main__":
    sys.exit(main())
