"""Connections: who opens and closes them, which one a statement runs on, and what a transaction is.

A `Database` stands between the store (and the repositories beside it) and an engine. It holds a few
connections checked out of the engine's pool, because checking one out for every statement costs as
much as the statement. On SQLite one of them writes, one unit of work at a time, and the others read;
an in-memory database has only one for everything; PostgreSQL has no such distinction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool, StaticPool

from esource.dialect import Backend, Plan, Statement, Written, backend_for_engine, backend_for_url
from esource.errors import InvalidOptionError, StoreClosedError

T = TypeVar("T")

HELD_CONNECTIONS = 8
"""How many connections a store keeps checked out at most, besides SQLite's writer."""

RETRY_SECONDS = 15.0
"""How long a statement that can be repeated safely keeps trying to reach a lost server, in seconds."""


class Lane:
    """One connection: SQLAlchemy's, and the driver's own beneath it."""

    __slots__ = ("connection", "driver")

    def __init__(self, connection: AsyncConnection | None, driver: Any) -> None:
        self.connection = connection
        self.driver = driver


class Unit:
    """An open transaction: everything that runs on it commits or vanishes together."""

    def __init__(self, database: Database, connection: AsyncConnection, driver: Any) -> None:
        self.database = database
        self.connection = connection
        self.driver = driver
        self.lock = asyncio.Lock()
        """Tasks of one transaction take turns: a connection runs one statement at a time."""
        self.is_open = True


_units: ContextVar[tuple[Unit, ...]] = ContextVar("esource_units", default=())


class Database:
    """An engine (or one lent connection), its backend, and the connections held from it."""

    def __init__(
        self,
        backend: Backend,
        *,
        url: URL,
        engine: AsyncEngine | None = None,
        options: Mapping[str, Any] | None = None,
        driver: Any = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.backend = backend
        self.url = url
        self.name = backend.describe(url)
        self.retry_seconds = retry_seconds
        self._engine = engine
        self._owns_engine = engine is None and driver is None
        self._options = dict(options or {})
        self._lent = driver
        self._single = driver is not None
        self._hold = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Lane] = []
        self._writer: Lane | None = None
        self._slots: asyncio.Semaphore
        self._writing: asyncio.Lock
        self._opening = asyncio.Lock()
        self._ready = False
        self._closed = False

    # -- where it comes from -----------------------------------------------------------------------

    @classmethod
    def from_url(cls, url: str | URL, **options: Any) -> Database:
        """A database that owns its engine and closes it. No I/O."""
        parsed = make_url(url)
        backend = backend_for_url(parsed)
        return cls(backend, url=parsed, options={**backend.default_options, **options})

    @classmethod
    def from_engine(cls, engine: AsyncEngine) -> Database:
        """A database on the application's engine, which stays the application's. No I/O."""
        return cls(backend_for_engine(engine), url=engine.url, engine=engine)

    @classmethod
    def of(cls, source: Any) -> Database:
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
            return cls.from_engine(source)
        if isinstance(source, async_sessionmaker):
            engine = source.kw.get("bind")
            if not isinstance(engine, AsyncEngine):
                raise InvalidOptionError("the session factory is not bound to an AsyncEngine")
            return cls.from_engine(engine)
        if isinstance(source, (str, URL)):
            return cls.from_url(source)
        if type(source).__module__.startswith("aiosqlite"):
            url = make_url("sqlite+aiosqlite://")
            return cls(backend_for_url(url), url=url, driver=source)
        raise InvalidOptionError(
            "expected a store, an AsyncEngine, an async_sessionmaker, a database URL or an open "
            f"aiosqlite.Connection, not {type(source).__name__}"
        )

    # -- life cycle --------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._ready

    def set_option(self, name: str, value: Any) -> None:
        """Set an engine option before the first connection."""
        self._options[name] = value

    @property
    def is_private(self) -> bool:
        """Whether nobody else can reach this database: in memory, on one connection of our own."""
        return self._single and self._lent is None and self._owns_engine

    @property
    def engine(self) -> AsyncEngine:
        """The engine; made on first use when it is our own."""
        if self._engine is None:
            if self._lent is not None:
                raise InvalidOptionError("a lent aiosqlite connection has no engine")
            self._engine = self.backend.create_engine(self.url, **self._options)
        return self._engine

    async def open(self) -> None:
        """Connect. Does nothing when open; whatever fails on the way is closed again.

        Raises:
            DatabaseUnavailableError: the database cannot be opened or reached.
            StoreClosedError: it is open in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise StoreClosedError(
                f"{self.name} was opened in another event loop. Open one store per loop, "
                "and close it before the loop ends."
            )
        self._loop = loop
        async with self._opening:
            if self._ready:
                return
            self._closed = False
            self._writing = asyncio.Lock()
            if self._lent is not None:
                self._idle = [Lane(None, self._lent)]
                self._slots = asyncio.Semaphore(1)
            else:
                await self._open_engine()
            self._ready = True

    async def _open_engine(self) -> None:
        try:
            with self.backend.errors(self.name):
                if self._owns_engine:
                    self.backend.prepare(self.url)
                self._slots = asyncio.Semaphore(self._capacity())
                lane = await self._connect()
        except BaseException:
            self._loop = None
            if self._owns_engine and self._engine is not None:
                await self._engine.dispose()
                self._engine = None
            raise
        self._idle = []
        if not self.backend.concurrent_writers and not self._single:
            self._writer = lane
        elif self._hold:
            self._idle.append(lane)
        else:
            await self._disconnect(lane)
        event.listen(self.engine.sync_engine, "engine_disposed", self._on_disposed)

    def _capacity(self) -> int:
        """How many connections may be held, leaving at least half of a borrowed pool to its owner."""
        pool = self.engine.pool
        if isinstance(pool, StaticPool):
            self._single = True
            return 1
        if self._owns_engine or not isinstance(pool, QueuePool):
            return HELD_CONNECTIONS
        overflow = pool._max_overflow  # noqa: SLF001 - the pool says it nowhere else
        capacity = HELD_CONNECTIONS * 2 if overflow < 0 else pool.size() + overflow
        self._hold = capacity > 1
        return max(1, min(HELD_CONNECTIONS, capacity // 2))

    async def close(self) -> None:
        """Give the held connections back; close the engine if it is our own. Never fails on a dead server."""
        if not self._ready:
            return
        self._ready = False
        self._closed = True
        self._loop = None
        self._opening = asyncio.Lock()
        if self._lent is not None:
            return
        if self._engine is not None:
            event.remove(self._engine.sync_engine, "engine_disposed", self._on_disposed)
        lanes = [*self._idle, *([self._writer] if self._writer else [])]
        self._idle, self._writer = [], None
        for lane in lanes:
            await self._disconnect(lane)
        if self._owns_engine and self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    def _on_disposed(self, engine: Any) -> None:
        """The application disposed of its engine without closing the store: let our connections go."""
        lanes = [*self._idle, *([self._writer] if self._writer else [])]
        self._idle, self._writer, self._loop, self._ready = [], None, None, False
        self._opening = asyncio.Lock()
        event.remove(engine, "engine_disposed", self._on_disposed)
        for lane in lanes:
            if lane.connection is not None and lane.connection.sync_connection is not None:
                lane.connection.sync_connection.invalidate()

    # -- connections -------------------------------------------------------------------------------

    async def _connect(self) -> Lane:
        connection = await self.engine.connect()
        raw = await connection.get_raw_connection()
        return Lane(connection, raw.driver_connection)

    async def _disconnect(self, lane: Lane) -> None:
        if lane.connection is None:
            return
        try:
            if not self.backend.is_alive(lane.driver):
                await lane.connection.invalidate()
            await lane.connection.close()
        except Exception:  # a connection that cannot be closed is gone already
            await lane.connection.invalidate()

    async def _take(self) -> Lane:
        """A connection to read with (on PostgreSQL, also to write)."""
        if not self._ready or self._loop is not asyncio.get_running_loop():
            await self.open_again()
        await self._slots.acquire()
        try:
            if self._single:
                await self._writing.acquire()
                return self._idle[0]
            while self._idle:
                lane = self._idle.pop()
                if self.backend.is_alive(lane.driver):
                    return lane
                await self._disconnect(lane)
            return await self._connect()
        except BaseException:
            self._slots.release()
            raise

    async def _give(self, lane: Lane) -> None:
        try:
            if self._single:
                self._writing.release()
            elif self._hold and self._ready and self.backend.is_alive(lane.driver):
                self._idle.append(lane)
            else:
                await self._disconnect(lane)
        finally:
            self._slots.release()

    async def open_again(self) -> None:
        """Open on first use; refuse what was closed."""
        if self._closed:
            raise StoreClosedError(f"{self.name} was closed. Use it inside `async with store:`.")
        await self.open()

    async def _take_writer(self) -> Lane:
        if self.backend.concurrent_writers or self._single:
            return await self._take()
        if not self._ready or self._loop is not asyncio.get_running_loop():
            await self.open_again()
        await self._writing.acquire()
        try:
            if self._writer is None:
                self._writer = await self._connect()
        except BaseException:
            self._writing.release()
            raise
        return self._writer

    async def _give_writer(self, lane: Lane) -> None:
        if self.backend.concurrent_writers or self._single:
            await self._give(lane)
        else:
            self._writing.release()

    # -- statements --------------------------------------------------------------------------------

    def current_unit(self) -> Unit | None:
        """The open transaction of this database that the running task is inside of."""
        for unit in reversed(_units.get()):
            if unit.database is self and unit.is_open:
                return unit
        return None

    async def rows(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[Any]:
        """Run a reading statement; the driver's own rows."""
        compiled = statement.on(self.backend)
        arguments = compiled.arguments(values)
        unit = unit or self.current_unit()
        with self.backend.errors(self.name):
            if unit is not None:
                async with unit.lock:
                    return await self.backend.fetch(unit.driver, compiled.text, arguments)

            async def read() -> list[Any]:
                lane = await self._take()
                try:
                    return await self.backend.fetch(lane.driver, compiled.text, arguments)
                finally:
                    await self._give(lane)

            return await self.persist(read)

    async def read(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement; rows as Python values of the columns' types."""
        return statement.on(self.backend).decode(await self.rows(statement, values, unit))

    async def write(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a writing statement, in the open transaction or in one of its own; the rows it returns."""
        compiled = statement.on(self.backend)
        arguments = compiled.arguments(values)
        unit = unit or self.current_unit()
        with self.backend.errors(self.name):
            if unit is not None:
                async with unit.lock:
                    rows = await self.backend.write(unit.driver, compiled.text, arguments, commit=False)
            else:
                lane = await self._take_writer()
                try:
                    rows = await self.backend.write(lane.driver, compiled.text, arguments, commit=True)
                finally:
                    await self._give_writer(lane)
        return compiled.decode(rows)

    async def append(self, plan: Plan) -> Written:
        """Write a batch in a transaction of its own. Raises the driver's own errors."""
        lane = await self._take_writer()
        try:
            return await self.backend.append(lane.driver, plan, commit=True)
        finally:
            await self._give_writer(lane)

    async def run_script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters, in order, in one transaction."""
        async with self.transaction() as unit:
            with self.backend.errors(self.name):
                for statement in statements:
                    await self.backend.write(unit.driver, statement, (), commit=False)

    async def persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run what can be repeated safely; again, with growing pauses, while the server is away.

        Raises the driver's last error when `retry_seconds` are over.
        """
        try:
            return await operation()
        except Exception as error:
            if self.backend.classify(error) not in ("lost", "again"):
                raise
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

        return await AsyncRetrying(
            stop=stop_after_delay(self.retry_seconds),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            retry=retry_if_exception(lambda error: self.backend.classify(error) in ("lost", "again")),
            reraise=True,
        )(operation)

    # -- transactions ------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Unit]:
        """A write transaction; whatever the running task does with this database joins it.

        Inside another one it is a savepoint. The end is shielded: a cancelled task still commits or
        rolls back as a whole.
        """
        outer = self.current_unit()
        if outer is not None:
            async with outer.connection.begin_nested():
                yield outer
            return
        if self._lent is not None:
            raise InvalidOptionError("a lent aiosqlite connection has transactions of its own: use those")
        with self.backend.errors(self.name):
            if self.backend.concurrent_writers:
                if not self._ready or self._loop is not asyncio.get_running_loop():
                    await self.open_again()
                lane, release = await self._connect(), self._disconnect
            else:
                lane, release = await self._take_writer(), self._give_writer
        connection = lane.connection
        assert connection is not None
        before = _units.get()
        try:
            with self.backend.errors(self.name):
                transaction = await connection.begin()
                try:
                    await self.backend.begin(connection)
                except BaseException:
                    await uninterrupted(transaction.rollback())
                    raise
            unit = Unit(self, connection, lane.driver)
            _units.set((*before, unit))
            try:
                yield unit
            except BaseException:
                unit.is_open = False
                with self.backend.errors(self.name):
                    await uninterrupted(transaction.rollback())
                raise
            unit.is_open = False
            with self.backend.errors(self.name):
                await uninterrupted(transaction.commit())
        finally:
            _units.set(before)
            await uninterrupted(release(lane))

    async def join(self, connection: AsyncConnection | AsyncSession) -> Unit:
        """The caller's own transaction as a `Unit`; beginning, committing and closing stay the caller's."""
        if isinstance(connection, AsyncSession):
            connection = await connection.connection()
        if not isinstance(connection, AsyncConnection):
            raise InvalidOptionError(
                f"connection must be an AsyncConnection or AsyncSession, not {type(connection).__name__}"
            )
        for unit in _units.get():
            if unit.connection is connection and unit.is_open:
                return unit
        with self.backend.errors(self.name):
            await self.backend.begin(connection)
            raw = await connection.get_raw_connection()
        return Unit(self, connection, raw.driver_connection)


class Access:
    """What a repository reads and writes through: a database, or one open transaction of it."""

    def __init__(self, source: Any) -> None:
        self._unit = source if isinstance(source, Unit) else None
        self.database = source.database if isinstance(source, Unit) else Database.of(source)
        self._owned = self.database if isinstance(source, (str, URL)) else None

    async def read(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        return await self.database.read(statement, values, self._unit)

    async def write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        return await self.database.write(statement, values, self._unit)

    async def close(self) -> None:
        """Close the database if it was opened here, from a URL; a borrowed one stays open."""
        if self._owned is not None:
            await self._owned.close()


async def uninterrupted(work: Awaitable[T]) -> T:
    """Await to the end even if the task is cancelled meanwhile; the cancellation follows afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:  # noqa: PERF203 - as often as the task is cancelled
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that the loop does not report it as lost
        raise cancelled
    return task.result()
