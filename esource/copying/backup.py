"""A copy of a SQLite store in a file of its own, made while the store is written to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from esource import schema
from esource.dialect.urls import inspection_of
from esource.errors import InvalidOptionError


async def back_up(
    store: Any, target: str | os.PathLike[str], *, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Copy a SQLite database to a new file, as it is at one moment, while it is written to.

    The copy is checked, and appears under its name when it is complete and on the disk.

    Args:
        store: a store, an engine or a URL.
        target: the new file.
        on_progress: called with the pages done, and all.

    Raises:
        InvalidOptionError: the file is there already or cannot be made; or it is no SQLite database.
        DatabaseError: the database is damaged.
    """
    path = Path(target)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    async with schema.opened_database(store) as database:
        inspection = inspection_of(database.backend)
        try:
            await asyncio.to_thread(_begin, partial, path)
            await database.inspect(
                lambda driver: inspection.back_up(driver, partial, on_progress or (lambda *_: None))
            )
            await asyncio.to_thread(_keep, partial, path)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            await asyncio.to_thread(_drop, partial)


def _begin(partial: Path, path: Path) -> None:
    """Make the file, which SQLite takes as a new database: its own error would name the source."""
    if path.exists():
        raise InvalidOptionError(f"{path} is there already: it is not overwritten. Choose another name.")
    partial.open("xb").close()


def _unwritable(path: Path, error: OSError) -> InvalidOptionError:
    problem, folder = error.strerror or error, path.absolute().parent
    return InvalidOptionError(f"{path} cannot be written: {problem}. Look at its folder, {folder}")


def _drop(partial: Path) -> None:
    with suppress(OSError):  # what could not be made cannot be removed either
        partial.unlink(missing_ok=True)


def _keep(partial: Path, path: Path) -> None:
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.rename(path)
