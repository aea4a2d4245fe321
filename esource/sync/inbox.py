"""What reaches the thread that drives a call while the loop goes on with it: functions to call there, Ctrl-C, and the end."""

from __future__ import annotations

import asyncio
from _signal import (  # type: ignore[import-not-found]  # see `driver`
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from queue import SimpleQueue
from types import FrameType
from typing import Any

from esource.database.calls import limit

as_seen: dict[type, Callable[[Any], Any]] = {}
"""What an argument of a function that is called in the caller's thread becomes, by its class."""


def _seen(value: Any) -> Any:
    return next((wrap(value) for kind, wrap in as_seen.items() if isinstance(value, kind)), value)


def _interrupt() -> None:
    raise KeyboardInterrupt


class Inbox(SimpleQueue[Any]):
    """What the thread of a caller waits for: the end of its task, functions to call meanwhile, and Ctrl-C."""

    is_closed = False
    interrupts = 0
    """How often Ctrl-C came."""
    is_interrupted = False  # whether it, or the end of the program, ended a function of the application's
    unanswered: tuple[asyncio.Future[Any], ...] = ()  # what waits for the answers of such
    is_cancelled = False

    async def __call__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        loop, context, seen = asyncio.get_running_loop(), copy_context(), tuple(map(_seen, arguments))
        limited = limit.get()
        if limited is not None:
            context.run(limit.set, None)
            function = limited.paused_before(function)
        try:
            if self.is_closed:  # in the background of a program that goes on meanwhile
                return await loop.run_in_executor(None, context.run, function, *seen)
            answer = loop.create_future()
            self.put((answer, context, function, seen))
            return await answer
        finally:
            if limited is not None:
                limited.go_on()

    def end(self, task: asyncio.Task[Any]) -> None:
        """Hand over the end of the task, in the loop's thread: no one answers what its background asks from now on."""
        self.is_closed = True
        self.put(task)

    def cancel(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel the task, once, and then what waits for an answer that will not come: the task would begin that anew. In the
        loop's thread."""
        if task is not None and not self.is_cancelled:
            self.is_cancelled = True
            task.cancel()
        for answer in self.unanswered:
            answer.cancel()

    @contextmanager
    def lets_through(self) -> Iterator[None]:
        """Where code of the application runs, Ctrl-C interrupts it as usual."""
        kept = getsignal(SIGINT)
        if kept != self.interrupt:
            yield
            return
        signal(SIGINT, default_int_handler)
        try:
            yield
        finally:
            signal(SIGINT, kept)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note Ctrl-C, which would otherwise come between any two instructions."""
        self.interrupts += 1
        self.put((None, copy_context(), _interrupt, ()))
