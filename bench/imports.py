"""``python -m bench.imports``: what importing esource costs, beside importing what it stands on.

Each turn is a fresh interpreter that imports one thing. All take turns within a round, so that they share the
same minute; differences and ratios are taken within a round, and the median of the rounds is told.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from bench.client import ROOT

BASE = "import sqlalchemy.ext.asyncio, pydantic"
PACKAGE = "import esource"

STATEMENTS = {
    BASE: "what esource stands on",
    PACKAGE: "the package",
    "from sqlalchemy.ext.asyncio import create_async_engine; from pydantic import BaseModel, Field": (
        "what it stands on, as an application uses it"
    ),
    "from esource import AggregateRepository, AggregateRoot, DomainEvent, SQLiteEventStore, register_event": (
        "what a first application takes from it"
    ),
    "from esource import *": "every public name",
}

MOST_ABOVE_BASE = 30.0
"""How many milliseconds of CPU `import esource` may cost above its base: the target."""

TURN = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
exec(sys.argv[1])
print((time.process_time() - cpu) * 1000, (time.perf_counter() - wall) * 1000, len(sys.modules))
"""


def turn(statement: str) -> dict[str, float]:
    """One fresh interpreter: milliseconds of CPU and by the clock, and how many modules it ends with."""
    done = subprocess.run(
        [sys.executable, "-c", TURN, statement], cwd=ROOT, capture_output=True, text=True, check=True
    )
    cpu, wall, modules = map(float, done.stdout.split())
    return {"cpu_ms": cpu, "wall_ms": wall, "modules": modules}


def run(rounds: int) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    statements = list(STATEMENTS)
    turns: dict[str, list[dict[str, float]]] = {statement: [] for statement in statements}
    for number in range(rounds + 1):
        shift = number % len(statements)
        for statement in statements[shift:] + statements[:shift]:
            found = turn(statement)
            if number > 0:  # the first round writes the compiled files
                turns[statement].append(found)
    results = {statement: _summary(turns[statement], turns[BASE]) for statement in statements}
    return {
        "rounds": rounds,
        "python": sys.version.split()[0],
        "statements": results,
        "most_above_base_ms": MOST_ABOVE_BASE,
        "met": results[PACKAGE]["cpu_above_base_ms"] <= MOST_ABOVE_BASE,
    }


def _summary(turns: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, float]:
    pairs = list(zip(turns, base, strict=True))
    return {
        **{key: round(median(found[key] for found in turns), 1) for key in ("cpu_ms", "wall_ms", "modules")},
        "cpu_above_base_ms": round(median(ours["cpu_ms"] - its["cpu_ms"] for ours, its in pairs), 1),
        "wall_above_base_ms": round(median(ours["wall_ms"] - its["wall_ms"] for ours, its in pairs), 1),
        "cpu_ratio": round(median(ours["cpu_ms"] / its["cpu_ms"] for ours, its in pairs), 2),
    }


def table(document: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["     CPU      wall  CPU above base   ratio  modules"]
    for statement, found in document["statements"].items():
        lines.append(
            f"{found['cpu_ms']:>8.1f}  {found['wall_ms']:>8.1f}  {found['cpu_above_base_ms']:>+14.1f}"
            f"  {found['cpu_ratio']:>6.2f}  {found['modules']:>7.0f}  {STATEMENTS[statement]}: {statement}"
        )
    verdict = "met" if document["met"] else "MISSED"
    lines.append(f"target: {PACKAGE} at most {MOST_ABOVE_BASE:g} ms of CPU above {BASE}: {verdict}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each that count (default: 15)")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "bench" / "imports.json", help="where the results go"
    )
    given = parser.parse_args(arguments)
    document = run(given.rounds)
    print(table(document))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
