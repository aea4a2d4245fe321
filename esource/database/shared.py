"""Connections to a server that many of its logs share, each log in a schema of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy.engine import URL

from esource.database.cancellation import uninterrupted
from esource.database.connections import Connections
from esource.database.lanes import Lane, LanePool, put_back
from esource.dialect.backend import Backend
from esource.errors import StoreClosedError

T = TypeVar("T")


class _Ear:
    """The one connection on which the logs of a server are listened to."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.lock = asyncio.Lock()
        self.users = 0


class Server:
    """The connections of one server (or of one file), for all its logs.

    Args:
        connections: Those of a store that was opened without a schema, and is used for nothing else.
        used: Is told of each use, so that files that nobody uses can be closed.
    """

    def __init__(self, connections: Connections, backend: Backend, used: Callable[[], None]) -> None:
        self.connections = connections
        self.backend = backend
        self.used = used
        self._ear: _Ear | None = None
        self._opening = asyncio.Lock()

    async def opened(self) -> Connections:
        """The connections, opened again if they were closed because nobody used them."""
        self.used()
        if self.connections.ready_in is not asyncio.get_running_loop():
            await self.connections.ensure_open()
        return self.connections

    @asynccontextmanager
    async def watching(self, schema: str | None) -> AsyncIterator[Any]:
        """A connection for the watch over one log. All watches over logs of this server share one."""
        connections = await self.opened()
        if not self.backend.supports_schemas or connections.passing.limit == 1:
            async with connections.watching() as driver:
                yield driver
            return
        async with self._opening:
            ear = self._ear
            if ear is None or not self.backend.is_alive(ear.lane.driver):
                ear = self._ear = _Ear(await connections.passing.take())
            ear.users += 1
        try:
            yield self.backend.shared_watcher(ear.lane.driver, ear.lock, schema)
        finally:
            ear.users -= 1
            if not ear.users:
                if self._ear is ear:
                    self._ear = None
                await uninterrupted(put_back(ear.lane))


class SharedConnections(Connections):
    """The connections of a server, as one of its logs uses them: each works in the log's schema while it does."""

    def __init__(self, server: Server, url: URL) -> None:
        super().__init__(server.backend, url)
        self._owns_engine = False
        self.readers = _SharedLanes(self, lambda there: there.readers)
        self.writers = _SharedLanes(self, lambda there: there.writers)
        self.transactions = _SharedLanes(self, lambda there: there.transactions)
        self.passing = _SharedLanes(self, lambda there: there.passing)
        self.lead_to(server, url)

    def lead_to(self, server: Server, url: URL) -> None:
        """Take connections to this server from now on. Those that are in use go back to where they came from."""
        self.server = server
        self._name = server.backend.describe(url)
        self.schema = server.backend.schema_of(url)

    @property
    def is_private(self) -> bool:
        return False

    @property
    def are_in_caller(self) -> bool:
        return self.server.connections.are_in_caller

    async def opened(self) -> Connections:
        if self._closed:
            raise StoreClosedError(f"{self._name} was closed. Use it inside `async with store:`.")
        return await self.server.opened()

    async def open(self) -> None:
        self._closed = False
        await self.server.connections.open()
        self.ready_in = asyncio.get_running_loop()

    async def close(self, seconds: float) -> None:
        """Refuse new work. The connections are the server's."""
        self._closed = True
        self.ready_in = None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Any]:
        async with self.server.watching(self.schema) as driver:
            yield driver


class _SharedLanes(LanePool):
    """The lanes of a server, which enter the log's schema before they are used."""

    def __init__(self, shared: SharedConnections, of: Callable[[Connections], LanePool]) -> None:
        self._shared = shared
        self._of = of

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        # The log may move to another server before it is this task's turn: this is the schema that it has on this one.
        backend, schema = self._shared.server.backend, self._shared.schema
        there = await self._shared.opened()

        async def inside(driver: Any) -> T:
            await backend.enter(driver, schema)
            return await work(driver)

        pool = self._of(there)
        if len(pool.idle) > 1:
            self._choose(pool.idle)
        return await pool.run(inside)

    def _choose(self, idle: list[Lane]) -> None:
        """Let a connection be taken next that works in this log's schema, or else the one that was used longest ago: in
        another schema the server has to plan each statement anew."""
        has_entered, schema = self._shared.server.backend.has_entered, self._shared.schema
        place = next((n for n, lane in enumerate(idle) if has_entered(lane.driver, schema)), 0)
        idle.append(idle.pop(place))

    async def take(self) -> Lane:
        backend, schema = self._shared.server.backend, self._shared.schema
        there = await self._shared.opened()
        lane = await self._of(there).take()
        try:
            # The application may change the setting in its transaction, so that it is not relied upon afterwards.
            await backend.enter(lane.driver, schema, for_application=True)
        except BaseException:
            await uninterrupted(put_back(lane))
            raise
        return lane
