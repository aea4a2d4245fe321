"""Connections: who opens and closes them, and how many a store holds.

A store holds a few connections checked out of the engine's pool, because checking one out for every
statement costs as much as the statement. On SQLite one of them writes, one unit of work at a time, and
the others read; an in-memory database has only one for everything; PostgreSQL has no such distinction.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool, StaticPool

from esource.database.cancellation import uninterrupted, unseen
from esource.database.lanes import Lane, LanePool, put_back
from esource.dialect.backend import Backend
from esource.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    InvalidOptionError,
    StoreClosedError,
)


class Connections:
    """The engine of a database (or one lent connection) and the connections held from it."""

    readers: LanePool
    writers: LanePool
    transactions: LanePool
    """Where a transaction gets its connection."""
    passing: LanePool
    """Connections for one use each, a transaction, a snapshot or a watch: they are not held."""

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
        self.schema = backend.schema_of(url)
        """The schema that the URL names, if it names one."""
        self._engine = engine
        self._lent = driver
        self._owns_engine = engine is None and driver is None
        self._options = dict(options or {})
        self.only_read = bool(self._options.get("read_only"))  # nothing can be written through them
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.ready_in: asyncio.AbstractEventLoop | None = None
        """The event loop in which the connections are open; None if they are not."""

    @property
    def is_ready(self) -> bool:
        """Whether the connections are open, in the running loop or in another."""
        return self.ready_in is not None

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
        """Whether only this store can reach this database: it is in memory, on one connection of our own."""
        return self._owns_engine and isinstance(self.engine.pool, StaticPool)

    @property
    def are_in_caller(self) -> bool:
        """Whether they work in the thread of their caller."""
        return self._owns_engine and self._backend.works_in_caller(self._url, self._options)

    def set_option(self, name: str, value: Any) -> None:
        """Set an engine option before the first connection."""
        self._options[name] = value

    async def ensure_open(self) -> None:
        """Open on first use; refuse what was closed."""
        if self._closed:
            raise StoreClosedError(f"{self._name} was closed. Use it inside `async with store:`.")
        await self.open()

    async def open(self) -> None:
        """Connect. Does nothing when open; whatever fails on the way is closed again.

        Raises:
            DatabaseUnavailableError: the database cannot be opened or reached.
            StoreClosedError: it is open in another event loop, or was opened before a fork.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise StoreClosedError(
                f"{self._name} was opened in another event loop, or before this process was forked. Open one store per loop, and close it before "
                "the loop ends: a program has one asyncio.run(main()), with `async with store:` inside."
            )
        self._loop = loop
        async with self._opening:
            if self.is_ready:
                return
            self._closed = False
            if self._lent is not None:
                self._make_pools()
                self.readers.add(Lane(None, self._lent))
            else:
                await self._open_engine()
            self.ready_in = loop

    async def _open_engine(self) -> None:
        try:
            with self._backend.errors(self._name):
                if self._owns_engine:
                    self._backend.prepare(self._url, read_only=self.only_read)
                self._make_pools()
                lane = await self.connect()
                if not self.writers.holds:
                    await uninterrupted(self.disconnect(lane))
        except BaseException as error:
            self._loop = None
            if self._owns_engine and self._engine is not None:
                await uninterrupted(self._engine.dispose())
                self._engine = None
            if self._owns_engine and isinstance(error, (TypeError, ArgumentError)):
                raise InvalidOptionError(
                    f"{self._name}: the options of its engine do not fit: {error}"
                ) from error
            raise
        if self.writers.holds:
            self.writers.add(lane)
        if not event.contains(self.engine.sync_engine, "engine_disposed", self._on_disposed):
            event.listen(self.engine.sync_engine, "engine_disposed", self._on_disposed)

    def _make_pools(self) -> None:
        """Decide how many connections may be held, leaving at least half of a borrowed pool to its owner."""
        pool = None if self._lent is not None else self.engine.pool
        limit, passing, hold, pool_timeout = self._backend.held_connections, sys.maxsize, True, None
        is_single = pool is None or isinstance(pool, StaticPool)
        one_writes = not self._backend.concurrent_writers
        if is_single:
            limit = 1
        elif isinstance(pool, QueuePool):
            overflow = pool._max_overflow  # noqa: SLF001 - the pool says it nowhere else
            if not self._owns_engine:
                capacity = pool.size() + overflow if overflow >= 0 else 2 * limit
                limit, hold = max(1, min(limit, capacity // 2)), capacity > 1
            elif overflow >= 0 and not one_writes:  # a small pool keeps two for transactions and the watch
                limit, hold = max(1, min(limit, pool.size() + overflow - 2)), pool.size() + overflow > 1
            if overflow >= 0:
                pool_timeout = pool.timeout()
                passing = max(
                    1, pool.size() + overflow - limit - (2 * one_writes if not self._owns_engine else 0)
                )
        busy = self._backend.busy_seconds(self._options)
        # Of a borrowed pool of two or three, the one that writes is all that may be kept at rest.
        reads_held = hold and (self._owns_engine or not one_writes or is_single or passing > 1)
        alone = busy if one_writes and is_single else pool_timeout if not (hold or one_writes) else None
        self.readers = self._pool(limit, alone, hold=reads_held)
        self.writers = self.readers
        if one_writes and not is_single:
            self.writers = self._pool(1, busy, hold=hold)
        if is_single or not (hold or one_writes):
            self.passing = self.readers  # there is no other connection
        else:
            self.passing = LanePool(
                self._backend,
                self._name,
                passing,
                lambda: self.connect(),
                self.disconnect,
                hold=False,
                patience=pool_timeout,
                impatient=lambda: PoolTimeoutError(
                    f"all {passing} connections that the pool has for transactions were in use for {pool_timeout} s"
                ),
            )
        self.transactions = self.writers if one_writes else self.passing

    def _pool(self, limit: int, patience: float | None, *, hold: bool) -> LanePool:
        option = (
            "pool_timeout (seconds)" if self._backend.concurrent_writers else "busy_timeout (milliseconds)"
        )
        return LanePool(
            self._backend,
            self._name,
            limit,
            self.connect,
            self.disconnect,
            hold=hold,
            patience=patience,
            impatient=lambda: DatabaseBusyError(
                f"{self._name}: a transaction of this program kept the connection that writes for longer than "
                f"{patience} s. What it waits for belongs inside of it. Keep transactions short, or raise {option}."
            ),
        )

    def _pools(self) -> list[LanePool]:
        return list(dict.fromkeys((self.readers, self.writers, self.passing)))

    async def close(self, seconds: float) -> None:
        """Refuse new work, wait so long for what is under way, give every connection back, and close the engine if it is
        our own. A task that is not done by then loses its connection. Never fails on a dead server."""
        async with self._opening:
            pass  # of one that is just being opened there is nothing to close yet
        if not self.is_ready:
            return
        pools = self._pools()
        self._forget()
        self._closed = True
        if self._lent is not None:
            for pool in pools:
                pool.close()
            return
        if event.contains(self.engine.sync_engine, "engine_disposed", self._on_disposed):
            event.remove(self.engine.sync_engine, "engine_disposed", self._on_disposed)
        for pool in pools:
            for lane in pool.close():
                await self.disconnect(lane)
        coming_back = [unseen(pool.empty()) for pool in pools if not pool.is_empty]
        if coming_back:
            _, late = await asyncio.wait(coming_back, timeout=seconds)
            await self._cut(pools, late)
        if self._owns_engine:
            await self.engine.dispose()
            self._engine = None

    async def rest(self) -> bool:
        """Close connections that nothing uses, until the next use; whether nothing used them."""
        engine, pools = self._engine, self._pools() if self.is_ready else []
        if engine is None or not pools or not all(pool.is_idle for pool in pools):
            return False
        event.remove(engine.sync_engine, "engine_disposed", self._on_disposed)
        self._engine = None
        self._forget()
        for pool in pools:
            for lane in pool.close():
                await self.disconnect(lane)
        await engine.dispose()
        return True

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Any]:
        """The driver's connection for a watch over what others append; None if the only one is for transactions."""
        await self.ensure_open()
        if self.passing.limit == 1:
            yield None
            return
        lane = await self.passing.take()
        try:
            yield lane.driver
        finally:
            await uninterrupted(put_back(lane))

    async def _cut(self, pools: list[LanePool], late: set[asyncio.Task[None]]) -> None:
        """Take the connections from the tasks that are late to give them back."""
        if late:
            for pool in pools:
                await pool.cut()
            await asyncio.wait(late)

    def _forget(self) -> None:
        self.ready_in = None
        self._loop = None
        self._opening = asyncio.Lock()  # the old one may belong to a loop that ends

    def _on_disposed(self, engine: Any) -> None:
        """Let our connections go when the application disposes of its engine without closing the store. Those that are
        in use are closed when they come back."""
        if not self.is_ready:
            return
        self._forget()
        for pool in self._pools():
            for lane in pool.close():
                if lane.connection is not None and lane.connection.sync_connection is not None:
                    lane.connection.sync_connection.invalidate()

    async def connect(self) -> Lane:
        """Get a connection from the engine's pool: one that is alive, and in no transaction."""
        if not self._backend.connects_at_once:
            return await self._connect()
        made: list[Lane] = []

        async def make() -> None:
            made.append(await self._connect())

        try:
            await uninterrupted(make())
        except BaseException:
            for lane in made:
                await uninterrupted(self.disconnect(lane))
            raise
        return made[0]

    async def _connect(self) -> Lane:
        if self._lent is not None:
            raise DatabaseUnavailableError(f"{self._name}: the aiosqlite connection it was given is closed")
        pool = self.engine.pool
        connection = await self.engine.connect()
        try:
            driver = (await connection.get_raw_connection()).driver_connection
            while not self._backend.is_alive(driver):  # it died while it lay in the pool
                await connection.invalidate()
                driver = (await connection.get_raw_connection()).driver_connection
            self._backend.require_usable(driver, self._name)
            if self._backend.is_in_transaction(driver):
                await self._backend.abandon(driver)
        except BaseException:
            await uninterrupted(connection.close())
            raise
        return Lane(connection, driver, pool)

    async def disconnect(self, lane: Lane) -> None:
        """Give a connection back to the engine's pool; a broken one is thrown away, and so is one whose pool the engine
        does not have any more."""
        if lane.connection is None:
            return
        is_of_old_pool = self._engine is None or lane.source is not self._engine.pool
        try:
            if lane.is_cut or is_of_old_pool or not self._backend.is_alive(lane.driver):
                await lane.connection.invalidate()
            elif self._backend.is_in_transaction(lane.driver):
                # A COMMIT or ROLLBACK that the server cancelled leaves one.
                await self._backend.abandon(lane.driver)
            await lane.connection.close()
        except Exception:  # a connection that cannot be closed is gone already; its place in the pool is not
            await lane.connection.invalidate()
            await lane.connection.close()
