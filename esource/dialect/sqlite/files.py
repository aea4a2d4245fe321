"""Which file a store has open: what is written to one that was deleted or replaced is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from esource.dialect.errors import unavailable

if TYPE_CHECKING:
    import aiosqlite


_BY_EFFECTIVE_IDS = os.access in os.supports_effective_ids


def make_room(file: Path, database: str, *, read_only: bool) -> None:
    """Make the folder of a file that is to be written; refuse a path where no file can be, in words that SQLite
    has not: it says "unable to open database file" of them all.

    Raises:
        DatabaseUnavailableError: the path is a directory, or its folder cannot be made, entered or written.
    """
    folder = file.parent
    remedy = "Choose another path, or check the permissions of that folder"
    try:
        if file.is_dir():
            raise unavailable(database, "that is a directory", "Name a file in it") from IsADirectoryError(
                str(file)
            )
        if read_only:
            return
        folder.mkdir(parents=True, exist_ok=True)
        is_there = file.exists()
    except OSError as error:
        raise unavailable(
            database, f"the folder {folder} cannot be used: {error.strerror or error}", remedy
        ) from error
    if not is_there and not os.access(folder, os.W_OK | os.X_OK, effective_ids=_BY_EFFECTIVE_IDS):
        raise unavailable(database, f"the folder {folder} may not be written", remedy)


class Place:
    """The path of a database file, and the file that was there when it was opened.

    SQLite goes on with an open file whatever happens to its name, and every commit succeeds: no other program will ever
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
        """Refuse to go on with a file that was deleted or replaced.

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


_WAL = b"\x02\x02"
"""Bytes 18 and 19 of a file that is in WAL mode (https://sqlite.org/fileformat2.html#file_format_version_numbers)."""


def is_wal(path: str | os.PathLike[str]) -> bool:
    """Whether the file says of itself that it is in WAL mode: a connection to an unchangeable file does not."""
    with Path(path).open("rb") as file:
        return file.read(20)[18:20] == _WAL


def wal_of(path: str | os.PathLike[str]) -> Path:
    """The write-ahead log beside a database file."""
    return Path(f"{os.fspath(path)}-wal")


def reading_uri(path: str) -> str:
    """The URI under which SQLite opens a file for reading and leaves the folder as it was.

    A file in WAL mode has a log beside it while any program has it open. If it is there, ``ro`` reads both. If
    not, ``ro`` would create one and could not remove it again; ``rw`` does both, and writes nothing else. Where
    that is not permitted no other program has the file open, and ``immutable`` reads it as it is: what others write
    to it later is not seen.

    Raises:
        DatabaseUnavailableError: there is no such file, or it may not be read.
    """
    name = f"SQLite database {path}"
    file = Path(path)
    if not file.is_file():
        raise unavailable(name, "there is no such file", "Check the path")
    try:
        in_wal_mode = is_wal(file)
    except OSError as error:
        raise unavailable(name, error.strerror or error, "Check the permissions of the file") from error
    if not in_wal_mode or wal_of(file).exists():
        mode = "mode=ro"
    elif os.access(file, os.W_OK) and os.access(file.resolve().parent, os.W_OK):
        mode = "mode=rw"
    else:
        mode = "mode=ro&immutable=1"
    # An absolute path comes after the two slashes of a host that is not named: it may itself begin with two.
    start = "file://" if file.is_absolute() else "file:"
    return f"{start}{quote(os.fsencode(file))}?{mode}"
