"""What moving a whole store asks of a database, beyond what the store itself needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Hashable, Sequence
from typing import Any

from sqlalchemy import Index, Table, bindparam, insert
from sqlalchemy.schema import CreateIndex, DropIndex

from esource.dialect.backend import Backend
from esource.tables.model import indexes_of
from esource.tables.statement import Statement

MOVED_FENCE = "esource_moved"
"""What the triggers that refuse writes to a store that has moved are called, the function behind them, and
the word that their error begins with: ``esource_moved: <where to>``."""

MOVED = "ESMVD"
"""The fence's SQLSTATE: of a class that the SQL standard leaves to applications."""


LOCK_SECONDS = 10
"""How long to wait for the writers that are at work, in seconds."""


class Moving(ABC):
    """Bulk loading, the counters behind generated keys, and the fence around a store that has moved.

    Every method works in the transaction that is open on the driver's connection, if there is one.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @abstractmethod
    async def identity(self, driver: Any) -> Hashable:
        """Equal for two connections to the same tables, however they were reached."""

    @abstractmethod
    async def load(
        self, driver: Any, table: Table, columns: Sequence[str], pages: AsyncIterable[Sequence[Any]]
    ) -> None:
        """Add rows in the fastest way there is, as the pages come. Ids, moments and JSON are text."""

    @abstractmethod
    async def indexes(self, driver: Any, table: Table) -> set[str]:
        """The names of the indexes that a table has."""

    async def may_alter(self, driver: Any, table: Table) -> bool:
        """Whether this user may drop and make a table's indexes."""
        return True

    async def drop_indexes(self, driver: Any, table: Table) -> None:
        """Take away those of our indexes that only make queries quick: what is unique is kept unique."""
        await self._run(
            driver, *(self._text(DropIndex(index, if_exists=True)) for index in indexes_of(table))
        )

    async def missing_indexes(self, driver: Any, table: Table) -> list[Index]:
        """Those of our indexes that a table has not, if this user may make them."""
        there = await self.indexes(driver, table)
        missing = [index for index in indexes_of(table) if index.name not in there]
        return missing if missing and await self.may_alter(driver, table) else []

    async def build_index(self, driver: Any, index: Index) -> None:
        await self._run(driver, self._text(CreateIndex(index)))

    async def commit_without_waiting(self, driver: Any) -> None:  # noqa: B027 - not every database can
        """Let the open transaction's commit return before it is on disk; one that waits later covers it, too."""

    @abstractmethod
    async def counter(self, driver: Any, table: Table) -> int | None:
        """The last key that was generated for a table, 0 before the first; None if it has no counter."""

    @abstractmethod
    async def set_counter(self, driver: Any, table: Table, value: int) -> None:
        """Let the next generated key be the one after this."""

    @abstractmethod
    async def lock_tables(self, driver: Any, tables: Sequence[Table]) -> None:
        """Keep all others from appending and from writing to the tables until the transaction ends; readers go on.

        Gives up after `LOCK_SECONDS`: meanwhile every writer waits behind.
        """

    @abstractmethod
    async def fence(self, driver: Any, tables: Sequence[Table], moved_to: str) -> None:
        """Refuse every write to the tables, whatever program tries it, and say where the store has gone."""

    @abstractmethod
    async def unfence(self, driver: Any, tables: Sequence[Table]) -> None:
        """Take the fence away; nothing happens if there is none."""

    @abstractmethod
    async def moved_to(self, driver: Any) -> str | None:
        """What the fence says; None if there is none."""

    async def damage(self, driver: Any) -> list[str]:
        """What the database says is wrong with its own files; nothing if it cannot tell."""
        return []

    async def _fetch(self, driver: Any, statement: Statement, **values: Any) -> list[Any]:
        compiled = self.backend.compiled(statement)
        return await self.backend.fetch(driver, compiled.text, compiled.arguments(values))

    def _text(self, statement: CreateIndex | DropIndex) -> str:
        return str(statement.compile(dialect=self.backend.sqlalchemy_dialect))

    async def _run(self, driver: Any, *statements: str) -> None:
        for statement in statements:
            await self.backend.write(driver, statement, (), commit=False)


def insert_of(table: Table, columns: Sequence[str]) -> Statement:
    """The insert of one row; its parameters come in the columns' order."""
    # inline: a key that the database makes is not asked for; executemany could not take it (Python 3.10).
    return Statement(insert(table).values({name: bindparam(name) for name in columns}).inline())
