"""A transaction's connection in the hands of the application, which may do everything with it but end it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.errors import InvalidOptionError


class LentConnection(AsyncConnection):
    """SQLAlchemy's connection inside one of our transactions. The end is refused, and does no harm: the
    transaction can go on.

    Raises:
        InvalidOptionError: the application commits, rolls back, begins or closes.
    """

    __slots__ = ()

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.engine, connection.sync_connection)

    async def commit(self) -> NoReturn:
        _refuse("commit()")

    async def rollback(self) -> NoReturn:
        _refuse("rollback()")

    async def close(self) -> NoReturn:
        _refuse("close()")

    async def aclose(self) -> NoReturn:
        _refuse("aclose()")

    async def invalidate(self, exception: BaseException | None = None) -> NoReturn:
        _refuse("invalidate()")

    def begin(self) -> NoReturn:
        _refuse("begin()")


class ReadingConnection(LentConnection):
    """The connection of a reading: it says in our words that nothing can be written.

    Raises:
        DatabaseReadOnlyError: a statement writes.
        StoreClosedError: the store was closed, or the reading has ended.
    """

    __slots__ = ("_errors",)

    def __init__(
        self, connection: AsyncConnection, errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__(connection)
        self._errors = errors

    if not TYPE_CHECKING:  # SQLAlchemy's signatures are many, and stay

        async def execute(self, *arguments: Any, **options: Any) -> Any:
            with self._errors():
                return await super().execute(*arguments, **options)

        async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
            with self._errors():
                return await super().exec_driver_sql(*arguments, **options)

        async def run_sync(self, *arguments: Any, **options: Any) -> Any:
            with self._errors():
                return await super().run_sync(*arguments, **options)


def _refuse(what: str) -> NoReturn:
    raise InvalidOptionError(
        f"connection.{what} is not for this connection: it is lent, inside a transaction of the store, which ends "
        "with its block. An exception rolls it back; begin_nested() makes a savepoint"
    )
