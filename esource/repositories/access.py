"""What the repositories beside the log read and write through."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.database import Database
from esource.database.transactions import Unit
from esource.errors import InvalidOptionError, TenantMismatchError
from esource.log.tenants import _not_own, _tenants_of_last, of_tenant, owns_event
from esource.tables.rows import StreamId
from esource.tables.statement import Statement


class Access:
    """What a repository reads and writes through: a database, or one open transaction of it (a store's
    `Transaction`, or the application's own `AsyncConnection`).

    Raises:
        InvalidOptionError: the source is bound to a tenant, and this repository knows of none.
    """

    knows_tenants = False

    def __init__(self, source: Any) -> None:
        self.tenant_id: UUID | None = getattr(source, "__esource_tenant__", None)
        if self.tenant_id is not None and not self.knows_tenants:
            raise InvalidOptionError(
                "this works on all tenants' rows: give it the store that is not bound to one"
            )
        self._unit: Unit | None = getattr(source, "__esource_unit__", None)
        self._connection = source if isinstance(source, AsyncConnection) else None
        if self._connection is not None:
            self.database = Database.from_engine(self._connection.engine)
        else:
            self.database = Database.of(source)
        self.owns_database = isinstance(source, (str, URL))
        """Whether `close` closes the database; a borrowed one stays open."""

    async def read(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        return await self.database.read(statement, values, await self._open_unit())

    async def write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        return await self.database.write(statement, values, await self._open_unit())

    async def _open_unit(self) -> Unit | None:
        if self._connection is not None:
            return await self.database.join(self._connection)
        return self._unit

    async def close(self) -> None:
        """Close the database if it was opened here, from a URL; a borrowed one stays open."""
        if self.owns_database:
            await self.database.close()


class TenantAccess(Access):
    """What a repository of one table reads and writes through: everything, or, through a bound store or a
    transaction of one, the tenant's own rows."""

    knows_tenants = True

    def __init__(self, source: Any, table: str) -> None:
        super().__init__(source)
        self._table = table

    async def read(
        self, statement: Statement, *, table: str | None = None, **values: Any
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement on the repository's table, or on another one."""
        return await super().read(self._own(statement, table), **self._owner(), **values)

    async def write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Run an UPDATE or a DELETE."""
        return await super().write(self._own(statement), **self._owner(), **values)

    async def insert(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        """Run an INSERT: whether its row is the tenant's is for the repository to find out beforehand."""
        return await super().write(statement, **self._owner(), **values)

    async def require_own_event(self, event_id: UUID) -> None:
        """
        Raises:
            TenantMismatchError: bound to a tenant, and the event is not stored as one of its own.
        """
        if self.tenant_id is None or await owns_event(
            self.database, await self._open_unit(), event_id, self.tenant_id
        ):
            return
        raise TenantMismatchError(self.tenant_id, f"event {event_id} is not stored as one of its own")

    async def require_own_stream(self, aggregate_id: UUID, aggregate_type: str) -> None:
        """
        Raises:
            TenantMismatchError: bound to a tenant, and the stream is not one of its own.
        """
        if self.tenant_id is None:
            return
        stream = StreamId(aggregate_id, aggregate_type)
        if await _tenants_of_last(self.database, await self._open_unit(), stream) != [self.tenant_id]:
            raise _not_own(stream, self.tenant_id)

    @property
    def checkpoint_prefix(self) -> str:
        """What the stored names of the checkpoints begin with; nothing when not bound."""
        return "" if self.tenant_id is None else f"{self.tenant_id}:"

    def _own(self, statement: Statement, table: str | None = None) -> Statement:
        return statement if self.tenant_id is None else of_tenant(statement, table or self._table)

    def _owner(self) -> dict[str, Any]:
        if self.tenant_id is None:
            return {}
        return {"of_tenant": self.tenant_id, "checkpoint_prefix": self.checkpoint_prefix}
