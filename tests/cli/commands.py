"""Commands run inside the test's process: fast, and as they end."""

from __future__ import annotations

import asyncio

from typer.testing import CliRunner, Result

from esource.cli.app import app


async def esource(*arguments: object, stdin: str | None = None) -> Result:
    """Run a command; in a thread, since it runs an event loop of its own."""
    texts = [str(argument) for argument in arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, texts, stdin)
