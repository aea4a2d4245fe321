"""Whether an append is likely to have company: then a turn of the loop is waited for the others."""

from __future__ import annotations

import asyncio
from typing import Any


class Company:
    """Whether the last appends of one store came alone or in groups.

    Where each connection has a thread, other appends come while one is being written, and are seen. Where the
    caller's own thread writes, nothing else runs meanwhile: there a task that was not the last one to write waits
    for a turn.
    """

    def __init__(self, *, in_caller: bool) -> None:
        self.came = False
        """Whether the last transaction had several appends."""
        self._in_caller = in_caller
        self._last: asyncio.Task[Any] | None = None

    def is_likely(self) -> bool:
        """Whether to wait for others. Without a task there is no loop that could bring any."""
        if self.came or not self._in_caller:
            return self.came
        last, self._last = self._last, asyncio.current_task()
        return self._last is not None and last is not None and last is not self._last
