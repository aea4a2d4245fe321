"""A copy of a SQLite store in a file of its own, made while the store is written to."""

from __future__ import annotations

import os

from esource import schema
from esource.copying.files import new_file, path_of
from esource.copying.progress import OnProgress, Progress
from esource.database.sources import Source
from esource.dialect.urls import inspection_of


async def back_up(
    store: Source, target: str | os.PathLike[str], *, on_progress: OnProgress | None = None
) -> None:
    """Copy a SQLite database to a new file, as it is at one moment, while it is written to.

    The copy is checked, and appears under its name when it is complete and on the disk.

    Args:
        store: a store, an engine or a URL.
        target: the new file.
        on_progress: called now and then, with pages.

    Raises:
        InvalidOptionError: the file is there already or cannot be made; it is not a SQLite database; or the
            store is bound to a tenant: the file would hold every tenant's events.
        DatabaseError: the database is damaged.
    """
    async with (
        schema.whole_store(store, "a backup", any_schema=True) as database,
        new_file(path_of(target)) as partial,
    ):
        inspection = inspection_of(database.backend)

        def tell(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(Progress("pages", done, total))

        await database.inspect(lambda driver: inspection.back_up(driver, partial, tell))
