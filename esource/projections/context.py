"""What a projection's handler is told besides the event, and how it writes many rows at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from esource.errors import InvalidOptionError
from esource.log.streams import StoredEvent

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

    from esource.database.unit_of_work import Unit


class Writes:
    """Statements that handlers want executed by the end of their transaction, gathered for `executemany`."""

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered: list[tuple[Executable, list[Mapping[str, Any]]]] = []

    def add(self, statement: Executable, values: Mapping[str, Any]) -> None:
        if self._gathered and self._gathered[-1][0] is statement:
            self._gathered[-1][1].append(values)
        else:
            self._gathered.append((statement, [values]))

    async def execute(self, connection: AsyncConnection) -> None:
        """Execute what was gathered, in its order."""
        gathered, self._gathered = self._gathered, []
        for statement, values in gathered:
            await connection.execute(statement, values)


class ProjectionContext:
    """What a projection's handler is told besides the event."""

    __slots__ = ("_unit", "_writes", "stored")

    def __init__(self, stored: StoredEvent, unit: Unit | None, writes: Writes) -> None:
        self.stored = stored
        """The event's envelope: stream, version, position, times."""
        self._unit = unit
        self._writes = writes

    @property
    def connection(self) -> AsyncConnection:
        """SQLAlchemy's connection, inside the transaction that also saves the checkpoint.

        Raises:
            InvalidOptionError: the projection saves its progress outside a transaction of its handlers.
        """
        if self._unit is None:
            raise InvalidOptionError(
                "there is no transaction around this handler: set progress = 'in_transaction'"
            )
        return self._unit.lent

    def write(self, statement: Executable, values: Mapping[str, Any]) -> None:
        """Have a statement executed with these values by the end of the transaction. No I/O.

        All values that one statement is given in a row are sent at once (``executemany``), so that a read
        model is written many times faster than through `connection`. The statement is one object, made
        once: an INSERT, UPDATE or DELETE with bound parameters, or an upsert that refers to ``excluded``.
        What is read through `connection` does not see it before `flush`.

        Raises:
            InvalidOptionError: as `connection` does.
        """
        _ = self.connection
        self._writes.add(statement, values)

    async def flush(self) -> None:
        """Execute what `write` has gathered, of earlier events, too."""
        await self._writes.execute(self.connection)

    @property
    def position(self) -> int:
        """The event's global position."""
        return self.stored.global_position

    @property
    def tenant_id(self) -> UUID | None:
        return self.stored.tenant_id
