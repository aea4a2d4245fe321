"""Moving a whole store out of SQLite, and into it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import AsyncIterable, Hashable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Dialect, Table, bindparam, column, delete, insert, select
from sqlalchemy import table as known_table

from esource.dialect.moving import MOVED_FENCE, Moving, insert_of
from esource.dialect.sqlite.conditions import index_tags
from esource.dialect.sqlite.hop import hop
from esource.tables.model import events
from esource.tables.statement import Statement

_sequence = known_table("sqlite_sequence", column("name"), column("seq"))
_COUNTER = Statement(select(_sequence.c.seq).where(_sequence.c.name == bindparam("of")))
_FORGET = Statement(delete(_sequence).where(_sequence.c.name == bindparam("of")))
_REMEMBER = Statement(insert(_sequence).values(name=bindparam("of"), seq=bindparam("value")))

_schema = known_table("sqlite_master", column("type"), column("name"), column("sql"))
_TRIGGER = Statement(
    select(_schema.c.sql).where(_schema.c.type == "trigger", _schema.c.name.startswith(MOVED_FENCE)).limit(1)
)
_MESSAGE = re.compile(rf"RAISE\(ABORT, '{MOVED_FENCE}: (.*)'\)", re.DOTALL)
_WRITES = ("INSERT", "UPDATE", "DELETE")


class SQLiteMoving(Moving):
    """Rows by executemany in one hop, AUTOINCREMENT's counters, and triggers as the fence."""

    async def identity(self, driver: Any) -> Hashable:
        rows = await self.backend.fetch(driver, "PRAGMA database_list", ())
        path = next(row[2] for row in rows if row[1] == "main")
        if not path:
            return id(driver)
        status = os.stat(path)  # noqa: PTH116 - one system call, no other way to stay a coroutine
        return status.st_dev, status.st_ino

    async def load(
        self, driver: Any, table: Table, columns: Sequence[str], pages: AsyncIterable[Sequence[Any]]
    ) -> None:
        text = self.backend.compiled(insert_of(table, columns)).text
        dialect = self.backend.sqlalchemy_dialect
        places = (columns.index("tags"), columns.index("global_position")) if table is events else None
        async for rows in pages:
            await hop(driver, partial(_insert, text, rows, dialect, places), commit=False)

    async def indexes(self, driver: Any, table: Table) -> set[str]:
        rows = await self.backend.fetch(driver, f"PRAGMA index_list({table.name})", ())
        return {row[1] for row in rows}

    async def counter(self, driver: Any, table: Table) -> int | None:
        if not table.dialect_options["sqlite"]["autoincrement"]:
            return None
        rows = await self._fetch(driver, _COUNTER, of=table.name)
        return int(rows[0][0]) if rows else 0

    async def set_counter(self, driver: Any, table: Table, value: int) -> None:
        # The table of counters has no constraint that an upsert could name.
        await self._fetch(driver, _FORGET, of=table.name)
        await self._fetch(driver, _REMEMBER, of=table.name, value=value)

    async def lock_tables(self, driver: Any, tables: Sequence[Table]) -> None:
        """Nothing to do: the transaction has begun as the only writer."""

    async def fence(self, driver: Any, tables: Sequence[Table], moved_to: str) -> None:
        quoted = moved_to.replace("'", "''")
        for table in tables:
            for write in _WRITES:
                await self._run(
                    driver,
                    f"CREATE TRIGGER {MOVED_FENCE}_{table.name}_{write.lower()} BEFORE {write} ON {table.name} "
                    f"BEGIN SELECT RAISE(ABORT, '{MOVED_FENCE}: {quoted}'); END",
                )

    async def unfence(self, driver: Any, tables: Sequence[Table]) -> None:
        for table in tables:
            for write in _WRITES:
                await self._run(driver, f"DROP TRIGGER IF EXISTS {MOVED_FENCE}_{table.name}_{write.lower()}")

    async def moved_to(self, driver: Any) -> str | None:
        return _told(await self._fetch(driver, _TRIGGER))

    async def damage(self, driver: Any) -> list[str]:
        rows = await self.backend.fetch(driver, "PRAGMA integrity_check(20)", ())
        return [str(row[0]) for row in rows if row[0] != "ok"]


def _told(rows: Sequence[Any]) -> str | None:
    found = _MESSAGE.search(rows[0][0]) if rows else None
    return found.group(1).replace("''", "'") if found else None


def refuse_if_moved(cursor: sqlite3.Cursor, dialect: Dialect) -> None:
    """Raise what a write would, for an append that writes nothing, and so does not meet the fence.

    Raises:
        sqlite3.IntegrityError: the store has moved.
    """
    compiled = _TRIGGER.on(dialect)
    moved_to = _told(cursor.execute(compiled.text, compiled.arguments({})).fetchall())
    if moved_to is not None:
        raise sqlite3.IntegrityError(f"{MOVED_FENCE}: {moved_to}")


def _insert(
    text: str,
    rows: Sequence[Any],
    dialect: Dialect,
    places: tuple[int, int] | None,
    cursor: sqlite3.Cursor,
) -> None:
    cursor.executemany(text, rows)
    if places is not None:
        tags, position = places
        index_tags(cursor, dialect, ((row[tags], row[position]) for row in rows))
