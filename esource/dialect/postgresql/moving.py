"""Moving a whole store out of PostgreSQL, and into it."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterable, AsyncIterator, Callable, Hashable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    String,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import REGCLASS

from esource.dialect.moving import LOCK_SECONDS, MOVED, MOVED_FENCE, Moving
from esource.dialect.postgresql.positions import IS_FROM_ROW, LAST, SET_LAST
from esource.dialect.postgresql.quoting import literal
from esource.moments import from_iso
from esource.tables.model import events
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Json, Timestamp

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
        _proc.c.proname == MOVED_FENCE, _proc.c.pronamespace == func.to_regnamespace(func.current_schema())
    )
)
_class = table("pg_class", *map(column, ("oid", "relname", "relkind", "relnamespace", "relowner")))
_index = table("pg_index", column("indexrelid"), column("indrelid"))
_OF = cast(bindparam("of", type_=Text()), REGCLASS)
_INDEXES = Statement(
    select(_class.c.relname)
    .join_from(_class, _index, _class.c.oid == _index.c.indexrelid)
    .where(_index.c.indrelid == _OF)
)
_MAY_ALTER = Statement(
    select(
        func.pg_has_role(_class.c.relowner, "USAGE")
        & func.has_schema_privilege(_class.c.relnamespace, "CREATE")
        # The indexes of a log in parts are those of its parts, with names of their own.
        & (_class.c.relkind == "r")
    ).where(_class.c.oid == _OF)
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
        # One COPY for all pages, so that the server is at work while the next page is read; in small portions, so that
        # the socket, which holds 5 ms of the server's work, never runs empty while the next one is put together.
        # The server is the bottleneck: binary rows spare it the parsing (12 % of the whole), and putting them
        # together here costs a third of what asyncpg needs to encode values of Python.
        dialect = self.backend.sqlalchemy_dialect
        forms = [_form(table.c[name].type.dialect_impl(dialect)) for name in columns]

        async def portions() -> AsyncIterator[bytes]:
            yield _HEADER
            async for rows in pages:
                for start in range(0, len(rows), PORTION_ROWS):
                    yield _tuples(forms, rows[start : start + PORTION_ROWS])
            yield _TRAILER

        await driver.copy_to_table(table.name, source=portions(), columns=list(columns), format="binary")

    async def indexes(self, driver: Any, table: Table) -> set[str]:
        return {str(name) for (name,) in await self._fetch(driver, _INDEXES, of=table.name)}

    async def may_alter(self, driver: Any, table: Table) -> bool:
        [(is_owner,)] = await self._fetch(driver, _MAY_ALTER, of=table.name)
        return bool(is_owner)

    async def commit_without_waiting(self, driver: Any) -> None:
        # https://www.postgresql.org/docs/current/wal-async-commit.html: the log is flushed in its order.
        await self._run(driver, "SET LOCAL synchronous_commit = off")

    async def counter(self, driver: Any, table: Table) -> int | None:
        if await self._is_from_row(driver, table):
            return int(await driver.fetchval(LAST) or 0)
        sequence = await self._sequence(driver, table)
        if sequence is None:
            return None
        # A sequence is read like a table of one row; its name comes from the catalogue, quoted.
        [(last, is_called)] = await driver.fetch(f"SELECT last_value, is_called FROM {sequence}")  # noqa: S608
        return int(last) if is_called else int(last) - 1

    async def set_counter(self, driver: Any, table: Table, value: int) -> None:
        if await self._is_from_row(driver, table):
            await driver.fetch(SET_LAST, value)
            return
        sequence = await self._sequence(driver, table)
        await self._fetch(driver, _SET, sequence=sequence, value=max(value, 1), is_called=value > 0)

    async def _is_from_row(self, driver: Any, table: Table) -> bool:
        return table is events and bool(await driver.fetchval(IS_FROM_ROW))

    async def _sequence(self, driver: Any, table: Table) -> str | None:
        [key] = table.primary_key.columns
        [(found,)] = await self._fetch(driver, _SEQUENCE, of=table.name, key=key.name)
        return None if found is None else str(found)

    async def lock_tables(self, driver: Any, tables: Sequence[Table]) -> None:
        # Not the lock of the log: an append locks the table before it waits for that one.
        await self._run(
            driver,
            f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
            f"LOCK TABLE {', '.join(table.name for table in tables)} IN SHARE ROW EXCLUSIVE MODE",
        )

    async def fence(self, driver: Any, tables: Sequence[Table], moved_to: str) -> None:
        message = literal(f"{MOVED_FENCE}: {moved_to}")
        body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = {message}; END"
        await self._run(
            driver,
            f"CREATE FUNCTION {MOVED_FENCE}() RETURNS trigger LANGUAGE plpgsql AS {literal(body)}",
            f"COMMENT ON FUNCTION {MOVED_FENCE}() IS {literal(moved_to)}",
            *(
                f"CREATE TRIGGER {MOVED_FENCE} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {MOVED_FENCE}()"
                for table in tables
            ),
        )

    async def unfence(self, driver: Any, tables: Sequence[Table]) -> None:
        await self._run(
            driver,
            *(f"DROP TRIGGER IF EXISTS {MOVED_FENCE} ON {table.name}" for table in tables),
            f"DROP FUNCTION IF EXISTS {MOVED_FENCE}()",
        )

    async def moved_to(self, driver: Any) -> str | None:
        rows = await self._fetch(driver, _NOTE)
        return None if not rows else str(rows[0][0])


# COPY's binary form (https://www.postgresql.org/docs/current/sql-copy.html, Binary Format): each field is its length
# and its bytes, as the type's own receive function reads them.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_JSONB_VERSION = b"\x01"
_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)

_length = struct.Struct(">i").pack
_short = struct.Struct(">ii").pack
_long = struct.Struct(">iq").pack


def _tuples(forms: Sequence[Callable[[Any], bytes]], rows: Sequence[Any]) -> bytes:
    """Rows in COPY's binary form. By column, because a loop over rows would cost more than the rest.

    Raises:
        ValueError, TypeError, AttributeError: a value is not what its column's type takes.
    """
    head = struct.pack(">h", len(forms))
    try:
        columns = [_fields(form, values) for form, values in zip(forms, zip(*rows, strict=True), strict=True)]
        return b"".join([head + b"".join(fields) for fields in zip(*columns, strict=True)])
    except (struct.error, OverflowError) as error:
        raise ValueError(f"a number does not fit: {error}") from error


def _fields(form: Callable[[Any], bytes], values: Sequence[Any]) -> Iterable[bytes]:
    # Types, tenants and actors are often the same in all of a portion.
    if len(set(values)) == 1:
        return [_NULL if values[0] is None else form(values[0])] * len(values)
    return [_NULL if value is None else form(value) for value in values]


def _form(kind: Any) -> Callable[[Any], bytes]:
    """What makes a field of a value that is not NULL."""
    return next(form for types, form in _FORMS.items() if isinstance(kind, types))


def _moment(value: str) -> bytes:
    # from_iso, without what our own form does not need
    moment = datetime.fromisoformat(value) if value.endswith("+00:00") else from_iso(value)
    past = moment - _EPOCH
    return _long(8, (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds)


def _identifier(value: str) -> bytes:
    digits = bytes.fromhex(value.replace("-", ""))
    if len(digits) != 16:
        raise ValueError(f"no UUID: {value!r:.50}")
    return b"\0\0\0\x10" + digits


def _json(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded) + 1) + _JSONB_VERSION + encoded


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def _bigint(value: int) -> bytes:
    return _long(8, value)


def _integer(value: int) -> bytes:
    return _short(4, value)


_FORMS: dict[Any, Callable[[Any], bytes]] = {
    Timestamp: _moment,
    (Identifier, Uuid): _identifier,
    Json: _json,
    (Text, String): _text,
    BigInteger: _bigint,
    Integer: _integer,
}
