"""Calls of the application's code: handlers and publishers, which may hang, and may raise what looks like our end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from functools import partial
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
        seconds: The limit; None for none.
        option: What sets the limit, for messages.
        late: Called once when the limit is passed, before the call has ended.

    Raises:
        TimeLimitError: the limit was passed.
        RuntimeError: the code has raised `asyncio.CancelledError`, and the running task was not cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    before = cancellations(task)
    ended = 0
    alarm: asyncio.TimerHandle | None = None

    def end() -> None:
        nonlocal ended, alarm
        ended += 1
        if ended == 1:
            late(TimeLimitError(what, seconds or 0.0, option))
        elif ended == 2:
            logger.error(
                "%s has passed %s = %g s, was cancelled, and goes on: it swallows asyncio.CancelledError. It is cancelled "
                "again and again; what waits for it stands still until it ends",
                what,
                option,
                seconds,
            )
        task.cancel()
        alarm = loop.call_later(AGAIN_SECONDS, end)

    if seconds is not None:
        alarm = loop.call_later(seconds, end)
    try:
        return await (work if hasattr(task, "cancelling") else _in_a_task(work, what))
    except asyncio.CancelledError as error:
        if seconds is not None and ended and cancellations(task) - ended <= before:
            raise TimeLimitError(what, seconds, option) from error
        if is_cancelled():
            raise
        raise _its_own(what) from error
    finally:
        if alarm is not None:
            alarm.cancel()
        for _ in range(ended):
            uncancel(task)


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


async def _in_a_task(work: Awaitable[T], what: str) -> T:
    """Before Python 3.11 a task does not tell whether it is cancelled: the code gets one of its own, which is cancelled
    only together with this one."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await uninterrupted(drop([task]))
        raise
    if task.cancelled():
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
