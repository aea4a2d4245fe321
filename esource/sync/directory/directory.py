"""`esource.directory.directory` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from os import PathLike
from types import TracebackType
from typing import Any

from sqlalchemy.engine import URL
from typing_extensions import Self

from esource.directory import directory as asynchronous
from esource.directory.directory import REFRESH_SECONDS
from esource.directory.places import MOST_FILES
from esource.directory.records import LogEntry
from esource.domain.registry import EventRegistry
from esource.sync.directory.keys import Keys
from esource.sync.event_store import EventStore
from esource.sync.opening import opened


class Directory(Keys):
    """Many logs under one name, on one or several servers, or in files.

    Logs lie beside the directory, each in a schema of its own, or wherever they were created or moved. All stores on one
    server share its connections: a thousand logs need no more of them than one. Making it does no I/O.

    Example:
        >>> with Directory("postgresql://user@host/database") as directory:
        ...     directory.create("tenant_7")
        ...     store = directory.log("tenant_7")

    Args:
        url: The database with the directory's own tables: a URL, or the path of a SQLite file. It may hold a log, too.
        event_registry: The event types of all stores; the default registry if left out.
        refresh_seconds: How often to look whether logs have moved. A store that writes notices at once.
        most_files: How many SQLite files are kept open, unless more are in use.
        options: Those of the stores, as for `esource.open_store`. For PostgreSQL ``pool_size`` and ``max_overflow`` (5 and
            10 if left out) say how many connections to each server there are at most, for all its logs together.

    Raises:
        InvalidOptionError: the database is in memory, or an option that shared connections cannot have.
    """

    _target: asynchronous.Directory
    _waits = True

    def __init__(
        self,
        url: str | URL | PathLike[str],
        event_registry: EventRegistry | None = None,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        most_files: int = MOST_FILES,
        **options: Any,
    ) -> None:
        self._hold(
            asynchronous.Directory,
            url,
            event_registry,
            refresh_seconds=refresh_seconds,
            most_files=most_files,
            **{"execution": "caller", **options},
        )

    @property
    def name(self) -> str:
        """What messages call it. It holds no password."""
        return self._target.name

    def open(self) -> None:
        """Read where the logs are, and look again now and then. ``with`` does this.

        Raises:
            DatabaseUnavailableError: the directory's database cannot be reached.
        """
        self._call(self._target.open())

    def close(self) -> None:
        """Close all stores that it has opened, and all connections."""
        self._call(self._target.close())

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)

    def create(
        self, name: str, *, at: str | URL | PathLike[str] | None = None, takes_keys: bool | None = None
    ) -> LogEntry:
        """Create a log, or take one in that is there already. May be repeated; what was broken off goes on.

        Args:
            name: Its name: small letters, digits, ``_`` and ``-``.
            at: Where; left out, beside the directory: in a schema of this name, or in a file of this name in the
                folder that is named after the directory's file. Else the URL of a database, with ``?schema=`` if it has
                several logs, without a password; ``?schema=...`` alone is one beside the directory; or a file's path.
            takes_keys: Whether keys that nobody has assigned may come into it; see `store`. Left out, they may not come into
                a new log, and for one that is there it stays as it is. The keys that live in a log stay there.

        Raises:
            InvalidOptionError: the name or the place cannot be used, or one of them is taken.
            StoreMovedError: the log that is there has moved, and takes no events.
            SchemaOutdatedError: the log that is there has an older schema; upgrade it first.
        """
        return self._call(self._target.create(name, at=at, takes_keys=takes_keys))

    def entry(self, name: str) -> LogEntry:
        """A log as it is noted now. One query.

        Raises:
            InvalidOptionError: there is no such log.
        """
        return self._call(self._target.entry(name))

    def log(self, name: str) -> EventStore:
        """The store of a log. It connects on its first use, on connections that all logs of its server share, and follows
        its log when that is moved. Opening it costs no I/O if the log was there when the directory looked last.

        Close the directory, and not the store.

        Raises:
            InvalidOptionError: there is no such log, or it is not ready.
        """
        return opened(self._call(self._target.log(name)))
