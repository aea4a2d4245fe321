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
from esource.database.lanes import Lane, put_back, settle
from esource.database.lent import LentConnection
from esource.dialect.backend import Backend
from esource.dialect.errors import driver_error, unavailable
from esource.errors import DatabaseError, EventSourceError, InvalidOptionError, StoreClosedError

Connection = AsyncConnection | AsyncSession
"""A transaction of the application's own that an append may join."""

_ABORTED = "an error inside the transaction was caught, but the database had given the transaction up: nothing of it is stored"
_GONE = "an error has rolled back the transaction as a whole, and nothing of it is stored"
_SAVEPOINT_ABORTED = "an error inside the savepoint was caught, but the database had given it up: nothing of the savepoint is kept"
_AVOID = "Let such errors leave the block, or put what may fail into a savepoint of its own, a transaction() inside it"
_LOST = "the connection was lost inside the transaction"
_REPEAT = "Nothing of it is stored: repeat it"
_IN_DOUBT = "the connection was lost during the commit, and it is not known whether the transaction is stored"
_FIND_OUT = "Look for what it wrote, or repeat it with the same event ids: events are not stored twice"
_ENDED_INSIDE = (
    "the application has ended the transaction inside its block, by a session or on the synchronous connection: what "
    "was written before that may be stored, and what came after it is not. Leave the end to the block"
)


class Unit:
    """An open transaction: everything that runs on it commits or vanishes together."""

    def __init__(self, owner: Transactions, connection: AsyncConnection, lane: Lane) -> None:
        self.owner = owner
        """The transactions of the database that it belongs to."""
        self.connection = connection
        self.driver = lane.driver
        self.first_error: Exception | None = None
        """What failed in it first, as far as it went through here: the application has statements of its own."""
        self.is_spoiled = False
        """Whether it must not be committed, because a part of it could not be taken back."""
        self.is_open = True
        self.effects = Effects()
        self._lent: LentConnection | None = None
        self._lane = lane
        self._lock = asyncio.Lock()
        self._savepoints = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Tasks of one transaction take turns: a connection runs one statement at a time."""
        async with self._lock:
            self.require_open()
            self.owner.require_begun(self)
            try:
                yield
            except Exception as error:
                self.first_error = self.first_error or error
                raise

    def require_open(self) -> None:
        """Refuse work after the end.

        Raises:
            StoreClosedError: the transaction has ended; another task may use its connection by now.
        """
        if self._lane.is_cut:
            raise StoreClosedError(
                "the store was closed while the transaction was open: nothing of it is stored"
            )
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

    def savepoint(self) -> str:
        """A name that no other savepoint of this transaction has."""
        self._savepoints += 1
        return f"esource_{self._savepoints}"


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
        unit = Unit(self, lane.connection, lane)

        async def commit() -> None:
            await self._commit(unit, lane, transaction)
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
        await self._connections.ensure_open()
        before = open_units.get()
        with self._backend.errors(self._name):
            lane = await self._connections.passing.take()
            transaction = await self._begin_on(lane, self._backend.begin_snapshot)
        assert lane.connection is not None
        unit = Unit(self, lane.connection, lane)
        open_units.set((*before, unit))
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            open_units.set(before)
            try:
                with self._backend.errors(self._name):
                    await uninterrupted(unit.end(partial(self._roll_back, lane, transaction, error)))
            finally:
                await uninterrupted(put_back(lane))

    def require_begun(self, unit: Unit) -> None:
        """Refuse work in a transaction that the database has rolled back by itself: it would be stored at once.

        Raises:
            DatabaseError: it has.
        """
        driver = unit.driver
        if self._backend.is_alive(driver) and not self._backend.is_in_transaction(driver):
            raise DatabaseError(f"{self._name}: {_GONE}. {_AVOID}") from unit.first_error

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
            driver = await self._backend.join(connection, self._name)
        return Unit(self, connection, Lane(connection, driver))

    async def _begin(self, *, changes_schema: bool) -> tuple[Lane, AsyncTransaction]:
        """A connection inside a new write transaction."""
        await self._connections.ensure_open()
        lane = await self._connections.transactions.take()
        return lane, await self._begin_on(lane, self._backend.begin, changes_schema=changes_schema)

    async def _release(self, lane: Lane, *, changes_schema: bool) -> None:
        try:
            if changes_schema and not lane.is_cut and self._backend.is_alive(lane.driver):
                await self._backend.after_schema_change(lane.driver)
        finally:
            await put_back(lane)

    async def _begin_on(
        self,
        lane: Lane,
        begin: Callable[[AsyncConnection, Any], Awaitable[AsyncTransaction]],
        *,
        changes_schema: bool = False,
    ) -> AsyncTransaction:
        assert lane.connection is not None
        try:
            if changes_schema:
                await self._backend.before_schema_change(lane.driver)
            return await begin(lane.connection, lane.driver)
        except BaseException as error:
            await uninterrupted(self._forsake(lane, error, changes_schema=changes_schema))
            raise

    async def _forsake(self, lane: Lane, error: BaseException, *, changes_schema: bool) -> None:
        """Give back a connection on which no transaction could be begun."""
        try:
            await settle(self._backend, lane.driver, error)
            if self._backend.is_alive(lane.driver):
                await self._backend.abandon(lane.driver)
        finally:
            await self._release(lane, changes_schema=changes_schema)

    async def _commit(self, unit: Unit, lane: Lane, transaction: AsyncTransaction) -> None:
        if lane.is_cut:
            unit.require_open()  # says why
        if not self._backend.is_alive(lane.driver):
            await self._roll_back(lane, transaction, None)
            raise unavailable(self._name, _LOST, _REPEAT) from unit.first_error
        if not transaction.is_active:
            await self._roll_back(lane, transaction, None)
            raise InvalidOptionError(_ENDED_INSIDE)
        if unit.is_spoiled:
            await self._roll_back(lane, transaction, unit.first_error)
            raise DatabaseError(f"{self._name}: {_ABORTED}. {_AVOID}") from unit.first_error
        try:
            is_stored = await self._backend.commit(transaction, lane.driver)
        except BaseException as error:
            await self._roll_back(lane, transaction, error)
            if self._backend.classify(error) == "lost":
                raise unavailable(self._name, _IN_DOUBT, _FIND_OUT) from driver_error(error)
            raise
        if not is_stored:
            raise DatabaseError(f"{self._name}: {_ABORTED}. {_AVOID}") from unit.first_error

    async def _roll_back(
        self, lane: Lane, transaction: AsyncTransaction, error: BaseException | None
    ) -> None:
        if lane.is_cut:
            return
        if error is not None:
            await settle(self._backend, lane.driver, error)
        try:
            await self._backend.roll_back(transaction, lane.driver)
            # SQLAlchemy's own record: of ours after a commit that failed, or of one that the application has begun.
            assert lane.connection is not None
            await lane.connection.rollback()
        except Exception as failure:
            if self._backend.classify(failure) != "lost" and self._backend.is_alive(lane.driver):
                raise
            # Without its connection the transaction is rolled back by the server: what the caller has to know
            # is why it ended.

    @asynccontextmanager
    async def _savepoint(self, outer: Unit) -> AsyncIterator[None]:
        name = outer.savepoint()
        with self._backend.errors(self._name):
            await self._run_in(outer, f"SAVEPOINT {name}")
        noted = outer.effects.count
        is_kept = False

        async def keep() -> None:
            nonlocal is_kept
            await self._keep(outer, name)
            is_kept = True

        try:
            yield
            with self._backend.errors(self._name):
                await uninterrupted(keep())
        except BaseException:
            if not is_kept:
                outer.effects.take_back(noted)
                await uninterrupted(self._undo(outer, name))
            raise

    async def _undo(self, outer: Unit, name: str) -> None:
        """Let nothing of what was written since a savepoint be stored; if that fails, nothing of the transaction."""
        try:
            await self._run_in(outer, f"ROLLBACK TO SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}")
        except Exception as error:
            outer.is_spoiled = True
            outer.first_error = outer.first_error or error

    async def _keep(self, outer: Unit, name: str) -> None:
        """Let what was written since a savepoint belong to the transaction around it."""
        try:
            await self._run_in(outer, f"RELEASE SAVEPOINT {name}")
        except EventSourceError:
            raise
        except Exception as error:
            if self._backend.classify(error) == "lost":
                raise
            raise DatabaseError(f"{self._name}: {_SAVEPOINT_ABORTED}. {_AVOID}") from error

    async def _run_in(self, unit: Unit, *statements: str) -> None:
        async with unit.turn():
            for statement in statements:
                await self._backend.run(unit.driver, statement)
