"""What the repositories beside the log read and write through."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database import Database
from esource.dialect import Statement
from esource.errors import InvalidOptionError
from esource.unit import Unit


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
        unit = getattr(source, "__esource_unit__", source)
        self._unit = unit if isinstance(unit, Unit) else None
        self._connection = source if isinstance(source, AsyncConnection) else None
        if self._unit is not None:
            self.database = self._unit.database
        elif self._connection is not None:
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
