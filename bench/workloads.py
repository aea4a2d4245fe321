"""The workloads and their sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SQLITE = ("sqlite-full", "sqlite-normal")
LOGS = ("sqlite-normal", "postgresql")
"""Reading does not depend on ``synchronous``: one SQLite setting is enough."""


@dataclass(frozen=True)
class Workload:
    """One thing to measure."""

    name: str
    """As ``--only`` takes it."""
    title: str
    kind: str
    """The function in `bench.measure`, or processes; growth: the function that ``params`` names, in logs of several sizes."""
    databases: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)
    operations: int = 0
    """How many a turn does at least, in the full profile; more when that takes too short a time."""
    unit: str = "events/s"
    writers: int = 1
    """Connections that pooled contenders get."""


def _append(
    name: str, title: str, databases: tuple[str, ...], tasks: int, batch: int, operations: int
) -> Workload:
    return Workload(
        name, title, "append", databases, {"tasks": tasks, "batch": batch}, operations, writers=tasks
    )


WORKLOADS = (
    _append("append-1", "sequential appends", (*SQLITE, "postgresql", "memory"), 1, 1, 300),
    _append("append-8", "8 concurrent writers", ("postgresql",), 8, 1, 400),
    _append("append-32", "32 concurrent writers", (*SQLITE, "postgresql", "memory"), 32, 1, 640),
    _append("batch-10", "batches of 10", (*SQLITE, "postgresql"), 1, 10, 60),
    _append("batch-100", "batches of 100", (*SQLITE, "postgresql", "memory"), 1, 100, 12),
    _append("batch-1000", "batches of 1000", (*SQLITE, "postgresql"), 1, 1000, 3),
    *(
        Workload(
            f"contended-{tasks}", f"{tasks} writers on one stream", "contend", LOGS, {"tasks": tasks},
            operations, writers=tasks,
        )
        for tasks, operations in ((8, 160), (32, 160))
    ),
    *(
        Workload(
            f"execute-{tasks}", f"commands on one aggregate by {tasks} tasks", "contend", LOGS,
            {"tasks": tasks, "execute": True}, 160, "commands/s", writers=tasks,
        )
        for tasks in (8, 32)
    ),
    *(
        Workload(
            f"load-{size}", f"load a stream of {size}", "load",
            (*LOGS, "memory") if size == 100 else LOGS, {"size": size}, operations,
        )
        for size, operations in ((1, 400), (10, 200), (100, 60), (1000, 8), (10_000, 2))
    ),
    Workload("read-all", "read the log, every event decoded", "read_all", LOGS, {"envelopes": False}),
    Workload("read-envelopes", "read the log, events not asked for", "read_all", LOGS, {"envelopes": True}),
    Workload("catch-up", "a projection catches up, its read model in SQL", "project", LOGS, writers=5),
    Workload(
        "aggregate-1", "aggregate: load 10, save 1", "aggregate", (*LOGS, "memory"), {"tasks": 1}, 80, "ops/s"
    ),
    Workload(
        "aggregate-32", "aggregate: load 10, save 1, 32 tasks", "aggregate", LOGS, {"tasks": 32}, 160, "ops/s",
        writers=32,
    ),
    Workload(
        "processes-4", "4 processes of 8 writers", "processes", LOGS,
        {"processes": 4, "tasks": 8, "batch": 1}, 160, writers=8,
    ),
    Workload(
        "growth", "32 writers into a grown log", "growth", LOGS, {"of": "append", "tasks": 32, "batch": 1}, 640,
        writers=32,
    ),
    *(
        Workload(
            f"conditional-{tasks}", f"appends on a condition over two tags by {tasks} tasks", "conditional",
            (*SQLITE, "postgresql"), {"tasks": tasks}, operations, writers=tasks,
        )
        for tasks, operations in ((1, 300), (8, 400), (32, 640))
    ),
    Workload("decision", "read the 20 events of a decision", "decision", LOGS, operations=100, unit="reads/s"),
    Workload(
        "enrol", "10 students join 10 courses each", "enrol", ("sqlite-full", *LOGS), {"people": 10}, 100, "joins/s"
    ),
    *(
        Workload(
            f"stored-{items}{'-hot' if hot else ''}",
            f"{items} items with two tags each{' and one that all events have' if hot else ''}, in a log that is full of them",
            "growth", LOGS, {"of": "conditional", "tasks": 1, "items": items, "hot": hot}, 200,
        )
        for items in (1, 5, 20)
        for hot in (False, True)
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """How much of everything."""

    rounds: int
    """Turns of each contender that count; one more before them does not."""
    seconds: float
    """What a turn should take at least, by doing more; 0: the same number of operations for everyone."""
    fraction: float
    """Of the workloads' own numbers of operations."""
    log: int
    """Events in the log that is read as a whole."""
    projected: int
    """Events in the log that a projection catches up with."""
    growth: tuple[int, ...]
    """Events in the logs that grew."""
    longest: int
    """The longest stream that is loaded."""
    tagged: tuple[int, ...]
    """Events in the logs that conditions are judged in."""


PROFILES = {
    "full": Profile(5, 0.4, 1.0, 200_000, 4_000, (10_000, 100_000, 1_000_000), 10_000, (0, 1_000_000)),
    "quick": Profile(2, 0.0, 0.2, 10_000, 2_000, (1_000, 4_000, 16_000), 1000, (0, 16_000)),
    "tiny": Profile(1, 0.0, 0.05, 1_000, 1_000, (200, 400, 800), 1000, (0, 2_000)),
}

MOST = 25
"""A turn does at most so many times the operations that the workload names."""


def chosen(only: list[str], databases: list[str], profile: Profile) -> list[tuple[str, Workload]]:
    """The pairs of database and workload to run, in order; ``only`` matches beginnings of names."""
    return [
        (database, workload)
        for database in databases
        for workload in WORKLOADS
        if database in workload.databases
        and (not only or any(workload.name.startswith(name) for name in only))
        and workload.params.get("size", 0) <= profile.longest
    ]
