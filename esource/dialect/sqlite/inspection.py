"""What SQLite can tell of a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from esource.dialect.inspection import IndexUse, Inspection, Size, Symptom
from esource.dialect.sqlite.files import is_wal, wal_of
from esource.errors import DatabaseError
from esource.tables.names import is_ours

WAL_BYTES = 64 * 1024 * 1024
"""A write-ahead log beyond this was not emptied for long: SQLite does that at 4 MiB."""

FREE_SHARE = 0.25
"""A file with more free pages than this is worth being written anew."""

BACKUP_PAGES = 2000
"""Pages that are copied at a time, while writers wait."""


class SQLiteInspection(Inspection):
    """By PRAGMA, and by looking at the files."""

    async def product(self, driver: Any) -> str:
        return f"SQLite {sqlite3.sqlite_version}"

    async def sizes(self, driver: Any) -> list[Size]:
        pages, page_size = await self._number(driver, "page_count"), await self._number(driver, "page_size")
        found = [Size("database", pages * page_size)]
        wal = await self._wal(driver)
        if wal is not None:
            found.append(Size("write-ahead log", wal))
        return found

    async def other_tables(self, driver: Any) -> list[str]:
        rows = await driver.execute_fetchall(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        )
        return [name for (name,) in rows if not is_ours(name) and not name.startswith("sqlite_")]

    async def index_use(self, driver: Any) -> list[IndexUse]:
        return []

    async def symptoms(self, driver: Any) -> list[Symptom]:
        found = []
        path = await self._path(driver)
        [(mode,)] = await driver.execute_fetchall("PRAGMA journal_mode")
        # A file that may only be read is opened as one that does not change, for which the pragma says "delete".
        if path is not None and mode != "wal" and not is_wal(path):
            found.append(
                Symptom(
                    f"journal_mode is {mode}: readers and writers keep each other waiting",
                    "Close every program and open it once with SQLiteEventStore (wal_mode=True)",
                )
            )
        wal = await self._wal(driver) or 0
        if wal > WAL_BYTES:
            found.append(
                Symptom(
                    f"the write-ahead log has {wal // 2**20} MiB: a reader has kept its transaction open",
                    f"Find it and end it, then: sqlite3 {path} 'PRAGMA wal_checkpoint(TRUNCATE)'",
                )
            )
        pages, free = await self._number(driver, "page_count"), await self._number(driver, "freelist_count")
        if pages > 1000 and free > pages * FREE_SHARE:
            found.append(
                Symptom(
                    f"{free} of {pages} pages are empty", f"While no program writes: sqlite3 {path} VACUUM"
                )
            )
        return found

    async def counter(self, driver: Any) -> Symptom | None:
        return None  # SQLite goes on behind the last row, whatever its counter says

    async def back_up(self, driver: Any, target: Path, tell: Callable[[int, int], None]) -> None:
        def progress(status: int, remaining: int, total: int) -> None:
            tell(total - remaining, total)

        with closing(sqlite3.connect(target, check_same_thread=False)) as copy:
            await driver.backup(copy, pages=BACKUP_PAGES, progress=progress, sleep=0.01)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
            damage = [row[0] for row in copy.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        if damage:
            raise DatabaseError(f"the copy of this database is damaged, as it is itself: {'; '.join(damage)}")

    async def _number(self, driver: Any, pragma: str) -> int:
        [(value,)] = await driver.execute_fetchall(f"PRAGMA {pragma}")
        return int(value)

    async def _path(self, driver: Any) -> Path | None:
        rows = await driver.execute_fetchall("PRAGMA database_list")
        name = next(row[2] for row in rows if row[1] == "main")
        return Path(name) if name else None

    async def _wal(self, driver: Any) -> int | None:
        path = await self._path(driver)
        if path is None:
            return None
        try:
            return wal_of(path).stat().st_size
        except OSError:
            return None
