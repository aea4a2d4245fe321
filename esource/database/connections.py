"""Connections: who opens and closes them, and how many a store holds.

A store holds a few connections checked out of the engine's pool, because checking one out for every
statement costs as much as the statement. On SQLite one of them writes, one unit of work at a time, and
the others read; an in-memory database has only one for everything; PostgreSQL has no such distinction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool, StaticPool

from esource.database.cancellation import uninterrupted
from esource.database.lanes import Lane, LanePool
from esource.dialect.backend import Backend
from esource.errors import DatabaseUnavailableError, InvalidOptionError, StoreClosedError


class Connections:
    """The engine of a database (or one lent connection) and the connections held from it."""

    readers: LanePool
    writers: LanePool

    def __init__(
        self,
        backend: Backend,
        url: URL,
        *,
        engine: AsyncEngine | None = None,
        driver: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._backend = backend
        self._url = url
        self._name = backend.describe(url)
        self._engine = engine
        self._lent = driver
        self._owns_engine = engine is None and driver is None
        self._options = dict(options or {})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.is_ready = False
        """Whether the connections are open, in the running loop or in another."""

    @property
    def engine(self) -> AsyncEngine:
        """The engine; made on first use when it is our own."""
        if self._engine is None:
            if self._lent is not None:
                raise InvalidOptionError("a lent aiosqlite connection has no engine")
            self._engine = self._backend.create_engine(self._url, **self._options)
        return self._engine

    @property
    def is_lent(self) -> bool:
        """Whether there is only a connection that the application lent us."""
        return self._lent is not None

    @property
    def is_private(self) -> bool:
        """Whether nobody else can reach this database: in memory, on one connection of our own."""
        return self._owns_engine and isinstance(self.engine.pool, StaticPool)

    def set_option(self, name: str, value: Any) -> None:
        """Set an engine option before the first connection."""
        self._options[name] = value

    # -- opening and closing -----------------------------------------------------------------------

    async def ensure_open(self) -> None:
        """Open on first use; refuse what was closed."""
        if self._closed:
            raise StoreClosedError(f"{self._name} was closed. Use it inside `async with store:`.")
        await self.open()

    async def open(self) -> None:
        """Connect. Does nothing when open; whatever fails on the way is closed again.

        Raises:
            DatabaseUnavailableError: the database cannot be opened or reached.
            StoreClosedError: it is open in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise StoreClosedError(
                f"{self._name} was opened in another event loop. Open one store per loop, and close it before "
                "the loop ends: a program has one asyncio.run(main()), with `async with store:` inside."
            )
        self._loop = loop
        async with self._opening:
            if self.is_ready:
                return
            self._closed = False
            if self._lent is not None:
                self._share(1)
                self.readers.add(Lane(None, self._lent))
            else:
                await self._open_engine()
            self.is_ready = True

    @property
    def is_usable(self) -> bool:
        """Whether the connections are open in the running loop."""
        return self.is_ready and self._loop is asyncio.get_running_loop()

    async def _open_engine(self) -> None:
        try:
            with self._backend.errors(self._name):
                if self._owns_engine:
                    self._backend.prepare(self._url, read_only=bool(self._options.get("read_only")))
                self._make_pools()
                lane = await self.connect()
        except BaseException:
            self._loop = None
            if self._owns_engine and self._engine is not None:
                await uninterrupted(self._engine.dispose())
                self._engine = None
            raise
        self.writers.add(lane)
        if not self.writers.give(self.writers.idle.pop()):
            await self.writers.discard(lane)
        if not event.contains(self.engine.sync_engine, "engine_disposed", self._on_disposed):
            event.listen(self.engine.sync_engine, "engine_disposed", self._on_disposed)

    def _share(self, limit: int, *, hold: bool = True) -> None:
        self.readers = LanePool(self._backend, limit, self.connect, self.disconnect, hold=hold)
        self.writers = self.readers

    def _make_pools(self) -> None:
        """How many connections may be held, leaving at least half of a borrowed pool to its owner."""
        pool = self.engine.pool
        if isinstance(pool, StaticPool):
            self._share(1)
            return
        limit, hold = self._backend.held_connections, True
        if not self._owns_engine and isinstance(pool, QueuePool):
            overflow = pool._max_overflow  # noqa: SLF001 - the pool says it nowhere else
            capacity = pool.size() + overflow if overflow >= 0 else 2 * limit
            limit, hold = max(1, min(limit, capacity // 2)), capacity > 1
        self._share(limit, hold=hold)
        if not self._backend.concurrent_writers:
            self.writers = LanePool(self._backend, 1, self.connect, self.disconnect, hold=hold)

    async def close(self) -> None:
        """Give the held connections back; close the engine if it is our own. Never fails on a dead server."""
        if not self.is_ready:
            return
        self._forget()
        self._closed = True
        if self._lent is not None:
            return
        if event.contains(self.engine.sync_engine, "engine_disposed", self._on_disposed):
            event.remove(self.engine.sync_engine, "engine_disposed", self._on_disposed)
        for lane in self._held():
            await self.disconnect(lane)
        if self._owns_engine:
            await self.engine.dispose()
            self._engine = None

    def _held(self) -> list[Lane]:
        lanes = self.readers.empty()
        return lanes if self.writers is self.readers else [*lanes, *self.writers.empty()]

    def _forget(self) -> None:
        self.is_ready = False
        self._loop = None
        self._opening = asyncio.Lock()  # the old one may belong to a loop that ends

    def _on_disposed(self, engine: Any) -> None:
        """The application disposed of its engine without closing the store: let our connections go."""
        self._forget()
        for lane in self._held():
            if lane.connection is not None and lane.connection.sync_connection is not None:
                lane.connection.sync_connection.invalidate()

    # -- one connection ----------------------------------------------------------------------------

    async def connect(self) -> Lane:
        """A new connection from the engine's pool."""
        if self._lent is not None:
            raise DatabaseUnavailableError(f"{self._name}: the aiosqlite connection it was given is closed")
        connection = await self.engine.connect()
        try:
            driver = (await connection.get_raw_connection()).driver_connection
            while not self._backend.is_alive(driver):  # it died while it lay in the pool
                await connection.invalidate()
                driver = (await connection.get_raw_connection()).driver_connection
        except BaseException:
            await uninterrupted(connection.close())
            raise
        return Lane(connection, driver)

    async def disconnect(self, lane: Lane) -> None:
        """Give a connection back to the engine's pool; a broken one is thrown away."""
        if lane.connection is None:
            return
        try:
            if not self._backend.is_alive(lane.driver):
                await lane.connection.invalidate()
            await lane.connection.close()
        except Exception:  # a connection that cannot be closed is gone already; its place in the pool is not
            await lane.connection.invalidate()
            await lane.connection.close()
