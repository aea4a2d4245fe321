"""How far a long work has come, for a caller that shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step of a long work has come."""

    step: str
    """What is being done: "copy", "index", "verify", "export" or "import" the events, "pages" of a backup, or the
    name of a table."""
    done: int
    """Events dealt with in this step, indexes made, pages copied, or rows changed."""
    total: int
    """How many there are to deal with, as far as known; 0 if it is not known."""


OnProgress: TypeAlias = Callable[[Progress], None]
"""What a caller gives as ``on_progress``: it is called now and then."""
