"""A database as the store and the repositories see it: statements, batches, and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncTransaction,
    async_sessionmaker,
)

from esource.checks import STANDARD_LIMITS
from esource.database.cancellation import uninterrupted
from esource.database.connections import Connections
from esource.database.lanes import Lane, LanePool
from esource.database.transactions import Unit, open_units
from esource.database.wakeup import WakeUp
from esource.dialect.backend import STANDARD, Backend, Switches
from esource.dialect.errors import driver_error, unavailable
from esource.dialect.plan import Plan, Written
from esource.dialect.urls import backend_for_engine, backend_for_url, moving_of, parse_url
from esource.errors import InvalidOptionError
from esource.tables.statement import Statement

T = TypeVar("T")

RETRY_SECONDS = 15.0
"""How long what can be repeated safely keeps trying to reach a lost server, in seconds."""

_IN_DOUBT = "the connection was lost during the commit, and it is not known whether the transaction is stored"
_FIND_OUT = "Look for what it wrote, or repeat it with the same event ids: events are not stored twice"


class Database:
    """An engine (or one lent connection), its backend, and what runs on it. Opened on first use."""

    def __init__(self, backend: Backend, url: URL, **connections: Any) -> None:
        self.backend = backend
        self.url = url
        self.name = backend.describe(url)
        self.retry_seconds = RETRY_SECONDS
        self.limits = STANDARD_LIMITS
        """What may be written, by whatever shares this database: those of its store."""
        self.connections = Connections(backend, url, **connections)
        self._transactions: list[Unit] = []
        self.wake_up = WakeUp(self._watch)
        """Calls those who wait for appends to this database."""

    @classmethod
    def from_url(cls, url: str | URL, switches: Switches = STANDARD, **options: Any) -> Database:
        """A database that owns its engine and closes it. No I/O."""
        parsed = parse_url(url)
        backend = backend_for_url(parsed, switches)
        return cls(backend, parsed, options={**backend.default_options, **options})

    @classmethod
    def from_engine(cls, engine: AsyncEngine, switches: Switches = STANDARD) -> Database:
        """A database on the application's engine, which stays the application's. No I/O."""
        return cls(backend_for_engine(engine, switches), engine.url, engine=engine)

    @classmethod
    def of(cls, source: Any, switches: Switches = STANDARD) -> Database:
        """The database behind whatever people have: a store, an engine, a session factory, a URL, or an
        open `aiosqlite.Connection`.

        Raises:
            InvalidOptionError: it is none of these.
        """
        if isinstance(source, Database):
            return source
        shared = getattr(source, "__esource_database__", None)
        if isinstance(shared, Database):
            return shared
        if isinstance(source, AsyncEngine):
            return cls.from_engine(source, switches)
        if isinstance(source, async_sessionmaker):
            engine = source.kw.get("bind")
            if not isinstance(engine, AsyncEngine):
                raise InvalidOptionError("the session factory is not bound to an AsyncEngine")
            return cls.from_engine(engine, switches)
        if isinstance(source, (str, URL)):
            return cls.from_url(source, switches)
        if type(source).__module__.startswith("aiosqlite"):
            url = make_url("sqlite+aiosqlite://")
            return cls(backend_for_url(url), url, driver=source)
        raise InvalidOptionError(
            "expected a store, an AsyncEngine, an async_sessionmaker, a database URL or an open "
            f"aiosqlite.Connection, not {type(source).__name__}"
        )

    async def open(self) -> None:
        """Connect; does nothing when open."""
        await self.connections.open()

    async def close(self) -> None:
        """Give every connection back; close the engine if it is our own. To its end, even if it is cancelled:
        of a connection that is half closed nobody would know."""
        await uninterrupted(self._close())

    async def _close(self) -> None:
        await self.wake_up.close()
        await self.connections.close()

    async def _watch(self, wake: Callable[[], None], ready: Callable[[], None]) -> None:
        if self.connections.is_private or self.connections.is_lent or not self.backend.listens:
            # Nobody else can append, or there is nothing to watch with.
            await asyncio.Event().wait()
        lane = await self.connections.connect()
        try:
            await self.backend.watch(lane.driver, wake, ready)
        finally:
            await uninterrupted(self.connections.disconnect(lane))

    # -- statements --------------------------------------------------------------------------------

    def current_unit(self) -> Unit | None:
        """The open transaction of this database that the running task is inside of."""
        for unit in reversed(open_units.get()):
            if unit.database is self and unit.is_open:
                return unit
        return None

    async def rows(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[Any]:
        """Run a reading statement; the driver's own rows."""
        compiled = statement.on(self.backend.sqlalchemy_dialect)
        arguments = compiled.arguments(values)
        unit = unit or self.current_unit()
        with self.backend.errors(self.name):
            if unit is not None:
                async with unit.turn():
                    return await self.backend.fetch(unit.driver, compiled.text, arguments)
            try:
                return await self._read(compiled.text, arguments)
            except Exception as error:
                return await self.repeat(lambda: self._read(compiled.text, arguments), error)

    async def _read(self, text: str, arguments: Sequence[Any]) -> list[Any]:
        return await self._on_reader(lambda driver: self.backend.fetch(driver, text, arguments))

    async def _on_reader(self, work: Callable[[Any], Awaitable[T]]) -> T:
        if not self.connections.is_usable:
            await self.connections.ensure_open()
        return await self._on_lane_of(self.connections.readers, work)

    async def _on_lane_of(self, lanes: LanePool, work: Callable[[Any], Awaitable[T]]) -> T:
        lane = lanes.take_now() or await lanes.take()
        try:
            return await work(lane.driver)
        except BaseException as error:
            await uninterrupted(self._settle(lane.driver, error))
            raise
        finally:
            if not lanes.give(lane):
                await uninterrupted(lanes.discard(lane))

    async def _settle(self, driver: Any, error: BaseException) -> None:
        """Keep a connection on which something failed from being held if nothing comes through it any more."""
        if isinstance(error, asyncio.CancelledError):
            await self.backend.settle(driver)
        elif self.backend.classify(error) == "lost":
            self.backend.break_off(driver)

    async def inspect(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run what only reads, with the driver's connection: the open transaction's, or one for readers."""
        unit = self.current_unit()
        with self.backend.errors(self.name):
            if unit is None:
                return await self._on_reader(work)
            async with unit.turn():
                return await work(unit.driver)

    async def moved_to(self) -> str | None:
        """Where a cut-over has sent the writers of this store; None if it takes writes."""
        return await self.inspect(moving_of(self.backend).moved_to)

    async def read(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement; rows as Python values of the columns' types."""
        return statement.on(self.backend.sqlalchemy_dialect).decode(await self.rows(statement, values, unit))

    async def write(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a writing statement, in the open transaction or in one of its own; the rows it returns."""
        compiled = statement.on(self.backend.sqlalchemy_dialect)
        arguments = compiled.arguments(values)
        unit = unit or self.current_unit()
        with self.backend.errors(self.name):
            if unit is not None:
                async with unit.turn():
                    rows = await self.backend.write(unit.driver, compiled.text, arguments, commit=False)
            else:
                rows = await self._on_writer(
                    lambda driver: self.backend.write(driver, compiled.text, arguments, commit=True)
                )
        return compiled.decode(rows)

    async def append(self, plan: Plan) -> Written:
        """Write a batch in a transaction of its own. Raises the driver's own errors."""
        written = await self._on_writer(lambda driver: self.backend.append(driver, plan, commit=True))
        self.wake_up.set()
        return written

    async def _on_writer(self, work: Callable[[Any], Awaitable[T]]) -> T:
        if not self.connections.is_usable:
            await self.connections.ensure_open()
        return await self._on_lane_of(self.connections.writers, work)

    async def run_script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters, in order, in one transaction."""
        async with self.transaction() as unit:
            with self.backend.errors(self.name):
                for statement in statements:
                    await self.backend.write(unit.driver, statement, (), commit=False)

    # -- when the server is away ---------------------------------------------------------------------

    def can_repeat(self, error: BaseException) -> bool:
        """Whether the connection was lost, or the database asked to try again."""
        return self.backend.classify(error) in ("lost", "again")

    async def persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run what can be repeated safely; again, with growing pauses, while the server is away.

        Raises the driver's last error when `retry_seconds` are over.
        """
        try:
            return await operation()
        except Exception as error:
            return await self.repeat(operation, error)

    async def repeat(self, operation: Callable[[], Awaitable[T]], error: Exception) -> T:
        """Go on with what has failed with this error, if it makes sense to."""
        if not self.can_repeat(error):
            raise error
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

        async def attempt() -> T:
            return await operation()

        return await AsyncRetrying(
            stop=stop_after_delay(self.retry_seconds),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            retry=retry_if_exception(self.can_repeat),
            reraise=True,
        )(attempt)

    # -- transactions ------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Unit]:
        """A write transaction; whatever the running task does with this database joins it.

        Inside another one it is a savepoint. The end is shielded: a cancelled task still commits or
        rolls back as a whole.
        """
        outer = self.current_unit()
        if outer is not None:
            async with self._savepoint(outer):
                yield outer
            return
        if self.connections.is_lent:
            raise InvalidOptionError("a lent aiosqlite connection has transactions of its own: use those")
        with self.backend.errors(self.name):
            try:
                lane, transaction = await self._begin()
            except Exception as error:
                if self.backend.classify(error) != "lost":
                    raise
                # A connection can die unnoticed while it lies in the pool; a new one cannot.
                lane, transaction = await self._begin()
        assert lane.connection is not None
        unit = Unit(self, lane.connection, lane.driver)
        before = open_units.get()
        open_units.set((*before, unit))
        self._transactions.append(unit)
        try:
            try:
                yield unit
            except BaseException as error:
                with self.backend.errors(self.name):
                    await uninterrupted(unit.end(partial(self._roll_back, lane, transaction, error)))
                raise
            with self.backend.errors(self.name):
                await uninterrupted(unit.end(partial(self._commit, lane, transaction)))
        finally:
            open_units.set(before)
            self._transactions.remove(unit)
            await uninterrupted(self._release(lane))
        self.wake_up.set()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """One moment of the whole database, for everything that the running task reads of it inside.

        Others go on writing, except to a database in memory: there they wait.
        """
        if self.current_unit() is not None or self.connections.is_private:
            async with self.transaction():
                yield
            return
        if not self.connections.is_usable:
            await self.connections.ensure_open()
        with self.backend.errors(self.name):
            lane = await self.connections.connect()
        before = open_units.get()
        try:
            assert lane.connection is not None
            with self.backend.errors(self.name):
                transaction = await lane.connection.begin()
                await self.backend.begin_snapshot(lane.connection)
            unit = Unit(self, lane.connection, lane.driver)
            open_units.set((*before, unit))
            try:
                yield
            finally:
                open_units.set(before)
                await uninterrupted(unit.end(transaction.rollback))
        finally:
            await uninterrupted(self.connections.disconnect(lane))

    async def _begin(self) -> tuple[Lane, AsyncTransaction]:
        """A connection inside a new write transaction."""
        if not self.connections.is_usable:
            await self.connections.ensure_open()
        if self.backend.concurrent_writers:
            lane = await self.connections.connect()
        else:
            lane = await self.connections.writers.take()
        assert lane.connection is not None
        try:
            transaction = await lane.connection.begin()
            try:
                await self.backend.begin(lane.connection)
            except BaseException:
                await uninterrupted(transaction.rollback())
                raise
        except BaseException:
            await uninterrupted(self._release(lane))
            raise
        return lane, transaction

    async def _commit(self, lane: Lane, transaction: AsyncTransaction) -> None:
        try:
            self.backend.before_commit(lane.driver)
            await transaction.commit()
        except BaseException as error:
            # SQLite stays inside a transaction that it could not commit, and this connection is kept.
            await self.backend.abandon(lane.driver)
            await self._roll_back(lane, transaction, error)  # SQLAlchemy's own record of it
            if self.backend.classify(error) == "lost":
                raise unavailable(self.name, _IN_DOUBT, _FIND_OUT) from driver_error(error)
            raise

    async def _roll_back(self, lane: Lane, transaction: AsyncTransaction, error: BaseException) -> None:
        await self._settle(lane.driver, error)
        try:
            await transaction.rollback()
        except Exception as failure:
            if self.backend.classify(failure) != "lost":
                raise
            # Without its connection the transaction is rolled back by the server: what the caller has to know
            # is why it ended.

    async def _release(self, lane: Lane) -> None:
        if self.backend.concurrent_writers:
            await self.connections.disconnect(lane)
            return
        writers = self.connections.writers
        invalidated = lane.connection is not None and lane.connection.invalidated
        if invalidated or not writers.give(lane):
            await writers.discard(lane)

    @asynccontextmanager
    async def _savepoint(self, outer: Unit) -> AsyncIterator[None]:
        async with outer.turn():
            savepoint = await outer.connection.begin_nested()

        async def end(finish: Callable[[], Awaitable[None]]) -> None:
            async with outer.turn():
                await finish()

        try:
            yield
        except BaseException:
            with self.backend.errors(self.name):
                await uninterrupted(end(savepoint.rollback))
            raise
        with self.backend.errors(self.name):
            await uninterrupted(end(savepoint.commit))

    async def join(self, connection: AsyncConnection | AsyncSession) -> Unit:
        """The caller's own transaction as a `Unit`; beginning, committing and closing stay the caller's."""
        if isinstance(connection, AsyncSession):
            connection = await connection.connection()
        if not isinstance(connection, AsyncConnection):
            raise InvalidOptionError(
                f"connection must be an AsyncConnection or AsyncSession, not {type(connection).__name__}"
            )
        for unit in self._transactions:
            if unit.connection is connection:
                return unit
        with self.backend.errors(self.name):
            await self.backend.begin(connection)
            raw = await connection.get_raw_connection()
        return Unit(self, connection, raw.driver_connection)
