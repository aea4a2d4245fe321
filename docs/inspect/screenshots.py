"""Draws the pictures of ``docs/inspect.md``: runs the shop example, and `esource inspect` on its store.

    python docs/inspect/screenshots.py

Every run has other ids and moments; the pictures are looked at, not compared.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "shop"))

from main import trade  # noqa: E402
from readmodel import Mails, Sales  # noqa: E402

from esource import (  # noqa: E402
    EventStore,
    OutboxRelay,
    ProjectionRunner,
    open_store,
)
from esource.tui.app import Inspector  # noqa: E402

LARGE, SMALL = (132, 36), (80, 24)

Steps = Callable[[Any], Awaitable[None]]


class Broker:
    """Takes every message but one."""

    async def publish(self, entry: Any) -> None:
        if entry.event_data.get("parcel") == "PX-4":
            raise ConnectionError("the broker has closed the connection")


async def fill(store: EventStore) -> None:
    """Some days in the shop, of which the last was a bad one."""
    for _ in range(5):
        await trade(store)
    await ProjectionRunner(store, Sales()).run(live=False)
    await ProjectionRunner(store, Mails()).run(live=False)
    await OutboxRelay(store, Broker(), max_attempts=1).drain()
    await trade(store)


def without_paths(file: str) -> None:
    """Tracebacks as if everything lay in one folder: the pictures are not about this machine's."""
    connection = sqlite3.connect(file)
    for row, trace in connection.execute("SELECT id, error_stacktrace FROM dead_letter_queue").fetchall():
        shorter = re.sub(r'File "[^"]*/(site-packages|examples|esource)/', r'File "\1/', trace)
        connection.execute("UPDATE dead_letter_queue SET error_stacktrace = ? WHERE id = ?", (shorter, row))
    connection.commit()
    connection.close()


async def draw(url: str, name: str, size: tuple[int, int], steps: Steps, theme: str = "textual-dark") -> None:
    """One picture."""
    async with open_store(url, read_only=True, unknown_events="untyped") as store:
        app = Inspector(store)
        async with app.run_test(size=size) as pilot:
            app.theme = theme
            await quiet(pilot)
            await steps(pilot)
            await quiet(pilot)
            app.save_screenshot(f"{name}.svg", path=str(HERE))


async def quiet(pilot: Any) -> None:
    """What was asked for has been read and drawn."""
    for _ in range(3):
        await pilot.pause(0.3)


def keys(*names: str) -> Steps:
    async def press(pilot: Any) -> None:
        for name in names:
            await pilot.press(name)
            await quiet(pilot)

    return press


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        url = "sqlite:///shop.db"
        async with open_store(url, outbox_enabled=True) as store:
            await store.initialize()
            await fill(store)
        without_paths("shop.db")
        await draw(url, "streams", LARGE, keys("down"))
        await draw(url, "stream", LARGE, keys("down", "enter"))
        await draw(url, "log", LARGE, keys("2", "down", "down"))
        await draw(url, "projections", LARGE, keys("3"))
        await draw(url, "dead-letters", LARGE, keys("4"))
        await draw(url, "outbox", LARGE, keys("5"))
        await draw(url, "help", SMALL, keys("question_mark"))
        await draw(url, "small", SMALL, keys("2"))
        await draw(url, "light", LARGE, keys("2"), theme="textual-light")


if __name__ == "__main__":
    asyncio.run(main())
