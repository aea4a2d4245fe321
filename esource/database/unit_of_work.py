"""One open transaction: what it lends, and how the tasks inside it take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.database.effects import Effects
from esource.database.lanes import Lane
from esource.database.lent import LentConnection, ReadingConnection
from esource.database.neighbours import Neighbours
from esource.dialect.errors import driver_error
from esource.errors import DatabaseError, DatabaseReadOnlyError, EventSourceError, StoreClosedError

GONE = "an error has rolled back the transaction as a whole, and nothing of it is stored"
AVOID = "Let such errors leave the block, or put what may fail into a savepoint of its own, a transaction() inside it"


class Unit:
    """An open transaction: everything that runs on it commits or vanishes together."""

    def __init__(
        self,
        owner: object,
        neighbours: Neighbours,
        connection: AsyncConnection,
        lane: Lane,
        *,
        is_reading: bool = False,
    ) -> None:
        self.owner = owner
        """The `Transactions` of the database that it belongs to."""
        self.connection = connection
        self.driver = lane.driver
        self.is_reading = is_reading
        """Whether nothing can be written in it."""
        self.first_error: Exception | None = None
        """What failed in it first, as far as it went through here: the application has statements of its own."""
        self.is_spoiled = False
        """Whether it must not be committed, because a part of it could not be taken back."""
        self.is_open = True
        self.effects = Effects()
        self._backend = neighbours.backend
        self._database = neighbours.name
        self._neighbours = neighbours
        self._lent: LentConnection | None = None
        self._lane = lane
        self._lock = asyncio.Lock()
        self._savepoints = 0
        if not is_reading:
            neighbours.add(lane.driver)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Tasks of one transaction take turns: a connection runs one statement at a time."""
        async with self._lock:
            self.require_open()
            self._require_begun()
            try:
                async with self._neighbours.watched(self.driver):
                    yield
            except Exception as error:
                self.first_error = self.first_error or error
                raise

    def require_open(self) -> None:
        """Refuse work after the end.

        Raises:
            StoreClosedError: the transaction has ended; another task may use its connection by now.
        """
        if self._lane.is_cut:
            raise StoreClosedError(
                "the store was closed while the transaction was open: nothing of it is stored"
            )
        if not self.is_open:
            raise StoreClosedError("the transaction has ended: work with it inside its `async with` block")

    def require_writable(self) -> None:
        """Refuse to write in a reading.

        Raises:
            DatabaseReadOnlyError: it is one.
        """
        if self.is_reading:
            raise self._only_reads()

    def _require_begun(self) -> None:
        """Refuse work in a transaction that the database has rolled back by itself: it would be stored at once.

        Raises:
            DatabaseError: it has.
        """
        if self._backend.is_alive(self.driver) and not self._backend.is_in_transaction(self.driver):
            raise DatabaseError(f"{self._database}: {GONE}. {AVOID}") from self.first_error

    def _only_reads(self) -> DatabaseReadOnlyError:
        """The error for a task that writes in a reading."""
        return DatabaseReadOnlyError(
            f"{self._database}: nothing can be written inside a reading, and nothing was. Write after its block, or in a "
            "transaction() in place of it"
        )

    @property
    def lent(self) -> LentConnection:
        """The connection, for the application: it cannot end the transaction.

        Raises:
            StoreClosedError: the transaction has ended.
        """
        self.require_open()
        if self._lent is None:
            connection = self.connection
            self._lent = (
                ReadingConnection(connection, self.reading) if self.is_reading else LentConnection(connection)
            )
        return self._lent

    @property
    def was_lent(self) -> bool:
        """Whether the application has had the connection."""
        return self._lent is not None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say in our words why a statement of the application failed in a reading: it writes, or the store is closed."""
        try:
            yield
        except EventSourceError:
            raise
        except Exception as error:
            self.require_open()
            if isinstance(self._backend.explain(error, self._database), DatabaseReadOnlyError):
                raise self._only_reads() from driver_error(error)
            raise

    async def end(self, finish: Callable[[], Awaitable[None]]) -> None:
        """Refuse more work, let a task that is at work in it finish, then commit or roll back."""
        self.is_open = False
        async with self._lock:
            await finish()

    def savepoint(self) -> str:
        """A name that no other savepoint of this transaction has."""
        self._savepoints += 1
        return f"esource_{self._savepoints}"


open_units: ContextVar[tuple[Unit, ...]] = ContextVar("esource_units", default=())
"""The transactions that the running task is inside of, outermost first, of whatever databases."""
