"""Moving a whole store out of PostgreSQL, and into it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import BigInteger, Boolean, Table, Text, bindparam, cast, column, func, select, table
from sqlalchemy.dialects.postgresql import REGCLASS

from esource.dialect.backend import Statement
from esource.dialect.moving import FENCE, LOCK_SECONDS, MOVED, Moving
from esource.types import Timestamp, from_iso

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


class PostgreSQLMoving(Moving):
    """Rows by binary COPY, the sequences behind the keys, and a trigger function as the fence."""

    async def identity(self, driver: Any) -> Hashable:
        return tuple((await self._fetch(driver, _IDENTITY))[0])

    async def load(self, driver: Any, table: Table, columns: Sequence[str], rows: Sequence[Any]) -> None:
        # asyncpg takes ids and JSON as text, moments not. By column, because a loop over rows would cost
        # more than the driver's own work.
        values: list[Any] = list(zip(*rows, strict=True))
        for place, name in enumerate(columns):
            if isinstance(table.c[name].type, Timestamp):
                values[place] = map(_moment, values[place])
        await driver.copy_records_to_table(
            table.name, records=zip(*values, strict=True), columns=list(columns)
        )

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
        quoted = moved_to.replace("'", "''")
        await self._run(
            driver,
            f"CREATE FUNCTION {FENCE}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN "
            f"RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = '{FENCE}: {quoted}'; END $body$",
            f"COMMENT ON FUNCTION {FENCE}() IS '{quoted}'",
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


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return from_iso(text)
    return value if value.tzinfo is timezone.utc else from_iso(text)
