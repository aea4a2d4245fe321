"""Commands run inside the test's process: fast, and as they end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

from typer.testing import CliRunner, Result

from esource.cli.app import app

# Click before 8.2 mixes standard error into the output unless told not to; later versions keep both.
SEPARATE = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


class Runner(CliRunner):
    """One that sees all of standard error; Click before 8.2 looks at it without emptying its buffer."""

    @contextmanager
    def isolation(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        with super().isolation(*arguments, **options) as streams:
            sys.stderr.reconfigure(write_through=True)
            yield streams


async def esource(*arguments: object, stdin: str | None = None) -> Result:
    """Run a command; in a thread, since it runs an event loop of its own."""
    texts = [str(argument) for argument in arguments]
    return await asyncio.to_thread(Runner(**SEPARATE).invoke, app, texts, stdin)
