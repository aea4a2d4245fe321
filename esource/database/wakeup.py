"""Telling those who wait at the end of the log that something was appended, and those who wait for a checkpoint that
it has moved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("esource")

POLL_SECONDS = 1.0
"""How long a subscription sleeps at most before it looks again, in seconds: the safety net."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Between a watch that broke off and the next: the pause doubles each time."""


class Waiter:
    """One waiter's memory of whether it was called."""

    def __init__(
        self, prepare: Callable[[], None] | None = None, checkpoints: frozenset[str] = frozenset()
    ) -> None:
        self._prepare = prepare
        self.checkpoints = checkpoints
        """The names of the checkpoints that it waits for, as they are stored."""
        self._called = asyncio.Event()

    def clear(self) -> None:
        self._called.clear()

    def call(self) -> None:
        self._called.set()

    async def wait(self, seconds: float) -> None:
        """Wait until called, or until the time is over."""
        if self._prepare is not None:
            self._prepare()
        # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the call.
        alarm = asyncio.get_running_loop().call_later(seconds, self._called.set)
        try:
            await self._called.wait()
        finally:
            alarm.cancel()


class WakeUp:
    """Calls all listeners. Other processes are watched only while a listener waits; it is what a `Backend.watch` tells."""

    def __init__(self, watch: Callable[[WakeUp], Awaitable[None]]) -> None:
        self._watch = watch
        self._waiters: set[Waiter] = set()
        self._covered: frozenset[str] = frozenset()
        self._changes = Waiter()
        self.saves = 0
        """How often `saved` was called: what was read of a checkpoint is new until then."""
        self._watcher: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.is_watching = False
        """Whether appends of other processes are noticed at once, not only by the poll."""

    def set(self) -> None:
        """Something was committed: there may be events, and checkpoints may have moved."""
        self.appended()
        self.saved()

    def appended(self) -> None:
        """Events were appended."""
        for waiter in self._waiters:
            if not waiter.checkpoints:
                waiter.call()

    def saved(self) -> None:
        """A checkpoint may have moved."""
        self.saves += 1
        for waiter in self._waiters:
            if waiter.checkpoints:
                waiter.call()

    @contextmanager
    def listening(self, checkpoints: frozenset[str] = frozenset()) -> Iterator[Waiter]:
        """A waiter that every append calls until the block ends; or, if checkpoints are named, what moves them."""
        waiter = Waiter(self.watch, checkpoints)
        self._waiters.add(waiter)
        self.watch()
        self._changes.call()
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)
            self._changes.call()
            if not self._waiters:
                self._stop()

    @property
    def awaited(self) -> frozenset[str]:
        """The names of the checkpoints that are waited for now."""
        return frozenset[str]().union(*(waiter.checkpoints for waiter in self._waiters))

    def covers(self, checkpoints: frozenset[str]) -> bool:
        """Whether it is noticed at once, not only by a poll, when another process moves one of these."""
        return self.is_watching and checkpoints <= self._covered

    async def changes(self, seconds: float) -> None:
        """Wait until `awaited` is different, until `look` is called, or until the time is over."""
        await self._changes.wait(seconds)
        self._changes.clear()

    def look(self) -> None:
        """End `changes`."""
        self._changes.call()

    def watch(self) -> None:
        """Let a task watch what others append, if none does: the one before may have been cancelled by the application."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._keep_watching())
            self._watcher.add_done_callback(self._ended)

    def watch_anew(self) -> None:
        """Watch another place from now on, if anybody listens."""
        self._stop()
        if self._waiters:
            self.watch()
        self.set()

    def _ended(self, watcher: asyncio.Task[None]) -> None:
        self._ending.discard(watcher)
        if not watcher.cancelled():
            watcher.exception()  # seen: it was logged where it happened
        if watcher is self._watcher:
            # It was cancelled by a program that stops and cancels all its tasks. A listener that goes on all the same
            # looks once more, and starts another watcher when it waits again.
            self._watcher = None
            self.set()

    def _stop(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None and not watcher.done():
            watcher.cancel()
            self._ending.add(watcher)

    async def close(self) -> None:
        """End the watch, and wait until it has let go of its connection."""
        self._stop()
        await self.settle()

    async def settle(self) -> None:
        """Wait until a watch that is no longer needed has given its connection back."""
        if self._ending:
            await asyncio.wait(self._ending)

    async def _keep_watching(self) -> None:
        """Watch again, after a pause, whenever the connection is lost: meanwhile the poll serves."""
        self._changes = Waiter()  # the one before may belong to a loop that has ended
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._watch(self)
            except Exception:
                logger.debug("the watch for appends broke off; trying again in %.1f s", pause, exc_info=True)
            finally:
                # While one comes to its end, the next may be watching.
                if self._watcher is None or self._watcher is asyncio.current_task():
                    self.is_watching, self._covered = False, frozenset()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def begin(self) -> None:
        """The watch has begun."""
        self.is_watching = True
        self.set()  # whatever was missed before

    def cover(self, names: frozenset[str]) -> None:
        """From here on it is told when one of these checkpoints moves."""
        missed, self._covered = names - self._covered, names
        if missed:
            self.saved()
