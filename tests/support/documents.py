"""Documents that run: the code and the commands in them, as a reader would enter them."""

from __future__ import annotations

import ast
import asyncio
import builtins
import gc
import inspect
import logging
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

# Every page and every program runs in a process of its own, forked from one that has imported esource already: that takes
# a second, and most programs less. Where there is no fork, it is imported each time.
_PROCESSES = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
_PROCESSES.set_forkserver_preload(
    [
        "esource.privacy",
        "esource.testing",
        "alembic.command",
        "alembic.config",
        "sqlalchemy.dialects.postgresql.asyncpg",
    ]
    + [
        f"esource.{name}"
        for name in ("projections", "publishing", "store.memory", "store.repository", "schema.migrating")
    ]
    + [f"esource.dialect.{name}.backend" for name in ("sqlite", "postgresql")]
)


def name_of(page: Path) -> str:
    """As a test's name shows it."""
    return page.relative_to(ROOT).as_posix()


def blocks(document: str, language: str) -> list[str]:
    """The blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)


def printed_by_python_blocks(document: str, folder: Path, **environment: str) -> list[str]:
    """Run all Python blocks one after another in a process of their own; the lines that they print."""
    code = blocks(document, "python")
    assert document.count("```python") == len(code)
    printed, complained = folder / "printed.txt", folder / "complained.txt"
    return _ended(
        _PROCESSES.Process(target=_run, args=(code, folder, environment, printed, complained)),
        printed,
        complained,
    ).splitlines()


def printed_by_program(
    program: Path, folder: Path, environment: dict[str, str], ignoring: str | None = None
) -> str:
    """Run a program in a process of its own, in the folder; what it prints. Warnings are errors.

    Args:
        program: Its file.
        folder: Where it runs.
        environment: All of its environment.
        ignoring: A warning that is none, by the name of its class.
    """
    with tempfile.TemporaryDirectory() as apart:  # the folder may be looked at afterwards
        printed, complained = Path(apart, "printed.txt"), Path(apart, "complained.txt")
        arguments = (program, folder, environment, ignoring, printed, complained)
        return _ended(_PROCESSES.Process(target=_run_program, args=arguments), printed, complained)


def _ended(process: Any, printed: Path, complained: Path) -> str:
    """Run a process to its end, which has to be a good one; what it printed."""
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        process.join()
    output, errors = (file.read_text(encoding="utf-8") for file in (printed, complained))
    assert process.exitcode == 0, output + errors
    assert not errors, errors
    return output


def promised_by_comments(document: str) -> list[str]:
    """What the comments beside calls of print() say, those that say it in full."""
    return [
        comment
        for block in blocks(document, "python")
        for comment in re.findall(r"^(?:\s*print\(.*)?\)  # (.*)$", block, flags=re.MULTILINE)
        if "…" not in comment
    ]


def assert_printed_as_promised(document: str, printed: list[str]) -> None:
    """Every promise is among what was printed, in the page's order."""
    rest = iter(printed)
    for promise in promised_by_comments(document):
        assert promise in rest, f"not printed, or not in its place: {promise}"


def _write_to(printed: Path, complained: Path) -> None:
    """In the process itself: what it prints and complains of goes into these files."""
    for number, file in ((1, printed), (2, complained)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)


def _run_program(
    program: Path,
    folder: Path,
    environment: dict[str, str],
    ignoring: str | None,
    printed: Path,
    complained: Path,
) -> None:
    """In the program's own process: what ``python -W error PROGRAM`` does."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = [str(program)]
    sys.path.insert(0, str(program.parent))
    _write_to(printed, complained)
    warnings.simplefilter("error")
    if ignoring is not None:
        warnings.simplefilter("ignore", getattr(builtins, ignoring))
    runpy.run_path(str(program), run_name="__main__")
    gc.collect()  # what was left open complains now


def _run(code: list[str], folder: Path, environment: dict[str, str], printed: Path, complained: Path) -> None:
    """In the page's own process: the blocks in one namespace, as a notebook would."""
    os.chdir(folder)
    os.environ.update(environment)
    # A page that lets something fail has that said in the log: no complaint of Python's.
    logging.getLogger("esource").addHandler(logging.NullHandler())
    sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "examples" / "decisions")]
    _write_to(printed, complained)
    warnings.simplefilter("error")
    # Some pages show failures, and the library logs these.
    logging.getLogger("esource").addHandler(logging.NullHandler())
    loop, names = asyncio.new_event_loop(), {"__name__": "__main__"}
    for number, block in enumerate(code, 1):
        compiled = compile(
            block, f"<block {number}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        if compiled.co_flags & inspect.CO_COROUTINE:
            loop.run_until_complete(eval(compiled, names))
        else:
            exec(compiled, names)
    loop.close()
    names.clear()
    gc.collect()  # what was left open complains now
