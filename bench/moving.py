"""``python -m bench.moving``: how fast a whole log moves to another database, and in how much memory.

Everyone moves a log of its own, in its own form, between two databases of the same machine. The raw driver does
less than is possible: its rows lie ready in memory before the clock starts, and one COPY (or one ``executemany``)
writes them, with all indexes present, in one transaction.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.client import ROOT, Client, WorkerFailedError
from bench.contenders import Entry, entry
from bench.databases import opened
from bench.environments import interpreter
from bench.measure import STREAM_LENGTH

DIRECTIONS = {
    ("sqlite-normal", "postgresql"): (
        "esource", "raw asyncpg", "eventsource-py 0.5.0", "eventsourcing", "eventsourcing, DB functions",
    ),
    ("postgresql", "sqlite-normal"): ("esource", "raw"),
    ("sqlite-normal", "sqlite-normal"): ("esource", "raw"),
    ("postgresql", "postgresql"): ("esource", "raw asyncpg"),
}  # fmt: skip
"""From where to where, and who takes part."""

TARGETS = {
    "raw asyncpg": 0.9,
    "eventsource-py 0.5.0": 35.0,
    "eventsourcing": 3.0,
    "eventsourcing, DB functions": 3.0,
}
"""How many times faster than these esource is to be, from SQLite to PostgreSQL."""

SCRIPT_EVENTS = 1000
"""The tutorial's script commits each event by itself: so many tell its rate. Its payloads repeat the ids, so
that a log that was multiplied in SQL would not do."""


class Mover:
    """One contender with its source, filled."""

    def __init__(self, which: Entry, folder: Path, source: Any, events: int) -> None:
        self.entry = which
        self._client = Client(which.name, interpreter(which, folder / "venvs"))
        self.events = min(events, SCRIPT_EVENTS) if which.family == "eventsource-py" else events
        # Nobody's own code needs to write the source that the raw driver reads.
        author = entry("esource") if which.family == "raw" else which
        writer = Client(author.name, interpreter(author, folder / "venvs"))
        self._databases, self.source = source, source.new(1)
        first = min(1000, self.events)
        writer.ask("settings", self.source)
        writer.ask("seed", replace(self.source, ready=True), {"events": first - first % STREAM_LENGTH})
        writer.stop()
        source.multiply(self.source, self.events // first)
        self.rates: list[float] = []
        self.memory: list[float] = []
        self.failed: str | None = None

    def turn(self, databases: Any, *, counts: bool) -> None:
        """Move the log into a new database; the events there are counted behind the contender's back."""
        if self.failed:
            return
        target = databases.new(1)
        try:
            self._client.ask("settings", target)
            target = replace(target, ready=True)
            databases.settle()
            answer = self._client.ask("move", target, {"source": asdict(self.source), "events": self.events})
            stored = databases.count(target)
            if stored != self.events:
                raise WorkerFailedError(f"{stored} of {self.events} events arrived")
        except WorkerFailedError as error:
            self.failed = str(error)
        else:
            if counts:
                self.rates.append(self.events / (answer["ended"] - answer["started"]))
            elif not self.memory:
                self.memory.append(answer["memory_mib"])
        finally:
            databases.remove(target)

    def stop(self) -> None:
        self._client.stop()
        self._databases.remove(self.source)


def run(folder: Path, events: int, rounds: int, postgres_url: str | None, only: str | None) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    document: dict[str, Any] = {"events": events, "rounds": rounds, "directions": []}
    for (origin, goal), names in DIRECTIONS.items():
        if only is not None and only not in (origin, goal, f"{origin}-{goal}"):
            continue
        print(f"{origin} to {goal}", file=sys.stderr, flush=True)
        with opened(origin, folder / "data", postgres_url) as sources:
            others = (
                nullcontext(sources) if goal == origin else opened(goal, folder / "data-to", postgres_url)
            )
            with others as goals:
                movers = [Mover(entry(name), folder, sources, events) for name in names]
                movers.append(Mover(entry("esource"), folder, sources, 4 * events))
                *racers, larger = movers
                try:
                    larger.turn(goals, counts=False)
                    for number in range(rounds + 1):
                        shift = number % len(racers)
                        for mover in racers[shift:] + racers[:shift]:
                            mover.turn(goals, counts=number > 0)
                finally:
                    for mover in movers:
                        mover.stop()
        document["directions"].append(_summary(origin, goal, racers, larger))
    return document


def _summary(origin: str, goal: str, racers: list[Mover], larger: Mover) -> dict[str, Any]:
    ours = racers[0]
    contenders = {}
    for mover in racers:
        ratios = [mine / other for mine, other in zip(ours.rates, mover.rates, strict=False)]
        contenders[mover.entry.name] = {
            "events": mover.events,
            "rates": [round(rate) for rate in mover.rates],
            "ratio": round(statistics.median(ratios), 2) if ratios else None,
            "failed": mover.failed,
        }
    return {
        "from": origin,
        "to": goal,
        "contenders": contenders,
        "memory_mib": {str(mover.events): mover.memory for mover in (ours, larger)},
    }


def table(document: dict[str, Any]) -> str:
    """The result for people."""
    lines = []
    for direction in document["directions"]:
        lines.append(f"\n{direction['from']} to {direction['to']}, {document['events']} events")
        for name, found in direction["contenders"].items():
            rate = (
                f"{statistics.median(found['rates']):>9,.0f}/s" if found["rates"] else f"-- {found['failed']}"
            )
            aim = TARGETS.get(name) if direction["to"] == "postgresql" != direction["from"] else None
            ratio = "" if name == "esource" or found["ratio"] is None else f"  esource x {found['ratio']:.2f}"
            met = "" if aim is None or found["ratio"] is None else f" of {aim:g}"
            lines.append(f"  {name:<28}{rate}{ratio}{met}")
        grown = ", ".join(f"{events} events {mib} MiB" for events, mib in direction["memory_mib"].items())
        lines.append(f"  memory of esource above its start: {grown}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.moving", description=__doc__)
    folder = ROOT / "build" / "bench"
    parser.add_argument("--events", type=int, default=100_000, help="events in the log (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender that count")
    parser.add_argument("--only", help="a kind of database that takes part, or FROM-TO")
    parser.add_argument("--postgres-url", help="a server where databases may be created")
    parser.add_argument("--folder", type=Path, default=folder, help="environments and databases")
    parser.add_argument("--json", type=Path, default=folder / "moving.json", help="where the results go")
    given = parser.parse_args(arguments)
    document = run(given.folder.resolve(), given.events, given.rounds, given.postgres_url, given.only)
    print(table(document))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    found = [contender for one in document["directions"] for contender in one["contenders"].values()]
    return 1 if any(contender["failed"] for contender in found) else 0


if __name__ == "__main__":
    sys.exit(main())
