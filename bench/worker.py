"""A process that runs one contender: requests as JSON lines on stdin, one answer each on stdout."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from typing import Any

from bench import measure
from bench.contenders import entry
from bench.contenders.base import Contender, Target


class Worker:
    """Opens the contender on a database for each turn; what it prepared there stays known."""

    def __init__(self, name: str) -> None:
        self.contender: Contender = entry(name).make()
        self.states: dict[str, dict[str, Any]] = {}

    async def settings(self, target: Target) -> dict[str, Any]:
        await self.contender.open(target)
        try:
            return {
                "durability": await self.contender.durability(),
                "versions": self.contender.versions(),
            }
        finally:
            await self.contender.close()

    async def turn(self, target: Target, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        await self.contender.open(target)
        try:
            written = await measure.warm_up(self.contender, kind, params.get("tasks", 1))
            if kind in ("load", "decision"):
                # A database in memory is a new one on each opening.
                state = {} if target.kind == "memory" else self.states.setdefault(target.address, {})
                params = {**params, "state": state}
            answer: dict[str, Any] = await getattr(measure, kind)(self.contender, **params)
            answer["written"] += written
            return answer
        finally:
            await self.contender.close()


def main(name: str) -> None:
    # Whatever a library prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable(logging.WARNING)
    worker = Worker(name)
    while line := sys.stdin.readline():
        request = json.loads(line)
        target = Target(**request.pop("target"))
        try:
            if request["do"] == "settings":
                answer = worker.contender.run(worker.settings(target))
            else:
                answer = worker.contender.run(worker.turn(target, request["do"], request["params"]))
        except Exception as error:
            text = (str(error) or traceback.format_exc(limit=-3)).strip().splitlines()[0][:200]
            answer = {"failed": f"{type(error).__name__}: {text}", "at": time.monotonic()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
