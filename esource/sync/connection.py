"""SQLAlchemy's connection inside a transaction of a store, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import CursorResult, Executable, ScalarResult
from sqlalchemy.engine import Connection as SQLAlchemyConnection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from esource.dialect.backend import DriverConnection
from esource.sync.driven import Driven

T = TypeVar("T")

Parameters = Sequence[Mapping[str, Any]] | Mapping[str, Any]


class Connection(Driven):
    """What `sqlalchemy.Connection` can do inside a transaction that ends with its block, and only there."""

    _target: AsyncConnection

    def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Execute a statement; its rows are all fetched."""
        return self._call(self._target.execute(statement, parameters))

    def scalar(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row."""
        return self._call(self._target.scalar(statement, parameters))

    def scalars(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> ScalarResult[Any]:
        """The first column of all rows."""
        return self._call(self._target.scalars(statement, parameters))

    def exec_driver_sql(self, statement: str, parameters: Any = None) -> CursorResult[Any]:
        """Execute text as the driver takes it."""
        return self._call(self._target.exec_driver_sql(statement, parameters))

    def run_sync(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a function with a `sqlalchemy.Connection`, for what needs one: a session, or ``create_all``."""
        return self._call(self._target.run_sync(function, *arguments, **options))


Joinable: TypeAlias = "SQLAlchemyConnection | Session | DriverConnection"
"""A transaction of the application's own that an append may join: on a connection of SQLAlchemy, or of a driver itself,
such as Django's ``connection.connection`` inside ``transaction.atomic()``."""
