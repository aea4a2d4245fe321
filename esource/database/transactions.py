"""An open transaction, as everything that works inside it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from esource.errors import StoreClosedError

if TYPE_CHECKING:
    from esource.database.database import Database


class Unit:
    """An open transaction: everything that runs on it commits or vanishes together."""

    def __init__(self, database: Database, connection: AsyncConnection, driver: Any) -> None:
        self.database = database
        self.connection = connection
        self.driver = driver
        self._lock = asyncio.Lock()
        self.is_open = True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Tasks of one transaction take turns: a connection runs one statement at a time."""
        async with self._lock:
            self.require_open()
            yield

    def require_open(self) -> None:
        """
        Raises:
            StoreClosedError: the transaction has ended; its connection may be somebody else's by now.
        """
        if not self.is_open:
            raise StoreClosedError("the transaction has ended: work with it inside its `async with` block")

    async def end(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Refuse more work, let a task that is at work in it finish, then commit or roll back."""
        self.is_open = False
        async with self._lock:
            await finish()


open_units: ContextVar[tuple[Unit, ...]] = ContextVar("esource_units", default=())
"""The transactions that the running task is inside of, outermost first, of whatever databases."""

Connection = AsyncConnection | AsyncSession
"""A transaction of the application's own that an append may join."""
