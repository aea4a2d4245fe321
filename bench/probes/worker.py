"""One process of a contender, doing one thing: ``python -m bench.probes.worker CONTENDER TASK JSON``.

What happens is written as lines of JSON to standard output, each after it has happened, so that a process that is killed
has claimed nothing that it was not told.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from importlib import import_module
from typing import Any
from uuid import uuid4

from bench.contenders import entry
from bench.contenders.base import Target
from bench.probes.subject import VALUES, is_kept

PATIENCE = 40
"""How often an append that failed is tried again, as applications do: the same events."""


class Worker:
    def __init__(self, name: str) -> None:
        self.probe: Any = import_module(f"bench.probes.{entry(name).factory.partition(':')[0]}").Probe()
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # whatever a library prints
        self._lock = threading.Lock()

    def say(self, **what: Any) -> None:
        with self._lock:
            self._answers.write(json.dumps(what) + "\n")

    async def run(self, task: str, target: Target, params: dict[str, Any]) -> None:
        await self.probe.open(target)
        try:
            await getattr(self, task)(**params)
        finally:
            await self.probe.close()

    async def prepare(self) -> None:
        """Nothing: opening has made the tables."""
        self.say(versions=self.probe.versions())

    async def write(self, tasks: int, appends: int, seed: int) -> None:
        """Appends to streams of their own, so many at once; what fails is sent again."""
        await self.probe.concurrently([self._write(appends, f"{seed} {n}") for n in range(tasks)])

    async def _write(self, appends: int, seed: str) -> None:
        draw = random.Random(seed)
        for _ in range(appends):
            stream = self.probe.new_stream()
            marks = [str(uuid4()) for _ in range(draw.randint(1, 5))]
            events = [self.probe.probed(stream, version, mark) for version, mark in enumerate(marks, 1)]
            for attempt in range(PATIENCE):
                try:
                    await self.probe.append(stream, events, 0)
                except Exception as error:
                    if attempt and isinstance(error, self.probe.conflicts):
                        self.say(conflict=marks)  # with whom, on a stream that nobody else knows?
                        break
                    self.say(error=type(error).__name__)
                    time.sleep(0.02)
                else:
                    self.say(stored=marks)
                    break

    async def compete(self, tasks: int, attempts: int, streams: int) -> None:
        """Appends at the version that was just read, on few streams."""
        await self.probe.concurrently([self._compete(attempts, streams, n) for n in range(tasks)])

    async def _compete(self, attempts: int, streams: int, number: int) -> None:
        draw = random.Random(f"{os.getpid()} {number}")
        for _ in range(attempts):
            which = draw.randrange(streams)
            stream, mark = self.probe.stream(which), str(uuid4())
            try:
                version = await self.probe.version(stream)
                await self.probe.append(stream, [self.probe.probed(stream, version + 1, mark)], version)
            except Exception as error:
                kind = "refused" if isinstance(error, self.probe.conflicts) else "error"
                self.say(**{kind: type(error).__name__})
            else:
                self.say(stored=[mark], place=[which, version + 1])

    async def repeat(self, appends: int) -> None:
        """Each append, and the same once more, as after an answer that was lost."""
        for _ in range(appends):
            stream, mark = self.probe.new_stream(), str(uuid4())
            events = [self.probe.probed(stream, 1, mark)]
            await self.probe.append(stream, events, 0)
            self.say(stored=[mark])
            try:
                await self.probe.append(stream, events, 0)
            except Exception as error:
                self.say(refused=type(error).__name__)
            else:
                self.say(again=1)

    async def follow(self) -> None:
        """A reader that never looks back, until its standard input ends; then until nothing more comes."""
        is_over = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
        after = None
        self.say(ready=1)
        while True:
            was_over = is_over.is_set()
            try:
                found = await self.probe.follow(after)
            except Exception as error:
                self.say(error=type(error).__name__)
                time.sleep(0.02)
                continue
            if found:
                after = found[-1].after
                self.say(seen=[shown.mark for shown in found])
            elif was_over:
                return

    async def values(self) -> None:
        for number, (name, (field, value)) in enumerate(VALUES.items(), 1000):
            stream = self.probe.stream(number)
            try:
                await self.probe.append(stream, [self.probe.probed(stream, 1, name, **{field: value})], 0)
            except Exception as error:
                self.say(value=name, became="refused", how=type(error).__name__)
                continue
            try:
                [event] = await self.probe.events(stream)
                found = getattr(event, field)
            except Exception as error:
                self.say(value=name, became="unreadable", how=type(error).__name__)
                continue
            became = "kept" if is_kept(value, found) else "changed"
            self.say(value=name, became=became, how=repr(found)[:80])


def main(name: str, task: str, arguments: str) -> None:
    logging.disable(logging.CRITICAL)
    given = json.loads(arguments)
    asyncio.run(Worker(name).run(task, Target(**given["target"]), given["params"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
