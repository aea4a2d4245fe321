"""Cancelling a coroutine at a chosen one of its suspensions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any


class _Counted:
    """Awaits a coroutine and counts how often it suspends; the n-th time its task is cancelled."""

    def __init__(self, work: Awaitable[Any], at: int) -> None:
        self._steps = work.__await__()
        self._at = at
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        resume = lambda: next(self._steps)
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            self.count += 1
            if self.count == self._at:
                task = asyncio.current_task()
                assert task is not None
                # As anybody would who cancels it while it is suspended here.
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                value = yield waits_for
            except BaseException as error:
                resume = lambda error=error: self._steps.throw(error)
            else:
                resume = lambda value=value: self._steps.send(value)


async def cancelled_at(number: int, work: Callable[[], Awaitable[Any]]) -> tuple[bool, Any]:
    """Run work and cancel it at that suspension; whether it got so far, and its result, None if it was cancelled."""
    counted = _Counted(work(), number)

    async def run() -> Any:
        return await counted

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True, None
    return counted.count >= number, task.result()
