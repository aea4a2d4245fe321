"""What the repositories beside the log read and write through."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, literal_column
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.database import Database
from esource.database.sources import Source, database_of, parts_of
from esource.database.unit_of_work import Unit
from esource.errors import TenantMismatchError
from esource.log.tenants import _not_own, _tenants_of_last, of_tenant, owns_event
from esource.tables.rows import StreamId
from esource.tables.statement import Statement


class Access:
    """What the repository of one table reads and writes through: a database, or one open transaction of it
    (a store's `Transaction`, or the application's own `AsyncConnection`). Through a bound store, or a
    transaction of one, it sees the tenant's own rows only.
    """

    def __init__(self, source: Source, table: str) -> None:
        self._table = table
        parts = parts_of(source)
        self.tenant_id = None if parts is None else parts.tenant_id
        self._unit = None if parts is None else parts.unit
        self._connection = source if isinstance(source, AsyncConnection) else None
        if parts is not None:
            self.database = parts.database
        elif self._connection is not None:
            self.database = Database.from_engine(self._connection.engine)
        else:
            self.database = database_of(source)
        self.owns_database = isinstance(source, (str, URL))
        """Whether `close` closes the database; a borrowed one stays open."""

    async def read(
        self, statement: Statement, *, table: str | None = None, **values: Any
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement on the repository's table, or on another one."""
        values |= self._owner()
        return await self.database.read(self._own(statement, table), values, await self._open_unit())

    async def write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Run an UPDATE or a DELETE."""
        return await self._write(self._own(statement), values)

    async def insert(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Run an INSERT. The repository has to find out beforehand whether its row is the tenant's."""
        return await self._write(statement, values)

    async def _write(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return await self.database.write(statement, values | self._owner(), await self._open_unit())

    async def require_own_event(self, event_id: UUID) -> None:
        """Refuse the id of an event that is not stored as one of the tenant bound to.

        Raises:
            TenantMismatchError: it is not.
        """
        if self.tenant_id is None or await owns_event(
            self.database, await self._open_unit(), event_id, self.tenant_id
        ):
            return
        raise TenantMismatchError(self.tenant_id, f"event {event_id} is not stored as one of its own")

    async def require_own_stream(
        self, aggregate_id: UUID, aggregate_type: str, *, or_new: bool = False
    ) -> None:
        """Refuse a stream that is not one of the tenant bound to; one that is not there yet may pass.

        Raises:
            TenantMismatchError: it is refused.
        """
        if self.tenant_id is None:
            return
        stream = StreamId(aggregate_id, aggregate_type)
        last = await _tenants_of_last(self.database, await self._open_unit(), stream)
        if last != [self.tenant_id] and (last or not or_new):
            raise _not_own(stream, self.tenant_id)

    @property
    def checkpoint_prefix(self) -> str:
        """What the stored names of the checkpoints begin with; nothing when not bound to a tenant."""
        return "" if self.tenant_id is None else f"{self.tenant_id}:"

    async def close(self) -> None:
        """Close the database if it was opened here, from a URL; a borrowed one stays open."""
        if self.owns_database:
            await self.database.close()

    async def _open_unit(self) -> Unit | None:
        if self._connection is not None:
            return await self.database.join(self._connection)
        return self._unit

    def _own(self, statement: Statement, table: str | None = None) -> Statement:
        return statement if self.tenant_id is None else of_tenant(statement, table or self._table)

    def _owner(self) -> dict[str, Any]:
        if self.tenant_id is None:
            return {}
        return {"of_tenant": self.tenant_id, "checkpoint_prefix": self.checkpoint_prefix}


def count_of(column: ColumnElement[Any], status: str) -> ColumnElement[int]:
    """How many rows have this status."""
    return func.count(case((column == literal_column(f"'{status}'"), literal_column("1"))))
