"""What a database can tell of itself: its size, how its indexes are used, and what is amiss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """How much room something takes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class IndexUse:
    """How often an index was used since the server's statistics began."""

    table: str
    index: str
    bytes: int
    scans: int


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something that is wrong or slow, and what mends it."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}"


class Inspection(ABC):
    """Looks at a database through a driver's connection; nothing is changed."""

    @abstractmethod
    async def product(self, driver: Any) -> str:
        """The product and its version."""

    @abstractmethod
    async def sizes(self, driver: Any) -> list[Size]:
        """The whole first, then its parts."""

    @abstractmethod
    async def other_tables(self, driver: Any) -> list[str]:
        """The tables beside ours, by name: the application's, read models among them."""

    @abstractmethod
    async def index_use(self, driver: Any) -> list[IndexUse]:
        """Each index of our tables; nothing where the database does not count."""

    @abstractmethod
    async def symptoms(self, driver: Any) -> list[Symptom]:
        """Settings that lose events in a power cut, and what grew out of proportion."""

    @abstractmethod
    async def counter(self, driver: Any) -> Symptom | None:
        """What is wrong with the counter of the positions, if that is behind the log: the next events would be stored before
        what readers have read, and be passed over. One query; None also where the role may not look."""

    @abstractmethod
    async def back_up(self, driver: Any, target: Path, tell: Callable[[int, int], None]) -> None:
        """Write a whole copy to a new file, as it is at one moment; ``tell`` gets pages done, and all.

        Raises:
            InvalidOptionError: that is another program's work.
        """
