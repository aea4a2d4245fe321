"""A database as the store and the repositories see it: statements, batches, and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.engine import URL
from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from esource.checks import STANDARD_LIMITS
from esource.database.cancellation import uninterrupted
from esource.database.connections import Connections
from esource.database.lanes import put_back
from esource.database.outages import Outage
from esource.database.patience import retry
from esource.database.shared import Server, SharedConnections
from esource.database.transactions import Connection, Transactions
from esource.database.unit_of_work import Unit, open_units
from esource.database.wakeup import WakeUp
from esource.dialect.backend import STANDARD, Backend, Switches, Watched
from esource.dialect.plan import Plan, Written
from esource.dialect.urls import backend_for_engine, backend_for_url, moving_of, parse_url
from esource.errors import StoreMovedError
from esource.tables.statement import Statement

T = TypeVar("T")

RETRY_SECONDS = 15.0
"""How long what can be repeated safely keeps trying to reach a lost server, in seconds."""


CLOSE_SECONDS = 5.0
"""How long closing waits for what is under way, in seconds."""


class Database:
    """An engine (or one lent connection), its backend, and what runs on it. Opened on first use."""

    def __init__(
        self, backend: Backend, url: URL, shared: SharedConnections | None = None, **connections: Any
    ) -> None:
        self.backend = backend
        self.url = url
        self.name = backend.describe(url)
        self.retry_seconds = RETRY_SECONDS
        self.close_seconds = CLOSE_SECONDS
        self.limits = STANDARD_LIMITS
        """What may be written, by whatever shares this database: those of its store."""
        self.connections = shared or Connections(backend, url, **connections)
        self._transactions = Transactions(self.connections, backend, self.name)
        self.outage = Outage(backend, self.name)
        """Whether it is known to be away."""
        self.find: Callable[[], Awaitable[bool]] | None = None
        """Finds where the log has moved, and leads there; whether it is there. None if nobody knows."""
        self.wake_up = WakeUp(self._watch)
        """Calls those who wait for appends to this database."""

    @classmethod
    def from_url(cls, url: str | URL, switches: Switches = STANDARD, **options: Any) -> Database:
        """A database that owns its engine and closes it. No I/O."""
        parsed = parse_url(url)
        backend = backend_for_url(parsed, switches)
        return cls(backend, parsed, options={**backend.default_options, **options})

    @classmethod
    def from_engine(cls, engine: AsyncEngine, switches: Switches = STANDARD) -> Database:
        """A database on the application's engine, which stays the application's. No I/O."""
        return cls(backend_for_engine(engine, switches), engine.url, engine=engine)

    @classmethod
    def of_server(cls, server: Server, url: URL) -> Database:
        """A database that takes its connections from those of its server, which others share. No I/O."""
        return cls(server.backend, url, SharedConnections(server, url))

    def lead_to(self, server: Server, url: URL) -> None:
        """Work on another server (of the same kind) from now on, because the log has moved there. A transaction that is
        open ends where it began.

        Only for a database made by `of_server`.
        """
        assert isinstance(self.connections, SharedConnections)
        self.connections.lead_to(server, url)
        self.url, self.name = url, self.backend.describe(url)
        self.outage = Outage(self.backend, self.name)
        self._transactions.rename(self.name)
        self.wake_up.watch_anew()

    async def follow(self, error: BaseException) -> bool:
        """Whether an error says that the log has moved, and this database leads to its new place by now, so that what
        failed can be done again there."""
        if self.find is None:
            return False
        moved = self.backend.translate(error, self.name)
        return isinstance(moved or error, StoreMovedError) and await self.find()

    @property
    def schema(self) -> str | None:
        """The schema that the URL names, where a server has several logs in one database."""
        return self.connections.schema

    async def open(self) -> None:
        """Connect; does nothing when open."""
        await self.connections.open()

    async def close(self, finish: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Refuse new work, wait for what is under way, and give every connection back; close the engine if it is our own.

        Goes to its end even if it is cancelled, because a connection that is half closed would be forgotten. What is
        not done after `close_seconds` loses its connection, and fails.

        Args:
            finish: What is to be done before, in so many seconds at most.
        """
        await uninterrupted(self._close(finish))

    async def _close(self, finish: Callable[[float], Awaitable[None]] | None) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + self.close_seconds
        if finish is not None:
            await finish(self.close_seconds)
        await self.wake_up.close()
        await self.connections.close(max(0.0, until - clock()))
        self.wake_up.set()  # a call that waits now finds the store closed

    async def _watch(self, watched: Watched) -> None:
        connections = self.connections
        if connections.is_lent or connections.is_private or not self.backend.listens:
            # No other program can append, or there is nothing to watch with.
            await asyncio.Event().wait()
        async with connections.watching() as driver:
            if driver is None:
                await asyncio.Event().wait()  # the poll must do
            await self.backend.watch(driver, watched)

    def current_unit(self) -> Unit | None:
        """The open transaction of this database that the running task is inside of."""
        return self._transactions.current() if open_units.get() else None

    async def rows(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[Any]:
        """Run a reading statement; the driver's own rows."""
        compiled = statement.on(self.backend.sqlalchemy_dialect)
        read = partial(self.backend.fetch, text=compiled.text, arguments=compiled.arguments(values))
        if unit is None and open_units.get():
            unit = self._transactions.current()
        if unit is not None:
            return await self._inside(unit, read)
        try:
            return await self._run(read)
        except Exception as error:
            return await self._read_again(read, error)

    async def _read_again(self, read: Callable[[Any], Awaitable[T]], error: Exception) -> T:
        """Read once more what could not be read for this error, for as long as it makes sense to."""
        with self.backend.errors(self.name):
            if not self.can_repeat(error):
                raise error
            return await self.persist(partial(self._run, read))

    def _run(self, work: Callable[[Any], Awaitable[T]], *, writing: bool = False) -> Awaitable[T]:
        """Run work on a connection that no other task uses meanwhile. Raises the driver's own errors.

        No coroutine of its own: each one takes as long as a small statement's encoding.
        """
        connections = self.connections
        if connections.ready_in is not asyncio.get_running_loop():
            return self._open_and_run(work, writing=writing)
        if not writing:
            return connections.readers.run(work)
        if self.backend.concurrent_writers and self._transactions.neighbours.known:
            work = partial(self._beside_others, work)
        return connections.writers.run(work)

    async def _open_and_run(self, work: Callable[[Any], Awaitable[T]], *, writing: bool) -> T:
        await self.connections.ensure_open()
        return await self._run(work, writing=writing)

    async def _beside_others(self, work: Callable[[Any], Awaitable[T]], driver: Any) -> T:
        """Write where a transaction of this program may have a lock that is needed, and wait for this in turn."""
        async with self._transactions.neighbours.watched(driver):
            return await work(driver)

    async def _inside(self, unit: Unit, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run work on the connection of an open transaction, when it is its turn."""
        with self.backend.errors(self.name):
            async with unit.turn():
                return await work(unit.driver)

    async def inspect(self, work: Callable[[Any], Awaitable[T]]) -> T:
        """Run what only reads, with the driver's connection: the open transaction's, or one for readers."""
        unit = self.current_unit()
        if unit is not None:
            return await self._inside(unit, work)
        with self.backend.errors(self.name):
            return await self._run(work)

    async def inspect_connection(self, work: Callable[[SyncConnection], T]) -> T:
        """Run what only reads, with SQLAlchemy's synchronous connection, in a transaction on one for readers."""
        await self.connections.ensure_open()
        with self.backend.errors(self.name):
            lane = await self.connections.readers.take()
            try:
                assert lane.connection is not None
                async with lane.connection.begin():
                    return await lane.connection.run_sync(work)
            finally:
                await uninterrupted(put_back(lane))

    async def moved_to(self) -> str | None:
        """Where a cut-over has sent the writers of this store; None if it takes writes."""
        return await self.inspect(moving_of(self.backend).moved_to)

    async def read(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a reading statement; rows as Python values of the columns' types."""
        return statement.on(self.backend.sqlalchemy_dialect).decode(await self.rows(statement, values, unit))

    async def write(
        self, statement: Statement, values: Mapping[str, Any], unit: Unit | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a writing statement, in the open transaction or in one of its own; the rows it returns."""
        compiled = statement.on(self.backend.sqlalchemy_dialect)
        unit = unit or self.current_unit()
        write = partial(
            self.backend.write,
            text=compiled.text,
            arguments=compiled.arguments(values),
            commit=unit is None,
        )
        if unit is not None:
            unit.require_writable()
            return compiled.decode(await self._inside(unit, write))
        with self.backend.errors(self.name):
            # The application may have a stricter isolation level as its default: the database then refuses a
            # statement that another one has overtaken, and nothing of it is written.
            try:
                rows = await retry(
                    partial(self._run, write, writing=True),
                    while_=lambda error: self.backend.classify(error) == "again",
                    seconds=self.retry_seconds,
                )
            except Exception as error:
                if not await self.follow(error):
                    raise
                rows = await self._run(write, writing=True)
            self.wake_up.saved()
            return compiled.decode(rows)

    async def append(self, plan: Plan) -> Written:
        """Write a batch in a transaction of its own. Raises the driver's own errors."""
        written = await self._run(partial(self.backend.append, plan=plan, commit=True), writing=True)
        self.wake_up.appended()
        return written

    async def run_script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters, in order, in one transaction."""
        async with self.transaction() as unit:
            with self.backend.errors(self.name):
                for statement in statements:
                    await self.backend.write(unit.driver, statement, (), commit=False)

    def can_repeat(self, error: BaseException) -> bool:
        """Whether the connection was lost, or the database asked to try again."""
        return self.backend.classify(error) in ("lost", "again")

    async def persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run what can be repeated safely; again, with growing pauses, while the server is away.

        Raises the driver's last error when `retry_seconds` are over.
        """
        return await self.outage.retry(operation, self.retry_seconds)

    @asynccontextmanager
    async def transaction(self, *, changes_schema: bool = False) -> AsyncIterator[Unit]:
        """A write transaction; whatever the running task does with this database joins it.

        Inside another one it is a savepoint. The end is shielded: a cancelled task still commits or
        rolls back as a whole. With ``changes_schema`` the database may write tables anew in it.
        """
        try:
            async with self._transactions.transaction(changes_schema=changes_schema) as unit:
                yield unit
        except StoreMovedError as error:
            if self.current_unit() is None:
                await self.follow(error)  # whoever repeats it does so in the new place
            raise
        self.wake_up.set()

    def reading(self) -> AbstractAsyncContextManager[Unit]:
        """One moment of the whole database, for everything that the running task reads of it inside; it cannot write.

        Others go on writing, except to a database in memory: there they wait. Inside a transaction it is that one.
        """
        return self._transactions.reading()

    async def join(self, connection: Connection) -> Unit:
        """The caller's own transaction as a `Unit`; beginning, committing and closing stay the caller's."""
        return await self._transactions.join(connection)
