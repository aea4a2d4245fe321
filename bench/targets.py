"""The ratios that esource is to reach, by database, workload and the contender's family."""

from __future__ import annotations

_PEER, _SYNCHRONOUS_PEER, _RAW = "eventsource-py", "eventsourcing", "raw"


def _of(peer: float | None, synchronous_peer: float | None, raw: float | None) -> dict[str, float]:
    given = {_PEER: peer, _SYNCHRONOUS_PEER: synchronous_peer, _RAW: raw}
    return {family: ratio for family, ratio in given.items() if ratio is not None}


_SQLITE = {
    "batch-10": _of(4, 0.6, 0.8),
    "batch-100": _of(5, 0.75, 0.8),
    "batch-1000": _of(8, 1, 0.8),
    "load-10": _of(2, 0.9, 1.0),
    "load-100": _of(3, 1.8, 1.0),
    "load-1000": _of(3, 1.8, 1.0),
    "load-10000": _of(4, 2, 1.0),
    "read-all": _of(3.3, 2, None),
    "read-envelopes": _of(3.3, 2, None),
    "aggregate-32": _of(4, 3, None),
    "catch-up": _of(3, 3, None),
    "execute-8": _of(None, None, 2),
    "execute-32": _of(None, None, 4),
}

RATIOS: dict[str, dict[str, dict[str, float]]] = {
    "sqlite-full": {**_SQLITE, "append-1": _of(1.9, 0.8, 0.9), "append-32": _of(9, 4, 3.5)},
    "sqlite-normal": {**_SQLITE, "append-1": _of(2.5, 0.4, 0.9), "append-32": _of(9, 3, 2)},
    "postgresql": {
        "append-1": _of(3, 2.5, 0.9),
        "append-8": _of(5, 7, 0.95),
        "append-32": _of(10, 14, 1.8),
        "batch-10": _of(7, 2, 0.85),
        "batch-100": _of(11, 2, 0.85),
        "batch-1000": _of(14, 2, 0.85),
        "contended-8": _of(8, None, 0.95),
        "contended-32": _of(8, None, 0.95),
        "load-10": _of(2.5, 1, 0.8),
        "load-100": _of(3, 1.4, 0.8),
        "load-1000": _of(3, 1.4, 0.8),
        "load-10000": _of(3, 1.4, 0.8),
        "read-all": _of(4, 2.5, None),
        "read-envelopes": _of(4, 2.5, None),
        "aggregate-32": _of(8, 8, None),
        "catch-up": _of(3, 3, None),
        "execute-8": _of(None, None, 2),
        "execute-32": _of(None, None, 4),
    },
}

MEMORY_MIB = {"sqlite-normal": 12, "postgresql": 8}
"""How far reading the whole log may grow the process."""

GROWTH = 0.8
"""Of the append rate into the smallest log, what is left in the largest."""


def ratio(database: str, workload: str, family: str) -> float | None:
    """What esource's rate divided by this family's is to be; None: nothing was set."""
    return RATIOS.get(database, {}).get(workload, {}).get(family)
