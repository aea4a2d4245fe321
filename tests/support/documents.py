"""Documents that run: the code and the commands in them, as a reader would enter them."""

from __future__ import annotations

import ast
import asyncio
import gc
import inspect
import logging
import multiprocessing
import os
import re
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

# Every page runs in a process of its own, forked from one that has imported esource already. Where there is no
# fork, it is imported each time.
_PROCESSES = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
_PROCESSES.set_forkserver_preload(["esource.privacy", "esource.testing", "alembic.command"])


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
    process = _PROCESSES.Process(target=_run, args=(code, folder, environment, printed, complained))
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
    errors = complained.read_text(encoding="utf-8")
    assert process.exitcode == 0, printed.read_text(encoding="utf-8") + errors
    assert not errors, errors
    return printed.read_text(encoding="utf-8").splitlines()


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


def _run(code: list[str], folder: Path, environment: dict[str, str], printed: Path, complained: Path) -> None:
    """In the page's own process: the blocks in one namespace, as a notebook would."""
    os.chdir(folder)
    os.environ.update(environment)
    # A page that lets something fail has that said in the log: no complaint of Python's.
    logging.getLogger("esource").addHandler(logging.NullHandler())
    sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "examples" / "decisions")]
    for number, file in ((1, printed), (2, complained)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
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
