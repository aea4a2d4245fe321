"""How a store is opened, initialized and closed."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from typing_extensions import Self

from esource import schema
from esource.database.database import Database
from esource.errors import AsyncRequiredError
from esource.log.appender import Appender
from esource.log.reader import LogReader
from esource.log.writer import LogWriter


class Lifecycle:
    """The part of `EventStore` that opens and closes its database."""

    _database: Database
    _appender: Appender
    reader: LogReader
    writer: LogWriter

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the store is bound to; None for the whole store."""
        raise NotImplementedError

    def _beside(self, database: Database) -> Self:
        """A store on another database, with this one's options. No I/O, and no connection."""
        database.limits = self._database.limits
        database.retry_seconds = self._database.retry_seconds
        other = copy(self)
        other._take(database)  # noqa: SLF001 - its own class
        return other

    def _take(self, database: Database) -> None:
        """Work on another database from now on."""
        reader = self.reader
        self._database = database
        self._appender = Appender(database, outbox=self._appender.outbox.told)
        self.reader = LogReader(database, reader.codec, reader.key_store, None, reader.tracer)
        self.writer = LogWriter(self.reader, self._appender, database.limits)

    @property
    def is_connected(self) -> bool:
        """Whether the store is open."""
        return self._database.connections.is_ready

    async def open(self) -> None:
        """Connect; does nothing when connected. ``async with`` does this.

        Raises:
            DatabaseUnavailableError: the database cannot be opened or reached.
        """
        await self._database.open()
        self._appender.reopen()

    async def close(self) -> None:
        """Refuse new work, write what was accepted, wait for what is under way, and give every connection back.

        What is not done after 5 seconds fails: a transaction that is still open is rolled back.
        Afterwards the store refuses work until it is opened again. A store bound to a tenant does nothing here: the
        one it came from closes.
        """
        if self.tenant_id is not None:
            return
        await self._database.close(self._appender.close)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __enter__(self) -> NoReturn:
            raise AsyncRequiredError("a store", "async with store")

        def __exit__(self, *exc_info: object) -> None:
            """Never reached."""

    async def initialize(self, *, upgrade: bool | None = None) -> None:
        """Bring the database to the newest schema, through the Alembic scripts. Safe to repeat, and safe
        when many processes do it at once.

        A fresh database gets all tables; a new SQLite file gets them at once, without the scripts. An older schema
        is upgraded on SQLite; on PostgreSQL only when it holds no data, or with ``upgrade=True``, because a migration
        of a live server is a decision.

        Raises:
            SchemaOutdatedError: the schema is older and was not to be upgraded.
            SchemaTooNewError: the schema is newer than this library.
            SchemaUnmanagedError: the tables exist without a version; see `esource.schema.adopt`.
            InvalidOptionError: an upgrade would lose or meet something of the application's, which the error names; or the log
                draws its positions in another way than the store was opened for (``append_lock``).
        """
        await self.open()
        await schema.initialize(self._database, upgrade=upgrade)
        await schema.settle_append_lock(self._database)
