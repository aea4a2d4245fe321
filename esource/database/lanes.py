"""Connections that a store holds, and how tasks take turns with them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.cancellation import uninterrupted
from esource.dialect.backend import Backend

T = TypeVar("T")


class Lane:
    """One connection: SQLAlchemy's, and the driver's own beneath it."""

    __slots__ = ("connection", "driver")

    def __init__(self, connection: AsyncConnection | None, driver: Any) -> None:
        self.connection = connection
        self.driver = driver


class LanePool:
    """Connections that tasks take in turn. Taking an idle one, and giving it back, never waits."""

    def __init__(
        self,
        backend: Backend,
        limit: int,
        connect: Callable[[], Awaitable[Lane]],
        disconnect: Callable[[Lane], Awaitable[None]],
        *,
        hold: bool = True,
    ) -> None:
        self._backend = backend
        self._is_alive = backend.is_alive
        self._limit = limit
        self._connect = connect
        self._disconnect = disconnect
        self._hold = hold
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.idle: list[Lane] = []

    async def run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run work on a connection, which it gets as the driver's own, and take it back.

        Raises what the work raises: the driver's own errors.
        """
        idle = self.idle
        lane = idle.pop() if idle and self._is_alive(idle[-1].driver) else await self.take()
        try:
            result = await work(lane.driver)
        except BaseException as error:
            await uninterrupted(self._take_back(lane, error))
            raise
        if self._hold:
            idle.append(lane)  # if it is dead, whoever takes it next finds that out
            if self._waiting:
                self._wake()
        else:
            await uninterrupted(self.discard(lane))
        return result

    async def run_on_lane(self, work: Callable[[Lane], Awaitable[T]]) -> T:
        """`run`, for work that wants SQLAlchemy's connection."""
        lane = await self.take()
        try:
            return await work(lane)
        finally:
            if not self.give(lane):
                await uninterrupted(self.discard(lane))

    async def _take_back(self, lane: Lane, error: BaseException) -> None:
        await settle(self._backend, lane.driver, error)
        if not self.give(lane):
            await self.discard(lane)

    def _take_now(self) -> Lane | None:
        """An idle connection, if there is one that is alive."""
        if self.idle and self._is_alive(self.idle[-1].driver):
            return self.idle.pop()
        return None

    async def take(self) -> Lane:
        """A connection: an idle one, a new one, or the next that is given back."""
        while True:
            lane = self._take_now()
            if lane is not None:
                return lane
            while self.idle:  # the topmost is dead
                await self.discard(self.idle.pop())
            if self._count < self._limit:
                self._count += 1
                try:
                    return await self._connect()
                except BaseException:
                    self._count -= 1
                    self._wake()
                    raise
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # it was this task's turn
                raise

    def give(self, lane: Lane) -> bool:
        """Take a connection back; False if it is to be discarded instead."""
        if not self._hold or not self._is_alive(lane.driver):
            return False
        self.idle.append(lane)
        if self._waiting:
            self._wake()
        return True

    def add(self, lane: Lane) -> None:
        """Put a connection in that was made elsewhere."""
        self._count += 1
        self.idle.append(lane)

    async def discard(self, lane: Lane) -> None:
        """Close a connection that was taken, and let another be made in its place."""
        try:
            await self._disconnect(lane)
        finally:
            self._count -= 1
            self._wake()

    def empty(self) -> list[Lane]:
        """Take all idle connections out, for good."""
        lanes, self.idle = self.idle, []
        self._count -= len(lanes)
        return lanes

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


async def settle(backend: Backend, driver: Any, error: BaseException) -> None:
    """Let go of a connection on which something failed, if nothing comes through it any more."""
    if isinstance(error, asyncio.CancelledError):
        await backend.settle(driver)
    elif backend.classify(error) == "lost":
        backend.break_off(driver)
