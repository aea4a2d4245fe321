"""``python -m bench.probes``: do the same to everybody, and print what became of the events as a table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.client import ROOT
from bench.contenders import ENTRIES
from bench.databases import opened
from bench.environments import NotInstallableError, interpreter
from bench.probes.probe import BAD, PROBES, Counts, Run
from bench.probes.process import ProbeFailedError

DATABASES = {"sqlite-normal": "SQLite", "postgresql": "PostgreSQL"}
WRITERS = 8
"""Connections that a pooled contender gets."""

Results = dict[tuple[str, str, str], Counts]
"""Counts by probe, database and contender."""


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    entries = [entry for entry in ENTRIES if entry.beside is None or entry.family.startswith("event")]
    if given.contender:
        entries = [entry for entry in entries if {entry.family, entry.name} & set(given.contender)]
    folder = given.folder.resolve()
    results: Results = {}
    versions: dict[str, dict[str, str]] = {}
    for kind in given.database or DATABASES:
        with opened(kind, folder / "data", given.postgres_url) as databases:
            versions[DATABASES[kind]] = {"": databases.about()}
            for entry in entries:
                if kind not in entry.databases:
                    continue
                try:
                    python = interpreter(entry, folder / "venvs")
                except NotInstallableError as error:
                    versions[entry.name] = {"absent": str(error)}
                    continue
                for name in given.only or PROBES:
                    if kind in PROBES[name][1]:
                        run = Run(python, entry.name, folder / "said", databases.new(WRITERS), given.scale)
                        counts = _probed(name, run, versions)
                        results[name, DATABASES[kind], entry.name] = counts
                        print(
                            f"{DATABASES[kind]}: {name}: {entry.name}: {counts}", file=sys.stderr, flush=True
                        )
                        databases.remove(run.target)
    print(table(results, [entry.name for entry in entries]))
    print(f"\nVersions: {json.dumps(versions)}")
    return 1 if faults(results) else 0


def _probed(name: str, run: Run, versions: dict[str, dict[str, str]]) -> Counts:
    """One probe of one contender; one that cannot do it says why."""
    try:
        [prepared] = run.start("prepare").result()
        versions[run.name] = prepared["versions"]
        return PROBES[name][0](replace(run, target=replace(run.target, ready=True)))
    except ProbeFailedError as error:
        return {"failed": str(error)}


def faults(results: Results) -> list[tuple[str, str, str]]:
    """Where esource did what no store may do, or could not do something."""
    return [
        key
        for key, counts in results.items()
        if key[2] == "esource" and ("failed" in counts or any(counts.get(bad) for bad in BAD))
    ]


def table(results: Results, names: list[str]) -> str:
    """A row for each count, a column for each contender, as Markdown."""
    rows = [f"| probe | database | count | {' | '.join(names)} |", f"|---|---|---|{'---:|' * len(names)}"]
    for probe, database in dict.fromkeys((probe, database) for probe, database, _ in results):
        of: dict[str, Any] = {name: results.get((probe, database, name), {}) for name in names}
        for count in dict.fromkeys(count for counts in of.values() for count in counts):
            cells = [str(of[name].get(count, "")) for name in names]
            rows.append(f"| {probe} | {database} | {count} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _parser() -> argparse.ArgumentParser:
    documents = {name: (probe.__doc__ or "").splitlines()[0] for name, (probe, _) in PROBES.items()}
    parser = argparse.ArgumentParser(
        prog="python -m bench.probes",
        description="Does the same to esource and its peers, and counts what became of the events.",
        epilog=" ".join(f"{name}: {text}" for name, text in documents.items()),
    )
    folder = ROOT / "build" / "bench"
    parser.add_argument("--only", action="append", choices=PROBES, help="a probe; repeatable; default: all")
    parser.add_argument("--database", action="append", choices=DATABASES, help="repeatable; default: both")
    parser.add_argument("--contender", action="append", metavar="NAME", help="or a family; repeatable")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of everything (1)")
    parser.add_argument(
        "--postgres-url", help="a server where databases may be created; default: an embedded one"
    )
    parser.add_argument("--folder", type=Path, default=folder, help=f"environments and databases ({folder})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
