"""A process that moves a log of a directory, and is killed at one moment of that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from esource.copying import log, stores
from esource.directory import Directory, moving
from esource.directory.records import Records


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    async def killed(*_: Any, **__: Any) -> None:
        die()

    setattr(owner, name, killed)


def after(owner: Any, name: str) -> None:
    work = getattr(owner, name)

    async def killed(*arguments: Any, **options: Any) -> None:
        await work(*arguments, **options)
        die()

    setattr(owner, name, killed)


STAGES = {
    "noted": lambda: before(moving, "copy_store"),
    "in the copy": lambda: after(log.LogCopy, "begin"),
    "copied": lambda: before(moving, "cut_over"),
    "writers wait": lambda: after(stores._Move, "refuse_moved"),
    "fenced off": lambda: before(stores._Move, "finish"),
    "cut over": lambda: before(Records, "set_place"),
    "done": lambda: after(Records, "set_place"),
}
"""What makes the process die at each moment."""


async def move(url: str, name: str, place: str, nth: int) -> None:
    if nth:  # in the midst of copying, whatever it has come to
        count = 0

        def counted(_: object) -> None:
            nonlocal count
            count += 1
            if count == nth:
                die()

    async with Directory(url, enable_tracing=False) as directory:
        await directory.move(name, place, on_progress=counted if nth else None)


if __name__ == "__main__":
    url, name, place, stage = sys.argv[1:]
    log.CHUNK_EVENTS = 20
    log.FIRST_PAGE = 5
    if stage in STAGES:
        STAGES[stage]()
    asyncio.run(move(url, name, place, 0 if stage in STAGES else int(stage)))
