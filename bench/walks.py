"""The way of one call through the files of esource: `python -m bench.walks`.

A frame is a call of one of esource's functions. A stay is a run of frames in one file. A return is a stay in a file
that the call had been in before: somebody who reads the code has to go back there. Only first calls count: a coroutine
that goes on after it has waited is no new call, and a comprehension is none either. What a SQLite connection does in its
own thread is counted with it.

Each call is walked warm, on a SQLite file, as in CONTRIBUTING's table.

The aims are 14 stays and 4 returns (an append), 16 and 8 (reading two events), 20 and 10 (loading an aggregate of two
events). Where a walk is longer, these calls make it so:

- The check of a time zone stands at the event's class, and pydantic calls it for each event that is read.
- Values of parameters are encoded where the types of columns are, so that both are changed together.
- A stream says itself whether it is closed, and an aggregate applies its events itself.
- A SQLite connection looks at its file before each commit, the queue asks before each append whether others are likely to
  come, and text is checked where all values are checked.

A copy of each in the place from which it is called would shorten the walk and make the code worse.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import esource
from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    DomainEvent,
    EventStore,
    handles,
    open_store,
    register_event,
)

HOUSE = str(Path(esource.__file__).parent)
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
"""Functions of their own before Python 3.12."""


@register_event
class Moved(DomainEvent):
    aggregate_type: str = "Thing"
    place: str = ""


class Thing(DeclarativeAggregate[str]):
    aggregate_type = "Thing"

    def _get_initial_state(self) -> str:
        return ""

    @handles(Moved)
    def moved(self, event: Moved) -> None:
        self._state = event.place


class Walk(NamedTuple):
    """The files of a call, one for each frame, in the order of the calls."""

    frames: list[tuple[str, str]]

    @property
    def stays(self) -> list[str]:
        files = [file for file, _ in self.frames]
        return [file for before, file in zip([None, *files], files, strict=False) if file != before]

    def __str__(self) -> str:
        stays = self.stays
        files = len(set(stays))
        return f"{len(self.frames):>6} frames {files:>4} files {len(stays):>4} stays {len(stays) - files:>4} returns"


class Walker:
    """Counts the frames inside esource, in this thread and in those that are started meanwhile."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str]] | None = None
        self._seen: set[int] = set()
        self._kept: list[FrameType] = []

    def __call__(self, frame: FrameType, what: str, _: Any) -> None:
        frames = self.frames
        code: CodeType = frame.f_code
        if frames is None or what != "call" or not code.co_filename.startswith(HOUSE):
            return
        if code.co_name in COMPREHENSIONS:
            return
        if id(frame) in self._seen:
            return
        self._seen.add(id(frame))
        self._kept.append(frame)  # so that no other frame gets its id
        frames.append((code.co_filename.removeprefix(HOUSE + "/"), code.co_name))

    async def walk(self, call: Callable[[], Awaitable[Any]]) -> Walk:
        """The second of two calls: the first one compiles statements and opens connections."""
        await call()
        self.frames = []
        await call()
        frames, self.frames = self.frames, None
        self._seen.clear()
        self._kept.clear()
        return Walk(frames)


async def walks(store: EventStore, walker: Walker) -> dict[str, Walk]:
    """The ways of an append of one event, of reading a log of two events, and of loading an aggregate of one."""
    things = AggregateRepository(store, Thing)
    thing = uuid4()

    events = [Moved(aggregate_id=thing, place=place) for place in ("here", "there")]

    async def append() -> None:
        event = events.pop()
        await store.append_events(event.aggregate_id, "Thing", [event])

    async def read_all() -> None:
        assert len([stored.event async for stored in store.read_all()]) == 2

    async def load() -> None:
        await things.load(thing)

    return {
        "append_events": await walker.walk(append),
        "read_all": await walker.walk(read_all),
        "load": await walker.walk(load),
    }


async def main(*, in_full: bool) -> None:
    walker = Walker()
    threading.setprofile(walker)
    sys.setprofile(walker)
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(f"sqlite:///{folder}/events.db", enable_tracing=False) as store:
            await store.initialize()
            found = await walks(store, walker)
    sys.setprofile(None)
    threading.setprofile(None)
    for name, walk in found.items():
        print(f"{name:<14} {walk}")
        if in_full:
            for file, function in walk.frames:
                print(f"    {file:<32} {function}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.walks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="print every frame")
    asyncio.run(main(in_full=parser.parse_args().full))
