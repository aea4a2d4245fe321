"""Work that goes on to its end when its task is cancelled, and when the whole program is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def unseen(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that `asyncio.all_tasks` does not list.

    A program that shuts down usually cancels all tasks that are listed there. What became of a
    commit that is cancelled half-way is not known. Such a task must come to its end soon and by itself, and its
    maker must wait for it.
    """
    task = asyncio.get_running_loop().create_task(work)
    # A documented call, for those who make tasks of their own ("Extending asyncio").
    asyncio._unregister_task(task)  # noqa: SLF001
    return task


def _run(step: Callable[..., Any], *arguments: Any) -> Any:
    return step(*arguments)


class Begun(Coroutine[Any, Any, T]):
    """A coroutine whose first step was made already, for a task to go on with.

    Args:
        work: The coroutine.
        waits_for: What its first step came to: a future, or None to be asked again.
        is_begun: Whether there was a first step.
        context: Where each step runs; that of the task if left out.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        waits_for: asyncio.Future[Any] | None,
        *,
        is_begun: bool = True,
        context: Context | None = None,
    ) -> None:
        self._work = work
        self._waits_for = waits_for
        self._is_fresh = is_begun
        self._run = _run if context is None else context.run

    def send(self, value: Any) -> Any:
        if self._is_fresh:
            self._is_fresh = False
            return self._waits_for
        return self._run(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        if self._is_fresh and self._waits_for is not None:
            self._waits_for.cancel()  # nothing else does: its task does not know of it yet
        self._is_fresh = False
        return self._run(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        raise NotImplementedError  # it is for tasks


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await to the end even if the task is cancelled meanwhile; the cancellation follows afterwards."""
    if asyncio.current_task() is None:  # a caller's thread
        try:
            waits_for = work.send(None)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # it never had to wait: no task, and no turn of the loop
        task = unseen(Begun(work, waits_for))
    else:
        # Its first step belongs to its own task, too: a time limit that begins there cancels the task it began in.
        task = unseen(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:  # noqa: PERF203 - as often as the task is cancelled
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen, so that the loop does not report it as lost
        raise cancelled
    return task.result()


DROP_SECONDS = 1.0
"""How long a task that was cancelled may take to end before it is cancelled again, in seconds."""


async def drop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks that may run code of the application, and wait until they have ended.

    They are cancelled again and again: the code may call what swallows a cancellation (``wait_for`` did, before
    Python 3.12).
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        ended, waiting = await asyncio.wait(waiting, timeout=DROP_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen, so that the loop does not report it as lost


def cancellations(task: asyncio.Task[Any]) -> int:
    """How often a task was told to end; 0 before Python 3.11, where a task does not tell."""
    cancelling: Callable[[], int] | None = getattr(task, "cancelling", None)
    return 0 if cancelling is None else cancelling()


def uncancel(task: asyncio.Task[Any]) -> None:
    """Take one cancellation back that has done what it was for. Before Python 3.11 there is nothing to take back."""
    take_back: Callable[[], int] | None = getattr(task, "uncancel", None)
    if take_back is not None:
        take_back()


def is_cancelled() -> bool:
    """Whether the running task is being cancelled: else a `CancelledError` comes from what it awaited.

    Before Python 3.11 a task does not tell, and every `CancelledError` is taken for its own.
    """
    task = asyncio.current_task()
    return task is None or not hasattr(task, "cancelling") or cancellations(task) > 0
