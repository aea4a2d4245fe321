"""Calls of the application's code: handlers and publishers, which may hang, and may raise what looks like our end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from functools import partial, wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar

from esource.database.cancellation import cancellations, drop, is_cancelled, uncancel, uninterrupted
from esource.dialect.backend import Call
from esource.errors import TimeLimitError

T = TypeVar("T")

logger = logging.getLogger("esource")

AGAIN_SECONDS = 1.0
"""After so many seconds a call that has swallowed its cancellation is cancelled again."""

STOP_SECONDS = 10.0
"""How long the calls at hand may take after a follower was told to stop, in seconds."""


class _Limit:
    """Ends a task after so many seconds. Those that a call waits for the thread it runs in do not count."""

    def __init__(
        self,
        task: asyncio.Task[Any],
        what: str,
        seconds: float,
        option: str,
        late: Callable[[BaseException], None],
    ) -> None:
        self._task, self._what, self._seconds, self._option, self._late = task, what, seconds, option, late
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._end)
        self._left: float | None = None
        """The seconds that are left while it is paused."""
        self.ended = 0
        """How often it has cancelled the task."""

    def _end(self) -> None:
        self.ended += 1
        if self.ended == 1:
            self._late(self.error())
        elif self.ended == 2:
            logger.error(
                "%s has passed %s = %g s, was cancelled, and goes on: it swallows asyncio.CancelledError. It is cancelled "
                "again and again; what waits for it stands still until it ends",
                self._what,
                self._option,
                self._seconds,
            )
        self._task.cancel()
        self._alarm = self._loop.call_later(AGAIN_SECONDS, self._end)

    def error(self) -> TimeLimitError:
        return TimeLimitError(self._what, self._seconds, self._option)

    def paused_before(self, function: Callable[..., T]) -> Callable[..., T]:
        """The function, for another thread. The time stands still until it begins."""
        self._pause()

        @wraps(function)
        def begin(*arguments: Any) -> T:
            self._loop.call_soon_threadsafe(self.go_on)
            return function(*arguments)

        return begin

    def go_on(self) -> None:
        if self._left is not None:
            self._alarm = self._loop.call_later(self._left, self._end)
            self._left = None

    def _pause(self) -> None:
        if self._alarm is not None:
            self._left = max(self._alarm.when() - self._loop.time(), 0.0)
            self._alarm.cancel()
            self._alarm = None

    def close(self) -> None:
        self._pause()
        self._left = None
        for _ in range(self.ended):
            uncancel(self._task)


limit: ContextVar[_Limit | None] = ContextVar("esource_limit", default=None)
"""The time limit of the call at hand, for what makes it wait for a thread."""


async def called(
    work: Awaitable[T],
    what: str,
    seconds: float | None,
    option: str,
    late: Callable[[BaseException], None] = lambda error: None,
) -> T:
    """Await the application's code, for so many seconds at most.

    A call that takes longer is cancelled, again and again until it has ended; if it goes on, that is logged. No I/O of
    its own; a call that blocks the event loop cannot be ended.

    Args:
        work: The call.
        what: Who is called, for messages: "the handler".
        seconds: The limit; None for none. A plain function's begins when it does, in the thread that runs it.
        option: What sets the limit, for messages.
        late: Called once when the limit is passed, before the call has ended.

    Raises:
        TimeLimitError: the limit was passed.
        RuntimeError: the code has raised `asyncio.CancelledError`, and the running task was not cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    before = cancellations(task)
    limited = None if seconds is None else _Limit(task, what, seconds, option, late)
    is_outside = limited is not None and outside.get() is not None
    if is_outside:
        limit.set(limited)
    try:
        return await (work if hasattr(task, "cancelling") else _in_a_task(work, what))
    except asyncio.CancelledError as error:
        if limited is not None and limited.ended and cancellations(task) - limited.ended <= before:
            raise limited.error() from error
        if is_cancelled() or _is_interrupted():
            raise
        raise _its_own(what) from error
    finally:
        if is_outside:
            limit.set(None)
        if limited is not None:
            limited.close()


async def wait_after_stop(calls: Collection[asyncio.Task[Any]], follower: str, what: str, later: str) -> None:
    """Wait for `STOP_SECONDS` until what calls the application's code has ended; say so if it has not. The caller then
    cancels it.

    Args:
        calls: The tasks that call it, one at least.
        follower: Whose they are, for the message: "projection totals".
        what: What is called, for the message: "its handler".
        later: What comes of the call that is cancelled, for the message.
    """
    _, late = await asyncio.wait(calls, timeout=STOP_SECONDS)
    if late:
        logger.warning(
            "%s: %s has not ended %g s after stop(), and is cancelled; %s",
            follower,
            what,
            STOP_SECONDS,
            later,
        )


def _its_own(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} raised CancelledError, but the task that called it was not cancelled: something that it awaits was"
    )


def _is_interrupted() -> bool:
    """Whether Ctrl-C ended the application's function, in the program that drives us: that is no failure of the function."""
    return getattr(outside.get(), "is_interrupted", False)


async def _in_a_task(work: Awaitable[T], what: str) -> T:
    """Before Python 3.11 a task does not tell whether it is cancelled: the code gets one of its own, which is cancelled
    only together with this one."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await uninterrupted(drop([task]))
        raise
    if task.cancelled() and not _is_interrupted():
        raise _its_own(what)
    return task.result()


outside: ContextVar[Call | None] = ContextVar("esource_outside", default=None)
"""Calls a plain function where the program runs that drives us; None where that is in the event loop itself."""


async def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, whether it is a coroutine function or a plain one.

    A plain one runs where the program runs: in the thread that called `esource.sync`, or else in the event loop,
    which stands still meanwhile.
    """
    call = None if iscoroutinefunction(function) else outside.get()
    result = function(*arguments) if call is None else await call(function, arguments)
    return await result if isawaitable(result) else result


def awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The function itself if it is a coroutine function; else one that calls it as `answer_of` does."""
    return function if iscoroutinefunction(function) else partial(answer_of, function)
