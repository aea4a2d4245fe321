"""How far a process grows: its peak of resident memory above where it stood."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


class Growth:
    """Measures from its making on. On Linux exact; elsewhere from the peak of the process's whole life."""

    def __init__(self) -> None:
        if _STATUS.exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
            self._before = _from_status("VmRSS")
        else:
            self._before = _highest()

    def mebibytes(self) -> float:
        highest = _from_status("VmHWM") if _STATUS.exists() else _highest()
        return round(max(0, highest - self._before) / 1024, 1)


def _from_status(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def _highest() -> int:
    if os.name == "nt":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
