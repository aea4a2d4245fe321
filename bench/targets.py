"""The ratios that esource is to reach, by database, workload and the contender's family."""

from __future__ import annotations


def _of(
    peer: float | None,
    synchronous_peer: float | None,
    raw: float | None,
    raw_without_hop: float | None = None,
    other_ways: float | None = None,
) -> dict[str, float]:
    """Against eventsource-py, eventsourcing and the drivers, each beside esource driven as they are; and of the other ways
    of driving esource, beside the one with a thread."""
    given = {
        "eventsource-py": peer,
        "eventsourcing": synchronous_peer,
        "raw": raw,
        "raw, no hop": raw_without_hop,
        "esource": other_ways,
    }
    return {family: ratio for family, ratio in given.items() if ratio is not None}


_SQLITE = {
    "batch-10": _of(4, 0.6, 0.9),
    "batch-100": _of(5, 0.75, 0.9),
    "batch-1000": _of(8, 1, 0.9),
    "load-1": _of(2, None, 0.9, 0.75),
    "load-10": _of(2, 0.9, 0.9, 0.85),
    "load-100": _of(3, 1, 0.9, 0.9),
    "load-1000": _of(3, 1.3, 0.9),
    "load-10000": _of(4, 1.3, 0.9),
    "read-all": _of(3.3, 1, None),
    "read-envelopes": _of(3.3, 2, 0.75),
    "aggregate-32": _of(4, 3, None),
    "catch-up": _of(3, 3, None),
    "execute-8": _of(None, None, 2),
    "execute-32": _of(None, None, 4),
}

_CONDITIONS = {
    "conditional-1": {"plain append": 0.75},
    "conditional-32": {"plain append": 0.8},
}

RATIOS: dict[str, dict[str, dict[str, float]]] = {
    "sqlite-full": {
        **_SQLITE,
        **_CONDITIONS,
        "conditional-1": {"plain append": 0.75, "UmaDB": 1},
        "append-1": _of(1.9, 0.95, 0.9, 0.95),
        "append-32": _of(9, 4, 3.5, other_ways=1),
    },
    "sqlite-normal": {
        **_SQLITE,
        **_CONDITIONS,
        "append-1": _of(2.5, 0.75, 0.9, 0.9),
        "append-32": _of(9, 3, 2, other_ways=1),
    },
    "postgresql": {
        "append-1": _of(3, 1, 0.9),
        "append-8": _of(5, 3, 0.95),
        "append-32": _of(10, 5, 1.8),
        "batch-10": _of(7, 1, 0.9),
        "batch-100": _of(11, 1, 0.9),
        "batch-1000": _of(14, 1, 0.9),
        "contended-8": _of(8, None, 0.95),
        "contended-32": _of(8, None, 0.95),
        "load-10": _of(2.5, 1, 0.9),
        "load-100": _of(3, 1.4, 0.9),
        "load-1000": _of(3, 1.4, 0.9),
        "load-10000": _of(3, 1.4, 0.9),
        "read-all": _of(4, 2.5, None),
        "read-envelopes": _of(4, 2.5, 0.75),
        "aggregate-32": _of(8, 8, None),
        "catch-up": _of(3, 3, None),
        "execute-8": _of(None, None, 2),
        "execute-32": _of(None, None, 4),
        "conditional-1": {"plain append": 0.75, "eventsourcing DCB": 1.2, "UmaDB": 1},
        "conditional-32": {"plain append": 0.8, "eventsourcing DCB": 8},
        "enrol": {"eventsourcing DCB": 1.3, "eventsourcing": 1.2},
    },
    "memory": {
        "append-1": _of(None, 0.3, None),
        "batch-100": _of(None, 0.9, None),
        "load-100": _of(None, 0.9, None),
    },
}

MEMORY_MIB = {"sqlite-normal": 12, "postgresql": 8}
"""How far reading the whole log may grow the process."""

GROWTH = 0.8
"""Of the append rate into the smallest log, what is left in the largest."""

STORED = 0.9
"""The same of appends on a condition, beside an empty log."""


def ratio(database: str, workload: str, family: str) -> float | None:
    """What esource's rate divided by this family's is to be; None: nothing was set."""
    return RATIOS.get(database, {}).get(workload, {}).get(family)
