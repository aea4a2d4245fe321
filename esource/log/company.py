"""Whether an append is likely to have company: then a turn of the loop is waited for the others."""

from __future__ import annotations

import asyncio
import time
from typing import Any

TURN_SECONDS = 0.005
"""How long one task writes in the loop's own thread before the other tasks have a turn: by time, because a commit takes
as long as the disk takes."""


class Company:
    """Whether the last appends of one store came alone or in groups.

    Where each connection has a thread, other appends come while one is being written, and are seen. Where the
    caller's own thread writes, nothing else runs meanwhile: there a task that was not the last one to write waits
    for a turn, and so does one that has written for long.
    """

    def __init__(self, *, in_caller: bool) -> None:
        self.came = False
        """Whether the last transaction had several appends."""
        self._in_caller = in_caller
        self._last: asyncio.Task[Any] | None = None
        self._turn_at = 0.0
        """When the last one began to write, by the monotonic clock."""

    def is_likely(self) -> bool:
        """Whether to wait for others. Without a task there is no loop that could bring any."""
        if self.came or not self._in_caller:
            return self.came
        task, now = asyncio.current_task(), time.monotonic()
        if task is None or (task is self._last and now - self._turn_at < TURN_SECONDS):
            self._last = task
            return False
        self._last, self._turn_at = task, now
        return True
