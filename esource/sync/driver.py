"""Drives the asynchronous code for callers that have no event loop.

On SQLite a coroutine usually ends without ever being suspended. It is driven where it is called, in the caller's
thread: no loop runs, and no other thread takes part. One that has to wait, for another writer's lock or for a server,
goes on in an event loop with a thread of its own. There the calls of several threads meet, share connections, and
share transactions.

One lock says who may work. The loop's thread holds it except while it waits for something to happen; a caller that
finds it taken hands its call over, and is company for those that did so before.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from _signal import (  # type: ignore[import-not-found]  # `signal` makes enums of numbers, for twice the price of a drive
    SIGINT,
    default_int_handler,
    getsignal,
    signal,
)
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from esource.database.calls import outside
from esource.database.cancellation import Begun
from esource.errors import InvalidOptionError
from esource.sync.inbox import Inbox

T = TypeVar("T")

_IN_A_LOOP = (
    "esource.sync was called where an event loop runs, which would stand still meanwhile. Use the same names from "
    "`esource`, with `await` (a notebook has that, too), or call it in a thread: `await asyncio.to_thread(...)`"
)
_OTHER_THREAD = (
    "a transaction is used by the thread that opened it, and by no other: its connection runs one statement at a time. "
    "Open one in each thread"
)

inside: ContextVar[int | None] = ContextVar("esource_sync_inside", default=None)
"""The thread whose transaction the caller is inside of."""

_nothing = object()


class _Selector(selectors.DefaultSelector):
    """Waits without the lock."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        driver = self._driver
        driver.lock.release()
        try:
            return super().select(timeout)
        finally:
            driver.is_wanted = True
            driver.lock.acquire()
            driver.is_wanted = False


class _Loop(asyncio.SelectorEventLoop):
    """A loop that others leave work in while its own thread waits."""

    is_touched = False
    """Whether its thread has to look what there is to do."""

    def call_soon(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self.is_touched = True
        return super().call_soon(*args, **kwargs)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self.is_touched = True
        return super().call_at(*args, **kwargs)


class Driver:
    """The lock, and the loop with its thread. There is one in a process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_wanted = False
        """Whether the loop's thread waits for the lock. Callers let it go first."""
        self._loop = _Loop(_Selector(self))
        self._loop.set_debug(False)  # it would refuse what is left in it from another thread
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def drive(self, work: Coroutine[Any, Any, T], *, at_once: bool) -> T:
        """The result of a coroutine.

        Args:
            work: The coroutine.
            at_once: Whether it is likely to end without being suspended, and never is inside a greenlet.
        """
        context, inbox = copy_context(), Inbox()
        context.run(outside.set, inbox)
        waits_for_signals = threading.get_ident() == _MAIN and getsignal(SIGINT) is default_int_handler
        if waits_for_signals:
            signal(SIGINT, inbox.interrupt)
        try:
            if at_once and not self.is_wanted and self.lock.acquire(False):
                try:
                    waits_for = self._step(work, context, inbox)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                return self._wait(Begun(work, waits_for, context=context), inbox)
            return self._wait(Begun(work, None, is_begun=False, context=context), inbox)
        finally:
            inbox.is_closed = True
            for variable in context:
                value = context[variable]
                if variable is not outside and variable.get(_nothing) is not value:
                    variable.set(value)
            if waits_for_signals:
                signal(SIGINT, default_int_handler)
                if inbox.interrupts:
                    raise KeyboardInterrupt

    def _step(self, work: Coroutine[Any, Any, Any], context: Context, inbox: Inbox) -> Any:
        """Drive a coroutine until it is suspended; what it waits for.

        Raises:
            StopIteration: it has ended.
        """
        loop = self._loop
        loop.is_touched = False
        _set_running_loop(loop)
        try:
            return context.run(work.send, None)
        except BaseException:
            inbox.is_closed = True
            raise
        finally:
            _set_running_loop(None)
            is_touched = loop.is_touched
            self.lock.release()
            if is_touched:
                self.tell(lambda: None)  # the loop wakes up, and finds what was left in it

    def tell(self, function: Callable[[], object]) -> None:
        """Call a function in the loop's thread soon."""
        self._start()
        self._loop.call_soon_threadsafe(function)

    def _start(self) -> None:
        """Start the loop's thread, if it does not run."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="esource", daemon=True)
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        with self.lock:
            while True:
                try:
                    self._loop.run_forever()
                except (KeyboardInterrupt, SystemExit):  # noqa: PERF203 - of a handler: its caller gets it, too
                    continue

    def _wait(self, work: Coroutine[Any, Any, T], inbox: Inbox) -> T:
        """Let a task of the loop go on with it, and wait for that one to end.

        A caller that is interrupted cancels it and waits on, so that nothing is left half done; interrupted once more,
        it waits no longer.
        """
        task: asyncio.Task[T] | None = None
        interruption: BaseException | None = None

        def begin() -> None:
            nonlocal task
            task = self._loop.create_task(work)
            task.add_done_callback(inbox.end)
            if interruption is not None:
                inbox.cancel(task)

        self.tell(begin)
        while True:
            try:
                item = inbox.get()
                if isinstance(item, asyncio.Task):
                    break
                self._answer(inbox, *item)
            except BaseException as error:
                self._loop.call_soon_threadsafe(lambda: inbox.cancel(task))
                if interruption is not None:
                    raise
                interruption = error
        if interruption is not None:
            raise interruption
        return item.result()  # type: ignore[no-any-return]

    def _answer(
        self,
        inbox: Inbox,
        answer: asyncio.Future[Any] | None,
        context: Context,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        """Call a function of the application's in the thread that drives it, unless the call was cancelled meanwhile."""
        if answer is not None and answer.cancelled():
            return

        def settle(result: Any, error: BaseException | None) -> None:
            assert answer is not None
            if not answer.done():
                if error is None:
                    answer.set_result(result)
                else:
                    answer.set_exception(error)

        soon = self._loop.call_soon_threadsafe
        try:
            with inbox.lets_through():
                result = context.run(function, *arguments)
        except StopIteration as error:
            soon(settle, None, RuntimeError(f"{function!r} raised StopIteration: {error}"))
        except Exception as error:
            soon(settle, None, error)
        except BaseException:
            inbox.is_interrupted = True
            if answer is not None:
                inbox.unanswered += (answer,)
            raise
        else:
            soon(settle, result, None)


_MAIN = threading.main_thread().ident
_driver: Driver | None = None
_making = threading.Lock()


def drive(work: Coroutine[Any, Any, T], *, at_once: bool, thread: int | None = None) -> T:
    """The result of a coroutine, for a caller that has no event loop.

    Args:
        work: The coroutine.
        at_once: Whether to begin it in the caller's thread.
        thread: The only thread that may do this.

    Raises:
        InvalidOptionError: an event loop runs here, or it is not that thread.
    """
    if _get_running_loop() is not None:
        work.close()
        raise InvalidOptionError(_IN_A_LOOP)
    owner = thread or inside.get()
    if owner is not None and owner != threading.get_ident():
        work.close()
        raise InvalidOptionError(_OTHER_THREAD)
    return (_driver or _made()).drive(work, at_once=at_once)


def _made() -> Driver:
    global _driver  # noqa: PLW0603 - a process has one
    with _making:
        _driver = _driver or Driver()
        return _driver


def _forget() -> None:
    """After a fork: the loop's thread is not in this process."""
    global _driver, _making
    _driver, _making = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_forget)


def tell(function: Callable[[], object]) -> None:
    """Call a function in the loop's thread soon, from any thread and from a signal handler."""
    if _driver is None:
        function()  # nothing runs that it could be meant for
    else:
        _driver.tell(function)
