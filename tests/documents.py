"""Documents that run: the code and the commands in them, as a reader would enter them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# Runs blocks one after another in one namespace, as `python -m asyncio` would.
RUNNER = """
import ast, asyncio, inspect, json, sys
loop, names = asyncio.new_event_loop(), {"__name__": "__main__"}
for number, block in enumerate(json.load(sys.stdin), 1):
    code = compile(block, f"<block {number}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        loop.run_until_complete(eval(code, names))
    else:
        exec(code, names)
    print(f"-- {number}")
loop.close()
"""


def blocks(document: str, language: str) -> list[str]:
    """The blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)


def printed_by_python_blocks(document: str, folder: Path, **environment: str) -> list[str]:
    """Run all Python blocks in a process of their own; the lines that they print."""
    code = blocks(document, "python")
    assert document.count("```python") == len(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps(code),
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    numbers = [line for line in lines if line.startswith("-- ")]
    assert numbers == [f"-- {number}" for number in range(1, len(code) + 1)]
    return [line for line in lines if line not in numbers]


def promised_by_comments(document: str) -> list[str]:
    """What the comments beside calls of print() say, those that say it in full."""
    return [
        comment
        for block in blocks(document, "python")
        for comment in re.findall(r"^\s*print\(.*\)  # (.*)$", block, flags=re.MULTILINE)
        if "…" not in comment
    ]
