"""``python -m bench``: run the benchmark, print the table, write JSON and a chart."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from bench import chart, report
from bench.client import ROOT
from bench.contenders import ENTRIES
from bench.measure import CPU
from bench.runner import Options, Run
from bench.workloads import PROFILES, WORKLOADS

DATABASES = ("sqlite-full", "sqlite-normal", "postgresql", "memory")


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.cpu:
        os.environ[CPU] = "yes"
    # Ended from outside, it still takes its server and its workers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = Options(
        entries=[
            entry
            for entry in ENTRIES
            if not given.contender or entry.family in given.contender or entry.name in given.contender
        ],
        databases=given.database or list(DATABASES),
        profile="quick" if given.quick else given.profile,
        folder=given.folder.resolve(),
        only=given.only or [],
        rounds=given.rounds,
        postgres_url=given.postgres_url,
        tagged=given.stored,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    document = Run(options).results()
    report.add_ratios(document)
    print(report.table(document))
    for path, text in ((given.json, json.dumps(document, indent=1)), (given.chart, chart.svg(document))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    problems = report.problems(document)
    for problem in problems:
        print(f"PROBLEM {problem}")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Runs esource, its peers and the raw drivers in turns, and prints the ratios.",
        epilog=f"Workloads: {', '.join(workload.name for workload in WORKLOADS)}. "
        f"Contenders: {', '.join(entry.name for entry in ENTRIES)}.",
    )
    folder = ROOT / "build" / "bench"
    parser.add_argument("--quick", action="store_true", help="smaller sizes, a few minutes")
    parser.add_argument(
        "--profile", choices=PROFILES, default="full", help="how much of everything (default: full)"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="workloads whose names begin so; repeatable"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="count the time that the contender's processor works: on a busy machine; without the disk and the server",
    )
    parser.add_argument("--database", action="append", choices=DATABASES, help="repeatable; default: all")
    parser.add_argument(
        "--contender",
        action="append",
        metavar="NAME",
        help="a contender or a family; repeatable; default: all",
    )
    parser.add_argument("--rounds", type=int, help="turns of each contender that count")
    parser.add_argument(
        "--stored",
        type=int,
        metavar="EVENTS",
        help="events in the log that conditions are judged in (stored-...); default: as the profile has it, 1000000 in full",
    )
    parser.add_argument(
        "--postgres-url",
        help="a server where databases may be created; default: an embedded one, defaults kept",
    )
    parser.add_argument(
        "--folder", type=Path, default=folder, help=f"environments and databases (default: {folder})"
    )
    parser.add_argument("--json", type=Path, default=folder / "results.json", help="where the results go")
    parser.add_argument(
        "--chart", type=Path, default=folder / "benchmarks.svg", help="where the picture goes"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
