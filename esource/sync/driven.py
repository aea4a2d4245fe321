"""What everything in `esource.sync` is: an object of the asynchronous side, and how its calls are driven."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import get_ident
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from typing_extensions import Self

from esource.database.sources import Source as AsynchronousSource
from esource.database.sources import parts_of
from esource.log.streams import StoredEvent
from esource.store.subscription import Subscription
from esource.sync.driver import drive, inside, tell

T = TypeVar("T")
U = TypeVar("U")

_FOREIGN = (AsyncEngine, async_sessionmaker, AsyncConnection)
"""What comes with a driver of its own, which a caller's thread cannot wait for."""

CHUNK_EVENTS = 256
"""Events that an iterator fetches at once: a hop to the loop's thread costs as much as reading many of them."""


class Driven:
    """An object of the asynchronous side, driven for a caller that has no event loop."""

    _target: Any
    _at_once: bool = False
    """Whether its calls are likely to end without being suspended."""
    _waits: bool = False
    """Whether its calls have tasks of their own, so that they begin in the loop's thread."""
    _thread: int | None = None
    """The only thread that may use it: the one whose transaction it belongs to."""

    def _hold(self, make: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Make the object of the asynchronous side from what its counterpart was given."""
        given = [*arguments, *options.values()]
        drives = [value for value in given if isinstance(value, Driven)]
        self._target = make(
            *map(unwrapped, arguments), **{name: unwrapped(value) for name, value in options.items()}
        )
        parts = parts_of(self._target)
        is_here = bool(drives) if parts is None else parts.database.connections.are_in_caller
        self._at_once = (
            is_here
            and not self._waits
            and (parts is None or parts.key_store is None or bool(drives))
            and all(value._at_once for value in drives)
            and not any(isinstance(value, _FOREIGN) for value in given)
        )
        self._thread = next((value._thread for value in drives if value._thread is not None), None)

    @classmethod
    def _around(cls, target: Any, owner: Driven) -> Self:
        made = cls.__new__(cls)
        made._target = target
        made._at_once, made._thread = owner._at_once, owner._thread
        return made

    @classmethod
    def _of(cls, target: Any) -> Self:
        """The counterpart of an object that was made on the asynchronous side."""
        made = cls.__new__(cls)
        made._target = target
        parts = parts_of(target)
        made._at_once = (
            parts is not None and parts.key_store is None and parts.database.connections.are_in_caller
        )
        return made

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return drive(work, at_once=self._at_once, thread=self._thread)

    def _tell(self, function: Callable[[], object]) -> None:
        tell(function)

    def _enter(self) -> None:
        with self._leaving(self._target) as enter:
            enter()

    def _exit(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        return self._call(self._target.__aexit__(kind, error, trace))

    @contextmanager
    def _leaving(self, manager: AbstractAsyncContextManager[T]) -> Iterator[Callable[[], T]]:
        """What enters a block; if that is interrupted when it has come to its end, the block is left again."""
        entered = False

        async def enter() -> T:
            nonlocal entered
            value = await manager.__aenter__()
            entered = True
            return value

        try:
            yield lambda: self._call(enter())
        except BaseException as error:
            if entered:
                self._call(manager.__aexit__(type(error), error, error.__traceback__))
            raise

    @contextmanager
    def _background(self, manager: AbstractAsyncContextManager[object]) -> Iterator[Self]:
        """A block during which something runs."""
        with self._leaving(manager) as enter:
            enter()
            yield self
        self._call(manager.__aexit__(None, None, None))

    @contextmanager
    def _block(self, manager: AbstractAsyncContextManager[T], wrap: Callable[[T, Driven], U]) -> Iterator[U]:
        """A block that belongs to the thread that opens it."""
        owner, before = self._around(self._target, self), inside.get()
        owner._thread = get_ident()
        with self._leaving(manager) as enter:
            value = wrap(enter(), owner)
            inside.set(owner._thread)
            try:
                yield value
            finally:
                inside.set(before)
        self._call(manager.__aexit__(None, None, None))

    def _following(self, events: Subscription) -> StoredEvent:
        """The next event of a subscription: from the page at hand without a hop, or as any call."""
        drive(events._keep(at_hand=True), at_once=True, thread=self._thread)
        if events._kept is None:
            self._call(events._keep())
        event = events._kept
        assert event is not None
        position = event.global_position
        events._last, events._position, events._kept = event, position, None
        return event

    def _iterate(self, values: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while chunk := self._call(_chunk(values)):
                yield from chunk
        finally:
            self._call(values.aclose())


async def _chunk(values: AsyncGenerator[T, None]) -> list[T]:
    found: list[T] = []
    async for value in values:
        found.append(value)
        if len(found) >= CHUNK_EVENTS:
            break
    return found


def unwrapped(value: Any) -> Any:
    """The object of the asynchronous side, where one is driven."""
    return value._target if isinstance(value, Driven) else value


Source: TypeAlias = AsynchronousSource | Driven
"""What names a database: a store or a transaction of one, an `AsyncEngine`, a URL."""
