"""`esource.store.lifecycle` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from types import TracebackType
from uuid import UUID

from typing_extensions import Self

from esource.store import lifecycle as asynchronous
from esource.sync.driven import Driven


class Lifecycle(Driven):
    """The part of `EventStore` that opens and closes its database."""

    _target: asynchronous.Lifecycle

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the store is bound to; None for the whole store."""
        return self._target.tenant_id

    @property
    def is_connected(self) -> bool:
        """Whether the store is open."""
        return self._target.is_connected

    def open(self) -> None:
        """Connect; does nothing when connected. ``with`` does this.

        Raises:
            DatabaseUnavailableError: the database cannot be opened or reached.
        """
        self._call(self._target.open())

    def close(self) -> None:
        """Refuse new work, write what was accepted, wait for what is under way, and give every connection back.

        What is not done after 5 seconds fails: a transaction that is still open is rolled back.
        Afterwards the store refuses work until it is opened again. A store bound to a tenant does nothing here: the
        one it came from closes.
        """
        self._call(self._target.close())

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)

    def initialize(self, *, upgrade: bool | None = None) -> None:
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
        self._call(self._target.initialize(upgrade=upgrade))
