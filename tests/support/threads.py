"""`esource.sync` under tests that are written with `await`: each call is made in a thread, as a program without an event loop
makes it, and the test waits for that.

With ``ESOURCE_TEST_EXECUTION=sync`` these names stand in the place of those of `esource` (see `tests/conftest.py`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeAlias

import esource
import esource.sync
from esource.sync.driven import Driven

_THREADS = ThreadPoolExecutor(64, "program")
"""Enough for everything that a test does at once: a call may wait for another one."""
Own: TypeAlias = tuple[ThreadPoolExecutor, Context] | None
_own: ContextVar[Own] = ContextVar("own_thread", default=None)
"""The thread of the transaction that the task is inside of, and what is set in it."""

_END = object()


async def in_thread(own: Own, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of a function that is called in a thread: its own, that of the transaction, or any."""
    thread, context = own or _own.get() or (_THREADS, copy_context())
    call = thread.submit(
        context.run,
        function,
        *map(unwrapped, arguments),
        **{key: unwrapped(value) for key, value in options.items()},
    )
    return wrapped(await asyncio.wrap_future(call), own)


class InThreads:
    """An object of `esource.sync` with the methods that its counterpart in `esource` has."""

    kind: type[Driven]
    own: Own = None
    """Where it belongs to a transaction: its thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.own = next((value.own for value in arguments if isinstance(value, InThreads)), None)
        self.driven = self.kind(
            *map(unwrapped, arguments), **{key: unwrapped(value) for key, value in options.items()}
        )

    def __class_getitem__(cls, _: Any) -> Any:
        return cls

    def __repr__(self) -> str:
        return repr(self.driven)

    def __eq__(self, other: object) -> bool:
        return unwrapped(self)._target == getattr(unwrapped(other), "_target", other)

    def __hash__(self) -> int:
        return hash(self.driven._target)

    def __getattr__(self, name: str) -> Any:
        if name == "driven":
            raise AttributeError("it was not made")
        if not hasattr(type(self.driven), name):
            return getattr(self.driven._target, name)  # a part that only tests look at
        found = getattr(self.driven, name)
        if not inspect.ismethod(found):
            return wrapped(found, self.own)
        awaited = getattr(type(self.driven._target), name)
        kind = inspect.signature(found).return_annotation
        if inspect.iscoroutinefunction(awaited):
            return lambda *arguments, **options: in_thread(self.own, found, *arguments, **options)
        if "ContextManager" in str(kind):
            return lambda *arguments, **options: _block(self.own, found, arguments, options)
        if "Iterator" in str(kind):
            return lambda *arguments, **options: _iterate(self.own, found, arguments, options)
        return lambda *arguments, **options: wrapped(
            found(*map(unwrapped, arguments), **{key: unwrapped(value) for key, value in options.items()}),
            self.own,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("driven", "own") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(self.driven._target, name, value)

    async def __aenter__(self) -> Any:
        await in_thread(self.own, self.driven.__enter__)
        return self

    async def __aexit__(self, *raised: object) -> Any:
        return await in_thread(self.own, self.driven.__exit__, *raised)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        event = await in_thread(self.own, next, self.driven, _END)
        if event is _END:
            raise StopAsyncIteration
        return event


async def _iterate(
    own: Own, function: Callable[..., Iterator[Any]], arguments: Any, options: Any
) -> AsyncIterator[Any]:
    values = await in_thread(own, function, *arguments, **options)
    try:
        while (value := await in_thread(own, next, values, _END)) is not _END:
            yield value
    finally:
        await in_thread(own, values.close)


@asynccontextmanager
async def _block(
    own: Own, function: Callable[..., AbstractContextManager[Any]], arguments: Any, options: Any
) -> AsyncIterator[Any]:
    """A block in a thread of its own, or in that of the block around it."""
    before = _own.get()
    with ExitStack() as stack:
        own = own or before or (stack.enter_context(ThreadPoolExecutor(1, "transaction")), copy_context())
        _own.set(own)
        stack.callback(_own.set, before)
        manager = await in_thread(own, function, *arguments, **options)
        value = await in_thread(own, manager.__enter__)
        try:
            yield value
        except BaseException as error:
            if not await in_thread(own, manager.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await in_thread(own, manager.__exit__, None, None, None)


KINDS: dict[type[Driven], type[InThreads]] = {}


def wrapped(value: Any, own: Own = None) -> Any:
    """An object of `esource.sync`, as these tests see it."""
    if not isinstance(value, Driven):
        return value
    made = object.__new__(_kind(type(value)))
    made.driven, made.own = value, own
    return made


def unwrapped(value: Any) -> Any:
    return value.driven if isinstance(value, InThreads) else value


def _kind(driven: type[Driven]) -> type[InThreads]:
    if driven not in KINDS:
        base = next((parent for parent in driven.__mro__[1:] if parent in KINDS), None)
        KINDS[driven] = type(driven.__name__, (KINDS[base] if base else InThreads,), {"kind": driven})
    return KINDS[driven]


def open_store(*arguments: Any, **options: Any) -> InThreads:
    options.pop("execution", None)
    return wrapped(esource.sync.open_store(*arguments, **options))


def stand_in() -> None:
    """Put these names in the place of those of `esource`, for modules that are imported later."""
    for name in esource.__all__:
        value = getattr(esource.sync, name)
        if isinstance(value, type) and issubclass(value, Driven) and name != "ProjectionContext":
            setattr(esource, name, _kind(value))
    esource.open_store = open_store  # type: ignore[assignment]
