"""A server that is away: who waits for it tries again, and that is said at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from esource.database.patience import retry
from esource.dialect.backend import Backend
from esource.errors import error_text

T = TypeVar("T")

logger = logging.getLogger("esource")


class Outage:
    """Whether a database is known to be away, which is so while something waits for it."""

    def __init__(self, backend: Backend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._waiting = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why it cannot be reached now; None if nothing waits for it."""
        return self._reason if self._waiting else None

    async def retry(self, operation: Callable[[], Awaitable[T]], seconds: float) -> T:
        """Run what can be repeated safely; again, with growing pauses, while the server is away or asks to try again.

        Raises the driver's last error when the seconds are over.
        """
        is_waiting = False

        def may_pass(error: BaseException) -> bool:
            nonlocal is_waiting
            kind = self._backend.classify(error)
            if kind == "lost" and not is_waiting:
                is_waiting = True
                self._begin(error, seconds)
            return kind in ("lost", "again")

        try:
            result = await retry(operation, while_=may_pass, seconds=seconds)
        finally:
            self._waiting -= is_waiting
        if is_waiting and not self._waiting:
            logger.info("%s is reached again", self._name)
        return result

    def _begin(self, error: BaseException, seconds: float) -> None:
        self._reason = error_text(self._backend.explain(error, self._name) or error)
        self._waiting += 1
        if self._waiting == 1:
            logger.warning("%s. It is tried again for up to %g s", self._reason, seconds)
