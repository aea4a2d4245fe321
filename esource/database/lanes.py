"""Connections that a store holds, and how tasks take turns with them.

The task that has waited longest gets the connection that is given back, or the place of one that is closed: it is
handed over, and no task that comes later can take it before. So no task waits for more than one turn of each of the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.cancellation import uninterrupted
from esource.dialect.backend import Backend
from esource.errors import StoreClosedError

T = TypeVar("T")


class Lane:
    """One connection: SQLAlchemy's, and the driver's own beneath it."""

    __slots__ = ("connection", "driver", "home", "is_cut", "source")

    def __init__(self, connection: AsyncConnection | None, driver: Any, source: Any = None) -> None:
        self.connection = connection
        self.driver = driver
        self.source = source
        """The pool of the engine that it came from. An engine that is disposed of gets another one."""
        self.home: LanePool | None = None
        """Where it goes back to."""
        self.is_cut = False
        """Whether it was taken from its user, because the store closed and the user did not come to an end."""


class LanePool:
    """Connections that tasks take in turn. Taking an idle one, and giving it back, never waits.

    Args:
        backend: The kind of database.
        name: The database, for messages.
        limit: How many connections there are at most.
        connect: Makes another one.
        disconnect: Gives one back to where it came from.
        hold: Whether to keep them between two uses.
        patience: How long to wait, in seconds, while other tasks keep all of them.
        impatient: The error for a caller that has waited longer.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        limit: int,
        connect: Callable[[], Awaitable[Lane]],
        disconnect: Callable[[Lane], Awaitable[None]],
        *,
        hold: bool = True,
        patience: float | None = None,
        impatient: Callable[[], Exception] = TimeoutError,
    ) -> None:
        self._backend = backend
        self._is_alive = backend.is_alive
        self._name = name
        self.limit = limit
        self._connect = connect
        self._disconnect = disconnect
        self.holds = hold
        """Whether connections are kept between two uses."""
        self._patience = patience
        self._impatient = impatient
        self._is_closed = self._is_cut = False
        self._count = 0
        """Places that are taken: connections, and those that are just being made."""
        self._lanes: set[Lane] = set()
        self._kept = 0
        """Connections that a task took, and gives back at the end of a block of code."""
        self._turns = 0
        """How often a connection, or the place of one, was handed on."""
        self._waiting: deque[asyncio.Future[Lane | None]] = deque()
        self._emptied: asyncio.Event | None = None
        self.idle: list[Lane] = []

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run work on a connection, which it gets as the driver's own, and take it back.

        Raises what the work raises: the driver's own errors.
        """
        idle = self.idle
        lane = idle.pop() if idle and self._is_alive(idle[-1].driver) else await self._next()
        try:
            result = await work(lane.driver)
        except BaseException as error:
            await uninterrupted(self._take_back(lane, error))
            raise
        if self.holds and not self._waiting:
            idle.append(lane)  # if it is dead, the next task that takes it finds that out
        elif not self._give(lane):
            await uninterrupted(self._discard(lane))
        return result

    async def take(self) -> Lane:
        """A connection to keep for a while, until `put_back`: an idle one, a new one, or the next that is given back."""
        lane = await self._next()
        self._kept += 1
        return lane

    async def put_back(self, lane: Lane) -> None:
        """Take back what `take` gave; a connection that is of no use any more is closed."""
        self._kept -= 1
        if not self._give(lane):
            await self._discard(lane)

    def add(self, lane: Lane) -> None:
        """Put a connection in that was made elsewhere."""
        lane.home = self
        self._count += 1
        self._lanes.add(lane)
        self.idle.append(lane)

    def close(self) -> list[Lane]:
        """Refuse tasks that come now; the idle connections, which no task gets any more. A task that waits already gets
        a turn, and the connections that are out are closed when they come back."""
        self._is_closed, self.holds = True, False
        lanes, self.idle = self.idle, []
        for lane in lanes:
            self._lanes.discard(lane)
            self._leave()
        return lanes

    @property
    def is_empty(self) -> bool:
        """Whether there is no connection, and none is being made."""
        return not self._count

    @property
    def is_idle(self) -> bool:
        """Whether no task has a connection, or is about to get one."""
        return len(self.idle) == self._count

    async def empty(self) -> None:
        """Wait until every connection has come back and is closed."""
        while self._count:
            if self._emptied is None:
                self._emptied = asyncio.Event()
            await self._emptied.wait()

    async def cut(self) -> None:
        """Take the connections from the tasks that still have them; a later call through them is an error."""
        self._is_cut = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(self._refusal())
        for lane in list(self._lanes):
            lane.is_cut = True
            self._backend.break_off(lane.driver)
        for lane in list(self._lanes):
            await self._discard(lane)

    async def _next(self) -> Lane:
        if self._is_closed:
            raise self._refusal()
        while self.idle:
            lane = self.idle.pop()
            if self._is_alive(lane.driver):
                return lane
            await uninterrupted(self._discard(lane))
        if self._count < self.limit:
            self._count += 1
        else:
            handed = await self._wait()
            if handed is not None:
                return handed
        try:
            lane = await self._connect()
        except BaseException:
            self._leave()
            raise
        lane.home = self
        self._lanes.add(lane)
        if self._is_cut:
            await uninterrupted(self._discard(lane))
            raise self._refusal()
        return lane

    async def _wait(self) -> Lane | None:
        """The connection that is handed over to this task; None for a place in which to make one."""
        waiter: asyncio.Future[Lane | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._patience is not None:
            self._limit_wait(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                lane = waiter.result()  # it was this task's turn: the next one gets it
                if lane is None:
                    self._leave()
                elif not self._give(lane):
                    await uninterrupted(self._discard(lane))
            raise

    def _limit_wait(self, waiter: asyncio.Future[Lane | None]) -> None:
        """Let a wait end with an error when no waiter came to its turn for so long, and the lanes are held by blocks of
        code that may never end. A queue that moves on is waited for, however long it is."""
        turns = self._turns

        def look() -> None:
            if waiter.done():
                return
            if self._kept and self._turns == turns:
                waiter.set_exception(self._impatient())
            else:
                self._limit_wait(waiter)

        assert self._patience is not None
        alarm = asyncio.get_running_loop().call_later(self._patience, look)
        waiter.add_done_callback(lambda _: alarm.cancel())

    def _give(self, lane: Lane) -> bool:
        """Give a connection to the first task that waits, or keep it; False if it has to be closed."""
        if lane.is_cut:
            return True  # it is closed already
        driver = lane.driver
        if not self.holds or not self._is_alive(driver):
            return False
        connection = lane.connection
        # One that the application lent us has transactions of its own.
        if connection is not None and (connection.invalidated or self._backend.is_in_transaction(driver)):
            return False
        if not self._hand(lane):
            self.idle.append(lane)
        return True

    async def _take_back(self, lane: Lane, error: BaseException) -> None:
        await settle(self._backend, lane.driver, error)
        if not self._give(lane):
            await self._discard(lane)

    async def _discard(self, lane: Lane) -> None:
        """Close a connection that was taken, and let another be made in its place."""
        if lane not in self._lanes:
            return
        self._lanes.discard(lane)
        try:
            await self._disconnect(lane)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Give the place of a connection to the first task that waits."""
        if not self._hand(None):
            self._count -= 1
            if not self._count and self._emptied is not None:
                self._emptied.set()
                self._emptied = None

    def _hand(self, lane: Lane | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._turns += 1
                waiter.set_result(lane)
                return True
        return False

    def _refusal(self) -> StoreClosedError:
        return StoreClosedError(f"{self._name} was closed. Use it inside `async with store:`.")


async def settle(backend: Backend, driver: Any, error: BaseException) -> None:
    """Let go of a connection on which something failed, if nothing comes through it any more."""
    # Before Python 3.11 the two errors of a time limit are two classes.
    is_cut_short = isinstance(error, (asyncio.CancelledError, asyncio.TimeoutError, TimeoutError))
    if is_cut_short or isinstance(error.__cause__, asyncio.CancelledError):
        await backend.settle(driver)
    elif backend.classify(error) == "lost":
        backend.break_off(driver)


async def put_back(lane: Lane) -> None:
    """Give a connection that `LanePool.take` gave back to where it came from."""
    assert lane.home is not None
    await lane.home.put_back(lane)
