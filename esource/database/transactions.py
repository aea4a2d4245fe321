"""Transactions: how one begins and ends, and what the tasks inside it see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, AsyncTransaction

from esource.database.cancellation import uninterrupted
from esource.database.connections import Connections
from esource.database.effects import Effects
from esource.database.lanes import Lane, settle
from esource.database.lent import LentConnection
from esource.dialect.backend import Backend
from esource.dialect.errors import driver_error, unavailable
from esource.errors import InvalidOptionError, StoreClosedError

Connection = AsyncConnection | AsyncSession
"""A transaction of the application's own that an append may join."""

_IN_DOUBT = "the connection was lost during the commit, and it is not known whether the transaction is stored"
_FIND_OUT = "Look for what it wrote, or repeat it with the same event ids: events are not stored twice"


_ENDED_INSIDE = (
    "the application has ended the transaction inside its block, by a session or on the synchronous connection: what "
    "was written before that may be stored, and what came after it is not. Leave the end to the block"
)


class Unit:
    """An open transaction: everything that runs on it commits or vanishes together."""

    def __init__(self, owner: Transactions, connection: AsyncConnection, driver: Any) -> None:
        self.owner = owner
        """The transactions of the database that it belongs to."""
        self.connection = connection
        self.driver = driver
        self._lock = asyncio.Lock()
        self.is_open = True
        self.effects = Effects()
        self._lent: LentConnection | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Tasks of one transaction take turns: a connection runs one statement at a time."""
        async with self._lock:
            self.require_open()
            yield

    def require_open(self) -> None:
        """Refuse work after the end.

        Raises:
            StoreClosedError: the transaction has ended; its connection may be somebody else's by now.
        """
        if not self.is_open:
            raise StoreClosedError("the transaction has ended: work with it inside its `async with` block")

    @property
    def lent(self) -> LentConnection:
        """The connection, for the application: it cannot end the transaction.

        Raises:
            StoreClosedError: the transaction has ended.
        """
        self.require_open()
        if self._lent is None:
            self._lent = LentConnection(self.connection)
        return self._lent

    async def end(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Refuse more work, let a task that is at work in it finish, then commit or roll back."""
        self.is_open = False
        async with self._lock:
            await finish()


open_units: ContextVar[tuple[Unit, ...]] = ContextVar("esource_units", default=())
"""The transactions that the running task is inside of, outermost first, of whatever databases."""


class Transactions:
    """The transactions of one database. The task that opens one is inside of it, with the tasks that it starts."""

    def __init__(self, connections: Connections, backend: Backend, name: str) -> None:
        self._connections = connections
        self._backend = backend
        self._name = name
        self._open: list[Unit] = []

    def current(self) -> Unit | None:
        """The open transaction of this database that the running task is inside of."""
        for unit in reversed(open_units.get()):
            if unit.owner is self and unit.is_open:
                return unit
        return None

    @asynccontextmanager
    async def transaction(self, *, changes_schema: bool = False) -> AsyncIterator[Unit]:
        """A write transaction; see `Database.transaction`."""
        outer = self.current()
        if outer is not None:
            async with self._savepoint(outer):
                yield outer
            return
        if self._connections.is_lent:
            raise InvalidOptionError("a lent aiosqlite connection has transactions of its own: use those")
        with self._backend.errors(self._name):
            try:
                lane, transaction = await self._begin(changes_schema=changes_schema)
            except Exception as error:
                if self._backend.classify(error) != "lost":
                    raise
                # A connection can die unnoticed while it lies in the pool; a new one cannot.
                lane, transaction = await self._begin(changes_schema=changes_schema)
        assert lane.connection is not None
        unit = Unit(self, lane.connection, lane.driver)

        async def commit() -> None:
            await self._commit(lane, transaction)
            unit.effects.are_stored = True

        before = open_units.get()
        open_units.set((*before, unit))
        self._open.append(unit)
        try:
            try:
                yield unit
            except BaseException as error:
                with self._backend.errors(self._name):
                    await uninterrupted(unit.end(partial(self._roll_back, lane, transaction, error)))
                raise
            with self._backend.errors(self._name):
                await uninterrupted(unit.end(commit))
        finally:
            open_units.set(before)
            self._open.remove(unit)
            unit.effects.settle()
            await uninterrupted(self._release(lane, changes_schema=changes_schema))
        await unit.effects.follow()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """One moment of the whole database; see `Database.snapshot`."""
        if self.current() is not None or self._connections.is_private:
            async with self.transaction():
                yield
            return
        if not self._connections.is_usable:
            await self._connections.ensure_open()
        with self._backend.errors(self._name):
            lane = await self._connections.connect()
        before = open_units.get()
        try:
            assert lane.connection is not None
            with self._backend.errors(self._name):
                transaction = await lane.connection.begin()
                await self._backend.begin_snapshot(lane.connection)
            unit = Unit(self, lane.connection, lane.driver)
            open_units.set((*before, unit))
            try:
                yield
            finally:
                open_units.set(before)
                await uninterrupted(unit.end(transaction.rollback))
        finally:
            await uninterrupted(self._connections.disconnect(lane))

    async def join(self, connection: Connection) -> Unit:
        """The caller's own transaction as a `Unit`; beginning, committing and closing stay the caller's."""
        if isinstance(connection, AsyncSession):
            connection = await connection.connection()
        if not isinstance(connection, AsyncConnection):
            raise InvalidOptionError(
                f"connection must be an AsyncConnection or AsyncSession, not {type(connection).__name__}"
            )
        for unit in self._open:
            if unit.connection.sync_connection is connection.sync_connection:
                return unit
        with self._backend.errors(self._name):
            await self._backend.begin(connection)
            raw = await connection.get_raw_connection()
        return Unit(self, connection, raw.driver_connection)

    async def _begin(self, *, changes_schema: bool) -> tuple[Lane, AsyncTransaction]:
        """A connection inside a new write transaction."""
        if not self._connections.is_usable:
            await self._connections.ensure_open()
        if self._backend.concurrent_writers:
            lane = await self._connections.connect()
        else:
            lane = await self._connections.writers.take()
        assert lane.connection is not None
        try:
            if changes_schema:
                await self._backend.before_schema_change(lane.driver)
            transaction = await lane.connection.begin()
            try:
                await self._backend.begin(lane.connection)
            except BaseException:
                await uninterrupted(transaction.rollback())
                raise
        except BaseException:
            await uninterrupted(self._release(lane, changes_schema=changes_schema))
            raise
        return lane, transaction

    async def _commit(self, lane: Lane, transaction: AsyncTransaction) -> None:
        try:
            self._backend.before_commit(lane.driver)
            if not transaction.is_active:
                raise InvalidOptionError(_ENDED_INSIDE)  # noqa: TRY301 - rolled back like any other error
            await transaction.commit()
        except BaseException as error:
            # SQLite stays inside a transaction that it could not commit, and this connection is kept.
            await self._backend.abandon(lane.driver)
            await self._roll_back(lane, transaction, error)  # SQLAlchemy's own record of it
            if self._backend.classify(error) == "lost":
                raise unavailable(self._name, _IN_DOUBT, _FIND_OUT) from driver_error(error)
            raise

    async def _roll_back(self, lane: Lane, transaction: AsyncTransaction, error: BaseException) -> None:
        await settle(self._backend, lane.driver, error)
        try:
            if transaction.is_active:
                await transaction.rollback()
            elif lane.connection is not None and lane.connection.in_transaction():
                await lane.connection.rollback()  # one that was begun after the application had ended ours
        except Exception as failure:
            if self._backend.classify(failure) != "lost":
                raise
            # Without its connection the transaction is rolled back by the server: what the caller has to know
            # is why it ended.

    async def _release(self, lane: Lane, *, changes_schema: bool) -> None:
        if changes_schema:
            await self._backend.after_schema_change(lane.driver)
        if self._backend.concurrent_writers:
            await self._connections.disconnect(lane)
            return
        writers = self._connections.writers
        invalidated = lane.connection is not None and lane.connection.invalidated
        if invalidated or not writers.give(lane):
            await writers.discard(lane)

    @asynccontextmanager
    async def _savepoint(self, outer: Unit) -> AsyncIterator[None]:
        async with outer.turn():
            savepoint = await outer.connection.begin_nested()
        noted = outer.effects.count

        async def end(finish: Callable[[], Awaitable[None]]) -> None:
            async with outer.turn():
                await finish()

        try:
            yield
        except BaseException:
            outer.effects.take_back(noted)
            with self._backend.errors(self._name):
                await uninterrupted(end(savepoint.rollback))
            raise
        with self._backend.errors(self._name):
            await uninterrupted(end(savepoint.commit))
