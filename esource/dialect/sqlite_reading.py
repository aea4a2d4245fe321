"""Opening a SQLite file only to read it: nothing is created, changed or left behind."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from esource.dialect.backend import unavailable

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

    A file in WAL mode has a log beside it while anybody has it open. If it is there, ``ro`` reads both. If
    not, ``ro`` would create one and could not remove it again; ``rw`` does both, and writes nothing else. Where
    that is not permitted nobody is at work on the file, and ``immutable`` reads it as it is: what others write
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
