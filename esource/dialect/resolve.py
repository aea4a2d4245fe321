"""Which backend a URL or an engine belongs to; the drivers are imported only when asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from esource.dialect.backend import STANDARD, Switches
from esource.errors import InvalidOptionError, MissingDriverError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from esource.dialect.backend import Backend


@cache
def _sqlite(switches: Switches) -> Backend:
    try:
        import aiosqlite  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("aiosqlite", "sqlite") from error
    from esource.dialect.sqlite import SQLiteBackend

    return SQLiteBackend()


@cache
def _postgresql(switches: Switches) -> Backend:
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("asyncpg", "postgresql") from error
    from esource.dialect.postgresql import PostgreSQLBackend

    return PostgreSQLBackend(switches)


_BACKENDS = {
    "sqlite": (_sqlite, "aiosqlite"),
    "postgresql": (_postgresql, "asyncpg"),
    "postgres": (_postgresql, "asyncpg"),
}


def parse_url(url: str | URL) -> URL:
    """A database URL in its parts.

    Raises:
        InvalidOptionError: it is none. Its text stays out of the message: a password may be in it.
    """
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidOptionError(
            "the database URL cannot be read: it must look like sqlite:///events.db or "
            "postgresql://user:password@host:5432/database, with special characters in percent-encoding"
        ) from None  # the cause may quote a part of the password


def backend_for_url(url: URL, switches: Switches = STANDARD) -> Backend:
    """The backend of a database URL, with or without a driver name in it.

    Raises:
        InvalidOptionError: another database, or a driver that is not asynchronous.
        MissingDriverError: the extra with the driver is not installed.
    """
    name, _, driver = url.drivername.partition("+")
    if name not in _BACKENDS:
        raise InvalidOptionError(
            f"no backend for {url.drivername!r} URLs: use sqlite:///events.db or "
            "postgresql://user@host/database"
        )
    make, ours = _BACKENDS[name]
    if driver not in ("", ours):
        raise InvalidOptionError(f"the driver for {name} is {ours}, not {driver}: write {name}+{ours}://…")
    return make(switches)


def backend_for_engine(engine: AsyncEngine, switches: Switches = STANDARD) -> Backend:
    """The backend of an engine that the application made."""
    return backend_for_url(engine.url, switches)
