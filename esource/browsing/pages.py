"""A page, and how large one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")

PAGE_ROWS = 50
"""Rows of a page, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and where the next page begins."""

    rows: list[Row]
    after: Any
    """Give it to the same function for the next page; None at the end. A page may hold few rows, or none,
    and not be the last."""
