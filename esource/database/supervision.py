"""A follower in the background: whatever ends it is said, and it is begun again after a growing pause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from esource.checks import check_seconds
from esource.database.cancellation import drop, uninterrupted
from esource.database.patience import Retry
from esource.database.wakeup import Waiter
from esource.errors import InvalidOptionError, error_text
from esource.telemetry import FollowerStats

logger = logging.getLogger("esource")

RESTART_SECONDS = 1.0
"""The pause before a follower that has failed is begun again, in seconds; it doubles with each further failure."""

MAX_RESTART_SECONDS = 60.0
"""The longest such pause. What has run for longer than this begins with the shortest pause again."""


@contextmanager
def logging_its_end(stats: FollowerStats) -> Iterator[None]:
    """Log the error that ends a run which is not begun again, and raise it."""
    try:
        yield
    except Exception as error:
        logger.error(  # noqa: TRY400 - the traceback is there, and raised as well
            "%s has ended, and does nothing until it is run again: %s",
            stats.title,
            error_text(error),
            exc_info=error,
        )
        raise


class Supervisor:
    """Keeps a follower running in a task of its own, from `begin` to `end`. No I/O of its own.

    Args:
        stats: What the follower notes of itself; its health says whether it runs, or waits to be begun again.
        run: Runs it until it is stopped. Is called again after an error.
        stop: Makes `run` end soon.
        restart_seconds: The first pause after an error; it doubles with each further one.
        max_restart_seconds: The longest pause.

    Raises:
        InvalidOptionError: a pause is no number of seconds above 0.
    """

    def __init__(
        self,
        stats: FollowerStats,
        run: Callable[[], Awaitable[None]],
        stop: Callable[[], None],
        restart_seconds: float = RESTART_SECONDS,
        max_restart_seconds: float = MAX_RESTART_SECONDS,
    ) -> None:
        self._stats = stats
        self._run = run
        self._stop = stop
        self._pauses = Retry(
            first_seconds=check_seconds("restart_seconds", restart_seconds),
            longest_seconds=check_seconds("max_restart_seconds", max_restart_seconds),
        )
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._pause = Waiter()
        """Called when it is of no use any more to wait for the next run."""

    def require_idle(self) -> None:
        """Refuse to begin what runs already, or waits to be begun again.

        Raises:
            InvalidOptionError: it does.
        """
        if self._stats.is_running or self._task is not None:
            raise InvalidOptionError(f"{self._stats.title} is at work already: make another one")

    def begin(self) -> None:
        """Begin to run it.

        Raises:
            InvalidOptionError: it runs already.
        """
        self.require_idle()
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    def stop(self) -> None:
        """Do not begin it again. No I/O."""
        self._is_stopped = True
        self._pause.call()

    async def wait(self) -> None:
        """Wait until it has ended and is not begun again."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def end(self) -> None:
        """Stop it, and wait until it has ended. When this is cancelled, it is ended at once."""
        task, self._task = self._task, None
        if task is None:
            return
        self.stop()
        self._stop()
        try:
            await asyncio.wait([task])
        finally:
            if not task.done():
                await uninterrupted(drop([task]))
        if not task.cancelled():
            task.result()

    async def _keep_running(self) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        try:
            while not self._is_stopped:
                self._pause.clear()
                began = clock()
                try:
                    await self._run()
                except Exception as error:
                    failures = 1 if clock() - began > self._pauses.longest_seconds else failures + 1
                    pause = self._pauses.pause_after(failures)
                    self._say(error, pause)
                    await self._pause.wait(pause)
                else:
                    return
        except asyncio.CancelledError:
            if not self._is_stopped:
                self._stats.restarts()  # but nothing begins it again: `is_ended` says that it has failed
                logger.error(  # noqa: TRY400 - a traceback would only show where it waited
                    "%s was cancelled by other code, and has ended. It does nothing until the program begins it anew",
                    self._stats.title,
                )
            raise
        finally:
            self._stats.is_ended()

    def _say(self, error: Exception, pause: float) -> None:
        if self._is_stopped:
            logger.error("%s has ended: %s", self._stats.title, error_text(error), exc_info=error)
            return
        self._stats.restarts()
        logger.error(
            "%s has ended, and begins again in %.1f s: %s",
            self._stats.title,
            pause,
            error_text(error),
            exc_info=error,
        )
