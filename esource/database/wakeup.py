"""Telling those who wait at the end of the log that something was appended."""

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


class Ear:
    """One waiter's memory of whether it was called."""

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
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
    """Calls all listeners. Other processes are watched only while a listener waits."""

    def __init__(self, watch: Callable[[Callable[[], None], Callable[[], None]], Awaitable[None]]) -> None:
        self._watch = watch
        self._ears: set[Ear] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.is_watching = False
        """Whether appends of other processes are noticed at once, not only by the poll."""

    def set(self) -> None:
        """Something was appended."""
        for ear in self._ears:
            ear.call()

    @contextmanager
    def listening(self) -> Iterator[Ear]:
        """An ear that hears every call until the block ends."""
        ear = Ear(self.watch)
        self._ears.add(ear)
        self.watch()
        try:
            yield ear
        finally:
            self._ears.discard(ear)
            if not self._ears:
                self._stop()

    def watch(self) -> None:
        """Let a task watch what others append, if none does: the one before may have been cancelled by somebody."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._keep_watching())
            self._watcher.add_done_callback(self._ended)

    def _ended(self, watcher: asyncio.Task[None]) -> None:
        self._ending.discard(watcher)
        if not watcher.cancelled():
            watcher.exception()  # seen: it was logged where it happened
        if watcher is self._watcher:
            # Nobody here has ended it, but a program that stops and cancels all its tasks. Whoever goes on all the
            # same looks once more, and starts another one when he waits again.
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
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._watch(self.set, self._watching)
            except Exception:
                logger.debug("the watch for appends broke off; trying again in %.1f s", pause, exc_info=True)
            finally:
                self.is_watching = False
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _watching(self) -> None:
        self.is_watching = True
        self.set()  # whatever was missed before
