"""Whether an append is likely to have company: then a turn of the loop is waited for the others."""

from __future__ import annotations

import asyncio
from typing import Any

TURN_APPENDS = 32
"""Appends that one task writes in the loop's own thread before the other tasks have a turn."""


class Company:
    """What the appends of one store have lately come in.

    Where each connection has a thread, others come while one is being written, and it shows who they are. Where the
    caller's own thread writes, nothing else runs meanwhile: there a task that was not the last one to write waits
    for a turn, and so does one that has written for long.
    """

    def __init__(self, *, in_caller: bool) -> None:
        self.came = False
        """Whether the last transaction had several appends."""
        self._in_caller = in_caller
        self._last: asyncio.Task[Any] | None = None
        self._appends = 0

    def is_likely(self) -> bool:
        """Whether to wait for others. Without a task there is no loop that could bring any."""
        if self.came or not self._in_caller:
            return self.came
        task = asyncio.current_task()
        self._appends += 1
        if task is self._last and (self._appends < TURN_APPENDS or task is None):
            return False
        self._last, self._appends = task, 0
        return task is not None
