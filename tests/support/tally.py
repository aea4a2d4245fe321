"""What a fault test counts: how often the fault struck, what was written meanwhile, and what went wrong with it.

With ``ESOURCE_TEST_REPORT`` every tally is a line of JSON at the end of that file, for the table in the documents.
``ESOURCE_TEST_SEED`` draws other moments for the faults.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SEED = os.environ.get("ESOURCE_TEST_SEED", "1")


def chance(name: str) -> random.Random:
    """A source of chance for one test, the same in each run with one seed."""
    return random.Random(f"{SEED} {name}")


@dataclass
class Tally:
    fault: str
    database: str
    injected: int = 0
    """Times the fault struck."""
    errors: int = 0
    """Errors that callers saw, all of them ours."""
    written: int = 0
    """Events that were acknowledged."""
    lost: int = 0
    """Of those, missing in the log afterwards."""
    duplicated: int = 0
    """Stored, or applied, more often than once."""
    skipped: int = 0
    """Stored, and not seen by a reader, a projection or a relay."""

    def judge(self, acknowledged: Iterable[Any], log: Iterable[Any]) -> None:
        """Compare what was acknowledged with what is stored."""
        said, stored = set(acknowledged), Counter(log)
        self.written += len(said)
        self.lost += len(said - stored.keys())
        self.duplicated += sum(count - 1 for count in stored.values())

    def judge_follower(self, log: Sequence[Any], seen: Sequence[Any], *, repeats: bool = False) -> None:
        """Compare what is stored with what a follower saw of it, which may see events again if it ``repeats``."""
        self.skipped += len(set(log) - set(seen))
        if not repeats:
            self.duplicated += len(seen) - len(set(seen))

    def conclude(self) -> None:
        """Report, and fail if anything went wrong."""
        path = os.environ.get("ESOURCE_TEST_REPORT")
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(self), "test": _current_test()}) + "\n")
        assert self.injected, "the fault never struck"
        assert (self.lost, self.duplicated, self.skipped) == (0, 0, 0), self


def _current_test() -> str:
    """The running test as the documents name it: file and function."""
    place = os.environ["PYTEST_CURRENT_TEST"].removeprefix("tests/")
    return re.split(r"[\[ ]", place)[0]
