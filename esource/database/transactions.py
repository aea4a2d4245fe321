"""Transactions: how one begins and ends, and what the tasks inside it see."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, AsyncTransaction
from sqlalchemy.orm import Session

from esource.database.calls import outside
from esource.database.cancellation import uninterrupted
from esource.database.connections import Connections
from esource.database.lanes import Lane, put_back, settle
from esource.database.neighbours import Neighbours
from esource.database.unit_of_work import AVOID, Unit, open_units
from esource.dialect.backend import Backend
from esource.dialect.errors import driver_error, unavailable
from esource.errors import (
    DatabaseError,
    EventSourceError,
    InvalidOptionError,
)

Connection = AsyncConnection | AsyncSession
"""A transaction of the application's own that an append may join."""

_ABORTED = "an error inside the transaction was caught, but the database had given the transaction up: nothing of it is stored"
_SAVEPOINT_ABORTED = "an error inside the savepoint was caught, but the database had given it up: nothing of the savepoint is kept"
_LOST = "the connection was lost inside the transaction"
_REPEAT = "Nothing of it is stored: repeat it"
_IN_DOUBT = "the connection was lost during the commit, and it is not known whether the transaction is stored"
_FIND_OUT = "Look for what it wrote, or repeat it with the same event ids: events are not stored twice"
_ENDED_INSIDE = (
    "the application has ended the transaction inside its block, by a session or on the synchronous connection: what "
    "was written before that may be stored, and what came after it is not. Leave the end to the block"
)


async def _nothing(driver: Any) -> None:
    """Most transactions need nothing from the connection but their beginning and their end."""


class _Kind(NamedTuple):
    """What a transaction needs of its connection."""

    begin: Callable[[AsyncConnection, Any], Awaitable[AsyncTransaction]]
    before: Callable[[Any], Awaitable[None]] = _nothing
    after: Callable[[Any], Awaitable[None]] = _nothing
    writes: bool = True


class Transactions:
    """The transactions of one database. The task that opens one is inside of it, with the tasks that it starts."""

    def __init__(self, connections: Connections, backend: Backend, name: str) -> None:
        self._connections = connections
        self._backend = backend
        self._name = name
        self._open: list[Unit] = []
        self.neighbours = Neighbours(connections, backend, name)

    def rename(self, name: str) -> None:
        """Begin the next ones in another database, which the connections lead to by now."""
        self._name = name
        self.neighbours = Neighbours(self._connections, self._backend, name)

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
            outer.require_writable()
            async with self._savepoint(outer):
                yield outer
            return
        kind = _Kind(self._backend.begin)
        if changes_schema:
            kind = _Kind(
                self._backend.begin, self._backend.before_schema_change, self._backend.after_schema_change
            )
        lane, transaction = await self._begin(kind)
        assert lane.connection is not None
        unit = Unit(self, self.neighbours, lane.connection, lane)

        async def commit() -> None:
            await self._commit(unit, lane, transaction)
            unit.effects.are_stored = True

        async with self._entered(unit, lane, kind):
            try:
                yield unit
            except BaseException as error:
                with self._backend.errors(self._name):
                    await uninterrupted(unit.end(partial(self._roll_back, lane, transaction, error)))
                raise
            with self._backend.errors(self._name):
                await uninterrupted(unit.end(commit))
        await unit.effects.follow()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Unit]:
        """One moment of the whole database; see `Database.reading`."""
        outer = self.current()
        if outer is not None:
            yield outer
            return
        kind = _Kind(
            self._backend.begin_reading, self._backend.before_reading, self._backend.after_reading, False
        )
        lane, transaction = await self._begin(kind)
        assert lane.connection is not None
        unit = Unit(self, self.neighbours, lane.connection, lane, is_reading=True)
        async with self._entered(unit, lane, kind):
            failure: BaseException | None = None
            try:
                with unit.reading():
                    yield unit
            except BaseException as error:
                failure = error
                raise
            finally:
                with self._backend.errors(self._name):
                    await uninterrupted(unit.end(partial(self._roll_back, lane, transaction, failure)))

    @asynccontextmanager
    async def _entered(self, unit: Unit, lane: Lane, kind: _Kind) -> AsyncIterator[None]:
        """Let the running task be inside of a transaction that has begun, and give its connection back at the end."""
        before = open_units.get()
        open_units.set((*before, unit))
        self._open.append(unit)
        try:
            yield
        finally:
            open_units.set(before)
            self._open.remove(unit)
            unit.effects.settle()
            await uninterrupted(self._release(lane, kind, was_lent=unit.was_lent))

    async def join(self, connection: Connection) -> Unit:
        """The caller's own transaction as a `Unit`; beginning, committing and closing stay the caller's."""
        if isinstance(connection, AsyncSession):
            connection = await connection.connection()
        if not isinstance(connection, AsyncConnection):
            return await self._join_synchronous(connection)
        for unit in self._open:
            if unit.connection.sync_connection is connection.sync_connection:
                return unit
        with self._backend.errors(self._name):
            driver = await self._backend.join(connection, self._name, self._connections.schema)
        return Unit(self, self.neighbours, connection, Lane(connection, driver))

    async def _join_synchronous(self, connection: Any) -> Unit:
        if not (isinstance(connection, (SyncConnection, Session)) or self._backend.is_of_driver(connection)):
            raise InvalidOptionError(
                "connection must be an AsyncConnection or AsyncSession, or with esource.sync a Connection or Session of "
                f"SQLAlchemy or one of {self._backend.synchronous_driver}, not {type(connection).__name__}"
            )
        call = outside.get()
        if call is None:
            raise InvalidOptionError(
                f"connection is a synchronous {type(connection).__name__}, which would hold up the event loop: give it to "
                "a store of esource.sync, or give an AsyncConnection or AsyncSession"
            )
        if isinstance(connection, Session):
            connection = await call(connection.connection, ())
        if isinstance(connection, SyncConnection) and connection.dialect.name != self._backend.name:
            raise InvalidOptionError(f"{self._name}: the connection is one to {connection.dialect.name}")
        with self._backend.errors(self._name):
            driver = await self._backend.join_synchronous(
                connection, call, self._name, self._connections.schema
            )
        return Unit(self, self.neighbours, cast("AsyncConnection", connection), Lane(None, driver))

    async def _begin(self, kind: _Kind) -> tuple[Lane, AsyncTransaction]:
        """A connection inside a new transaction."""
        if self._connections.is_lent:
            raise InvalidOptionError("a lent aiosqlite connection has transactions of its own: use those")
        with self._backend.errors(self._name):
            try:
                return await self._begin_once(kind)
            except Exception as error:
                if self._backend.classify(error) != "lost":
                    raise
                # A connection can die unnoticed while it lies in the pool; a new one cannot.
                return await self._begin_once(kind)

    async def _begin_once(self, kind: _Kind) -> tuple[Lane, AsyncTransaction]:
        connections = self._connections
        await connections.ensure_open()
        lane = await (connections.transactions if kind.writes else connections.passing).take()
        assert lane.connection is not None
        try:
            await kind.before(lane.driver)
            return lane, await kind.begin(lane.connection, lane.driver)
        except BaseException as error:
            await uninterrupted(self._forsake(lane, error, kind))
            raise

    async def _release(self, lane: Lane, kind: _Kind, *, was_lent: bool = False) -> None:
        try:
            if not lane.is_cut and self._backend.is_alive(lane.driver):
                await kind.after(lane.driver)
                if was_lent:
                    await self._backend.take_back(lane.driver, self._connections.schema)
        finally:
            await put_back(lane)

    async def _forsake(self, lane: Lane, error: BaseException, kind: _Kind) -> None:
        """Give back a connection on which no transaction could be begun."""
        try:
            await settle(self._backend, lane.driver, error)
            if self._backend.is_alive(lane.driver):
                await self._backend.abandon(lane.driver)
        finally:
            await self._release(lane, kind)

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
            raise DatabaseError(f"{self._name}: {_ABORTED}. {AVOID}") from unit.first_error
        try:
            is_stored = await self._backend.commit(transaction, lane.driver)
        except BaseException as error:
            await self._roll_back(lane, transaction, error)
            if self._backend.classify(error) == "lost":
                raise unavailable(self._name, _IN_DOUBT, _FIND_OUT) from driver_error(error)
            raise
        if not is_stored:
            raise DatabaseError(f"{self._name}: {_ABORTED}. {AVOID}") from unit.first_error

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
            raise DatabaseError(f"{self._name}: {_SAVEPOINT_ABORTED}. {AVOID}") from error

    async def _run_in(self, unit: Unit, *statements: str) -> None:
        async with unit.turn():
            for statement in statements:
                await self._backend.run(unit.driver, statement)
