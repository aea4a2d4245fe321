"""The benchmark runs, and what it says was stored is stored. How fast anything is, is not a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.matrix import databases

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: the esource that the tests run on may be an installed one

from bench.contenders import ENTRIES
from bench.report import add_ratios, problems
from bench.workloads import PROFILES, WORKLOADS, chosen

# SQLite runs all that is no larger size of another; what differs by database is run on the others, too.
ONLY = {
    "sqlite": [
        "append-1",
        "append-32",
        "batch-10",
        "contended-8",
        "execute-8",
        "load-10",
        "read-",
        "catch-up",
        "aggregate-32",
        "processes",
        "growth",
        "conditional-8",
        "decision",
        "enrol",
        "stored-5",
    ],
    "postgresql": [
        "append-32",
        "batch-10",
        "contended-8",
        "load-10",
        "read-all",
        "aggregate-32",
        "processes",
    ],
    "memory": ["append-1", "load-"],
}
KIND_OF = {workload.name: workload.kind for workload in WORKLOADS}
KINDS = {"sqlite": ["sqlite-normal"], "postgresql": ["postgresql"], "memory": ["memory"]}


@pytest.mark.slow
@pytest.mark.timeout(1500)  # a minute on two cores that nobody else uses
@pytest.mark.parametrize("name", databases())
def test_a_tiny_run_of_esource_and_the_raw_drivers_measures_everything_and_loses_nothing(
    name, tmp_path, request
):
    server = request.getfixturevalue("postgres_server") if name == "postgresql" else None
    options = [] if server is None else ["--postgres-url", server.render_as_string(hide_password=False)]
    for kind in KINDS[name]:
        options += ["--database", kind]
    for workload in ONLY[name]:
        options += ["--only", workload]
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "bench",
                "--profile",
                "tiny",
                "--contender",
                "esource",
                "--contender",
                "raw",
                "--contender",
                "raw, no hop",
            ),
            *("--folder", tmp_path, "--json", tmp_path / "r.json", "--chart", tmp_path / "r.svg", *options),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    document = json.loads((tmp_path / "r.json").read_text())
    tiny = PROFILES["tiny"]
    expected = [(kind, workload.name) for kind, workload in chosen(ONLY[name], KINDS[name], tiny)]
    assert [(result["database"], result["workload"]) for result in document["results"]] == expected
    if name == "sqlite":
        assert {KIND_OF[result["workload"]] for result in document["results"]} == set(KIND_OF.values())
    for result in document["results"]:
        seats = result.get("sizes") or result["contenders"]
        lacking = {
            entry.name: KIND_OF[result["workload"]] in entry.lacks
            for entry in ENTRIES
            if entry.family in ("esource", "raw", "raw, no hop")
            and result["database"] in entry.databases
            and KIND_OF[result["workload"]] in entry.kinds
        }
        sizes = tiny.growth if result["workload"] == "growth" else tiny.tagged
        assert set(seats) == (set(map(str, sizes)) if "sizes" in result else set(lacking))
        for contender, seat in seats.items():
            if lacking.get(contender):
                assert seat == {"failed": "has nothing for this"}
                continue
            assert len(seat["rates"]) == tiny.rounds
            assert seat["written"] > 0
            if name != "memory":
                assert seat["stored"] == seat["written"], result["title"]
    ET.parse(tmp_path / "r.svg")


def test_events_that_were_acknowledged_and_are_not_stored_are_a_problem():
    result = {"database": "sqlite-full", "workload": "append-1", "title": "sequential appends"}
    seat = {"rates": [1.0], "written": 10, "stored": 9}
    document = {"results": [{**result, "contenders": {"esource": seat}}]}

    assert problems(document) == ["sqlite-full, sequential appends: esource stored 9 of 10 events"]


def test_a_ratio_is_the_median_of_the_rounds_and_is_judged_by_its_target():
    result = {"database": "sqlite-normal", "workload": "append-32"}
    contenders = {
        "esource": {"rates": [20.0, 90.0, 50.0]},
        "raw": {"rates": [10.0, 30.0, 10.0]},
        "eventsource-py 0.5.0": {"rates": [10.0, 10.0, 10.0]},
    }
    document = {"results": [{**result, "contenders": contenders}]}
    add_ratios(document)

    ratios = document["results"][0]["ratios"]
    judged = {"median": 3.0, "min": 2.0, "max": 5.0, "target": 2, "met": True}
    assert ratios["raw"] == {"of": "esource", **judged}
    assert ratios["eventsource-py 0.5.0"]["met"] is False


def test_a_ratio_compares_a_contender_with_esource_driven_in_the_same_way():
    rates = {
        "esource": 10.0,
        "esource, no hop": 20.0,
        "esource.sync": 30.0,
        "raw": 20.0,
        "raw, no hop": 40.0,
        "eventsourcing": 60.0,
    }
    contenders = {name: {"rates": [rate]} for name, rate in rates.items()}
    in_memory = {name: {"rates": [rate]} for name, rate in rates.items() if name != "esource, no hop"}
    document = {
        "results": [
            {"database": "sqlite-full", "workload": "append-1", "contenders": contenders},
            {"database": "memory", "workload": "append-1", "contenders": in_memory},
        ]
    }
    add_ratios(document)

    found = [
        {name: (ratio["of"], ratio["median"]) for name, ratio in result["ratios"].items()}
        for result in document["results"]
    ]
    ways = {"esource.sync": ("esource.sync", 3.0), "eventsourcing": ("esource.sync", 0.5)}
    without_hop = {"esource, no hop": ("esource, no hop", 2.0), "raw, no hop": ("esource, no hop", 0.5)}
    assert found[0] == {"raw": ("esource", 0.5), **ways, **without_hop}
    assert found[1] == {"raw": ("esource", 0.5), **ways, "raw, no hop": ("esource", 0.25)}


def test_workloads_and_contenders_have_names_of_their_own():
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
