"""Ends the wait of a statement for a transaction of the same program that does nothing more.

Such a transaction most often awaits the very task that runs the statement. The database sees no deadlock there: of the
two only the statement waits for a lock.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from threading import Lock
from types import TracebackType
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from esource.database.cancellation import uninterrupted, unseen
from esource.database.connections import Connections
from esource.database.lanes import put_back
from esource.dialect.backend import Backend
from esource.errors import DatabaseBusyError

STANDSTILL_SECONDS = 5.0
"""How long a transaction may run no statement while another statement of the program waits for it, in seconds: as long
as SQLite waits for a writer by default (``busy_timeout``)."""

_lock = Lock()
_of_databases: WeakValueDictionary[str, WeakSet[Any]] = WeakValueDictionary()
"""Those of all stores of the program, by the name of the database."""


class Neighbours:
    """The connections of a database that are inside a transaction of this program, as far as it went through here.

    Only where several connections may write: for one that is alone, a `LanePool` limits the wait.
    """

    def __init__(self, connections: Connections, backend: Backend, name: str) -> None:
        self.connections = connections
        self.backend = backend
        self.name = name
        with _lock:
            self.known = _of_databases.setdefault(name, WeakSet())
            """Connections that are, or were, inside a transaction."""

    def add(self, driver: Any) -> None:
        """Remember a connection, ours or the application's, on which a transaction has begun."""
        if self.backend.concurrent_writers:
            with _lock:
                self.known.add(driver)

    def watched(self, driver: Any) -> AbstractAsyncContextManager[None]:
        """A block for one statement on a connection.

        Raises:
            DatabaseBusyError: in it, the statement waited for a neighbour that ran none for `STANDSTILL_SECONDS`.
        """
        if not self.known:
            return nullcontext()
        with _lock:
            for known in list(self.known):
                if not (self.backend.is_alive(known) and self.backend.is_in_transaction(known)):
                    self.known.discard(known)
            others = [known for known in self.known if known is not driver]
        return _Watch(self, driver, others) if others else nullcontext()


class _Watch:
    """Looks now and then whether a statement waits in vain, for as long as it runs."""

    def __init__(self, neighbours: Neighbours, driver: Any, others: list[Any]) -> None:
        self._neighbours = neighbours
        self._driver = driver
        self._others = others
        self._is_over = self._has_ended_it = False
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._set_alarm()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._alarm.cancel()
        if self._looking is not None:
            await uninterrupted(asyncio.wait([self._looking]))  # it must not end the next statement
        if self._has_ended_it and isinstance(error, Exception):
            raise DatabaseBusyError(
                f"{self._neighbours.name}: a transaction of this program holds what this call waits for, and has run no "
                f"statement for {STANDSTILL_SECONDS} s. If it waits for this call, make the call inside of it: in its own task, "
                "or in one that is started in its block. Else keep the transaction short: nothing slow belongs into it."
            ) from error

    def _set_alarm(self) -> None:
        self._alarm = asyncio.get_running_loop().call_later(STANDSTILL_SECONDS, self._start_looking)

    def _start_looking(self) -> None:
        self._looking = unseen(self._look())

    async def _look(self) -> None:
        backend, passing = self._neighbours.backend, self._neighbours.connections.passing
        try:
            lane = await passing.take()
            try:
                for other in self._others:
                    if await backend.end_wait(lane.driver, self._driver, other, STANDSTILL_SECONDS):
                        self._has_ended_it = True
                        return
            finally:
                await put_back(lane)
        except Exception:  # noqa: S110 - the server cannot be asked now, and will be asked again
            pass
        if not self._is_over:
            self._set_alarm()
