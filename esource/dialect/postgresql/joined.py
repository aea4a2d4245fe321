"""An application's own connection by psycopg, as far as an append that joins its transaction needs asyncpg's."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg

from esource.errors import MissingDriverError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from esource.dialect.backend import Call


class JoinedConnection:
    """Runs each statement where the application runs, in its thread; it neither begins nor ends a transaction."""

    def __init__(self, connection: psycopg.Connection[Any], call: Call) -> None:
        self._connection = connection
        self._call = call

    async def fetch(self, text: str, *arguments: Any) -> Sequence[Any]:
        return await self._call(partial(_run, self._connection, text, arguments), ())  # type: ignore[no-any-return]

    async def fetchrow(self, text: str, *arguments: Any) -> Any:
        rows = await self.fetch(text, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        row = await self.fetchrow(text, *arguments)
        return None if row is None else row[0]

    async def execute(self, text: str) -> None:
        await self.fetch(text)

    def is_in_transaction(self) -> bool:
        from psycopg.pq import TransactionStatus

        return bool(self._connection.info.transaction_status != TransactionStatus.IDLE)

    def is_in_pipeline(self) -> bool:
        """Whether results come later: an error may be that of any statement before."""
        return bool(self._connection.pgconn.pipeline_status)

    def is_closed(self) -> bool:
        return bool(self._connection.closed)

    def get_server_pid(self) -> int:
        return int(self._connection.info.backend_pid)

    def terminate(self) -> None:
        self._connection.close()


def _run(connection: psycopg.Connection[Any], text: str, arguments: Sequence[Any]) -> list[Any]:
    """The rows of a statement in asyncpg's form: numbered parameters, JSON as text; and errors as its own."""
    try:
        from psycopg import Error, RawCursor
        from psycopg.rows import tuple_row
        from psycopg.types.string import TextLoader
    except ImportError as error:
        raise MissingDriverError("psycopg", "psycopg") from error
    try:
        with RawCursor(connection, row_factory=tuple_row) as cursor:
            for name in ("json", "jsonb"):
                cursor.adapters.register_loader(name, TextLoader)
            # It makes a row of a tuple, and asyncpg an array.
            cursor.execute(text, [list(each) if isinstance(each, tuple) else each for each in arguments])
            return list(cursor.fetchall()) if cursor.description else []
    except Error as error:
        if error.sqlstate is None:
            raise asyncpg.InterfaceError(f"the connection is closed: {error}") from error
        fields = {"C": error.sqlstate, "M": error.diag.message_primary or str(error)}
        named = {"n": error.diag.constraint_name, "c": error.diag.column_name, "t": error.diag.table_name}
        raise asyncpg.PostgresError.new(
            fields | {key: value for key, value in named.items() if value}
        ) from error
