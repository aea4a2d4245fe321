"""Moving a whole store out of PostgreSQL, and into it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, String, Table, Text, bindparam, cast, column, func, select, table
from sqlalchemy.dialects.postgresql import REGCLASS

from esource.dialect.backend import Statement
from esource.dialect.moving import FENCE, LOCK_SECONDS, MOVED, Moving
from esource.dialect.quoting import literal
from esource.types import Json, Timestamp, canonical_moment

_IDENTITY = Statement(
    select(
        func.current_database(),
        func.current_schema(),
        # Servers have no name of their own; no two have started at the same microsecond and port.
        func.pg_postmaster_start_time(),
        func.current_setting("port"),
    )
)
_SEQUENCE = Statement(
    select(func.pg_get_serial_sequence(bindparam("of", type_=Text()), bindparam("key", type_=Text())))
)
_SET = Statement(
    select(
        func.setval(
            cast(bindparam("sequence", type_=Text()), REGCLASS),
            bindparam("value", type_=BigInteger()),
            bindparam("is_called", type_=Boolean()),
        )
    )
)
_proc = table("pg_proc", column("oid"), column("proname"), column("pronamespace"))
_NOTE = Statement(
    select(func.obj_description(_proc.c.oid, "pg_proc")).where(
        _proc.c.proname == FENCE, _proc.c.pronamespace == func.to_regnamespace(func.current_schema())
    )
)


PORTION_ROWS = 200
"""Rows that are put into COPY's text form at once: less than a millisecond of work."""


class PostgreSQLMoving(Moving):
    """Rows by binary COPY, the sequences behind the keys, and a trigger function as the fence."""

    async def identity(self, driver: Any) -> Hashable:
        return tuple((await self._fetch(driver, _IDENTITY))[0])

    async def load(
        self, driver: Any, table: Table, columns: Sequence[str], pages: AsyncIterable[Sequence[Any]]
    ) -> None:
        # COPY's text form, not the binary one: joining texts costs a third of what asyncpg needs to make ids and
        # moments of them, and to encode those again; the server reads the text as fast. One COPY for all pages,
        # so that the server is at work while the next page is read; in small portions, so that the socket, which
        # holds 5 ms of the server's work, never runs empty while the next text is put together.
        async def lines() -> AsyncIterator[bytes]:
            async for rows in pages:
                for start in range(0, len(rows), PORTION_ROWS):
                    yield _copy_text(table, columns, rows[start : start + PORTION_ROWS])

        await driver.copy_to_table(table.name, source=lines(), columns=list(columns), format="text")

    async def commit_without_waiting(self, driver: Any) -> None:
        # https://www.postgresql.org/docs/current/wal-async-commit.html: the log is flushed in its order.
        await self._run(driver, "SET LOCAL synchronous_commit = off")

    async def counter(self, driver: Any, table: Table) -> int | None:
        sequence = await self._sequence(driver, table)
        if sequence is None:
            return None
        # A sequence is read like a table of one row; its name comes from the catalogue, quoted.
        [(last, is_called)] = await driver.fetch(f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608
        return int(last) if is_called else int(last) - 1

    async def set_counter(self, driver: Any, table: Table, value: int) -> None:
        sequence = await self._sequence(driver, table)
        await self._fetch(driver, _SET, sequence=sequence, value=max(value, 1), is_called=value > 0)

    async def _sequence(self, driver: Any, table: Table) -> str | None:
        [key] = table.primary_key.columns
        [(found,)] = await self._fetch(driver, _SEQUENCE, of=table.name, key=key.name)
        return None if found is None else str(found)

    async def lock_tables(self, driver: Any, tables: Sequence[Table]) -> None:
        # Not the log's own lock: who appends locks the table before it waits for that one.
        await self._run(
            driver,
            f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
            f"LOCK TABLE {', '.join(table.name for table in tables)} IN SHARE ROW EXCLUSIVE MODE",
        )

    async def fence(self, driver: Any, tables: Sequence[Table], moved_to: str) -> None:
        message = literal(f"{FENCE}: {moved_to}")
        body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = {message}; END"
        await self._run(
            driver,
            f"CREATE FUNCTION {FENCE}() RETURNS trigger LANGUAGE plpgsql AS {literal(body)}",
            f"COMMENT ON FUNCTION {FENCE}() IS {literal(moved_to)}",
            *(
                f"CREATE TRIGGER {FENCE} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {FENCE}()"
                for table in tables
            ),
        )

    async def unfence(self, driver: Any, tables: Sequence[Table]) -> None:
        await self._run(
            driver,
            *(f"DROP TRIGGER IF EXISTS {FENCE} ON {table.name}" for table in tables),
            f"DROP FUNCTION IF EXISTS {FENCE}()",
        )

    async def moved_to(self, driver: Any) -> str | None:
        rows = await self._fetch(driver, _NOTE)
        return None if not rows else str(rows[0][0])


_SPECIAL = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
"""What means something else to COPY (https://www.postgresql.org/docs/current/sql-copy.html, Text Format)."""


def _copy_text(table: Table, columns: Sequence[str], rows: Sequence[Any]) -> bytes:
    """Rows in COPY's text form. By column, because a loop over rows would cost more than the rest."""
    values = [
        _column_text(table.c[name].type, column)
        for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    return ("\n".join(map("\t".join, zip(*values, strict=True))) + "\n").encode()


def _column_text(kind: Any, values: Sequence[Any]) -> Iterable[str]:
    if isinstance(kind, Timestamp):
        # Without an offset a moment would be taken for one in the session's time zone.
        texts = ["\\N" if value is None else canonical_moment(value) for value in values]
    elif isinstance(kind, (Text, String, Json)):
        # Most columns hold nothing special: that is seen at a glance over all of them.
        together = "".join([value for value in values if value is not None])
        if any(special in together for special in "\\\t\n\r"):
            texts = ["\\N" if value is None else value.translate(_SPECIAL) for value in values]
        else:
            texts = ["\\N" if value is None else value for value in values]
    else:
        texts = ["\\N" if value is None else str(value) for value in values]
    return texts
