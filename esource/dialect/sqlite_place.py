"""Which file a store has open: what is written to one that was deleted or replaced is gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from esource.dialect.backend import unavailable

if TYPE_CHECKING:
    import aiosqlite


class Place:
    """The path of a database file, and the file that was there when it was opened.

    SQLite goes on with an open file whatever happens to its name, and every commit succeeds: nobody else will ever
    see it. To ask where the name leads takes 2 % of the shortest append (18 of 1 090 µs, where system calls are slow).
    """

    __slots__ = ("_file", "_path")

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 - the process may change its folder
        self._file: tuple[int, int] | None = None

    def remember(self) -> None:
        """The file that is there now is the one, unless there was one before."""
        if self._file is None:
            self._file = self._look()

    def check(self) -> None:
        """
        Raises:
            DatabaseUnavailableError: the file that was opened is not at its path any more.
        """
        if self._file is not None and self._look() != self._file:
            raise unavailable(
                f"SQLite database {self._path}",
                "the file was deleted or replaced while it was open",
                "Nothing was written. Put it back, or close the store and open it again",
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a Path takes three times as long
        except OSError:
            return None
        return found.st_dev, found.st_ino


def place_of(driver: aiosqlite.Connection) -> Place | None:
    """The place of a connection that `opened_at` has marked: one that writes, of an engine of a store's own."""
    return getattr(driver, "esource_place", None)


def opened_at(place: Place, driver: aiosqlite.Connection) -> aiosqlite.Connection:
    """The connection, marked with what it is open on."""
    place.remember()
    driver.esource_place = place  # type: ignore[attr-defined]
    return driver
