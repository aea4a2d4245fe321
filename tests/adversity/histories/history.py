"""What several clients asked of an event store and what it answered, as lines of JSON; no store in particular.

A client writes one line before it asks and one after it was answered; a file for each process. Times are of one clock
for all of them, in nanoseconds: on Linux ``time.monotonic_ns`` is the whole machine's. Versions count from 1 within a
stream, positions are those of the whole log, and what is ``after`` one lies beyond it.

An append is of one or more parts that become visible together: several parts are a transaction.

    {"op": "w1.0.7", "at": 12, "do": "append",
     "parts": [{"stream": "s", "expected": 3, "events": ["a", "b"]}]}              expected: a version, "any", "exists"
    {"op": "w1.0.7", "at": 15, "end": "ok", "parts": [{"version": 5, "position": 81, "repeated": false}]}
        version and position of the part's last event (position may be null); repeated: it was stored before
    {"op": "w1.0.7", "at": 15, "end": "conflict", "part": 0, "actual": 4}            another version; actual may be null
    {"op": "w1.0.7", "at": 15, "end": "conflict", "part": 0, "match": 79}            an event that its condition excludes
    {"op": "w1.0.7", "at": 15, "end": "duplicate", "part": 0}                       an event id that is stored elsewhere
    {"op": "w1.0.7", "at": 15, "end": "aborted"}                                    nothing of it may ever be seen

A part may have tags, which all of its events get, and a condition: no event past a position may have all tags of any item.

    {"stream": "s", "expected": "any", "events": ["c"], "tags": ["x"], "condition": {"items": [["x", "y"]], "after": 79}}

    {"op": "r1.0.3", "at": 22, "do": "read_query", "items": [["x", "y"]], "after": 0}
    {"op": "r1.0.3", "at": 23, "end": "ok", "positions": [80], "head": 81}

    {"op": "r1.0.1", "at": 16, "do": "read_log", "after": 79, "limit": null}
    {"op": "r1.0.1", "at": 19, "end": "ok", "events": [[80, "s", 4, "a"], [81, "s", 5, "b"]]}
    {"op": "r1.0.2", "at": 20, "do": "read_stream", "stream": "s", "after": 4}
    {"op": "r1.0.2", "at": 21, "end": "ok", "events": [[5, "b"]]}

Any other end, or none (the client was killed), is not known: an append may have happened at any time since.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NEVER = 2**63
"""When an operation ends whose answer nobody got."""


@dataclass
class Operation:
    """One question and its answer."""

    name: str
    asked: dict[str, Any]
    invoked: int
    returned: int = NEVER
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> str:
        return self.answer.get("end", "unknown")

    @property
    def is_ok(self) -> bool:
        return self.end == "ok"

    @property
    def wrote_nothing(self) -> bool:
        """Whether it is certain that nothing of an append is stored through it."""
        return self.end in ("conflict", "duplicate", "aborted")

    def __str__(self) -> str:
        return f"{self.name} ({self.asked['do']}, {self.end})"


class Recorder:
    """Writes one process's history; a line is in the file before the process goes on."""

    def __init__(self, path: Path, client: str) -> None:
        self._file = path.open("w", buffering=1, encoding="utf-8")
        self._client = client
        self._count = 0

    def invoke(self, do: str, **what: Any) -> str:
        self._count += 1
        name = f"{self._client}.{self._count}"
        self._file.write(json.dumps({"op": name, "at": time.monotonic_ns(), "do": do, **what}) + "\n")
        return name

    def complete(self, name: str, end: str, **what: Any) -> None:
        self._file.write(json.dumps({"op": name, "at": time.monotonic_ns(), "end": end, **what}) + "\n")

    def close(self) -> None:
        self._file.close()


def parse(lines: Iterable[str]) -> list[Operation]:
    """The operations of lines in any order of their files; half a line, of a client that was killed, is left out."""
    operations: dict[str, Operation] = {}
    answers: list[dict[str, Any]] = []
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if "do" in said:
            assert said["op"] not in operations, f"two operations are called {said['op']}"
            operations[said["op"]] = Operation(said["op"], said, said["at"])
        else:
            answers.append(said)
    for answer in answers:
        operation = operations[answer["op"]]
        operation.answer, operation.returned = answer, answer["at"]
        if answer["end"] not in ("ok", "conflict", "duplicate", "aborted"):
            operation.returned = NEVER
    return sorted(operations.values(), key=lambda operation: operation.invoked)


def load(paths: Iterable[Path]) -> list[Operation]:
    return parse(line for path in paths for line in path.read_text(encoding="utf-8").splitlines())
