"""Which backend a URL or an engine belongs to; the drivers are imported only when asked for."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from esource.checks import shown
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
    from esource.dialect.sqlite.backend import SQLiteBackend

    return SQLiteBackend()


@cache
def _postgresql(switches: Switches) -> Backend:
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("asyncpg", "postgresql") from error
    from esource.dialect.postgresql.backend import PostgreSQLBackend

    return PostgreSQLBackend(switches)


_BACKENDS = {
    "sqlite": (_sqlite, "aiosqlite"),
    "postgresql": (_postgresql, "asyncpg"),
    "postgres": (_postgresql, "asyncpg"),
}


def parse_url(url: str | URL) -> URL:
    """A database URL in its parts.

    A password among the options of a PostgreSQL URL is moved to where nothing shows it.

    Raises:
        InvalidOptionError: it is none. Its text stays out of the message: a password may be in it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidOptionError(
            "the database URL cannot be read: it must look like sqlite:///events.db or "
            "postgresql://user:password@host:5432/database, with special characters in percent-encoding"
        ) from None  # the cause may quote a part of the password
    if parsed.drivername.startswith("sqlite"):
        return _sqlite_file(parsed)
    return _postgresql_server(parsed) if parsed.drivername.startswith("postgres") else parsed


def _sqlite_file(url: URL) -> URL:
    if url.host and not (url.username or url.password or url.port):
        raise InvalidOptionError(
            f"a SQLite URL has three slashes before the path: sqlite:///{url.host}, not sqlite://{url.host}"
        )
    if url.host or url.username or url.password or url.port:
        raise InvalidOptionError(
            "a SQLite URL names a file, after three slashes: sqlite:///events.db, or sqlite:////srv/events.db. "
            "After two comes a host, which SQLite has not"
        )
    try:
        if b"\0" in os.fsencode(url.database or ""):
            raise InvalidOptionError("the name of the SQLite file holds a NUL character")
    except UnicodeEncodeError:
        raise InvalidOptionError("the name of the SQLite file holds half of a surrogate pair") from None
    return url


LAST_PORT = 65535

URL_OPTIONS = frozenset(
    {
        *("host", "port", "user", "password", "database", "ssl", "passfile", "target_session_attrs"),
        *("krbsrvname", "gsslib", "prepared_statement_cache_size"),
        # libpq's words, which `postgresql_url` translates
        *("sslmode", "connect_timeout", "application_name", "channel_binding"),
    }
)
"""What the driver and SQLAlchemy take as text; the rest has other types, and goes into ``connect_args``."""


def _postgresql_server(url: URL) -> URL:
    unknown = sorted(url.query.keys() - URL_OPTIONS)
    if unknown:
        raise InvalidOptionError(
            f"a PostgreSQL URL has no option {shown(unknown[0])}: pass what asyncpg.connect takes with "
            "connect_args={...}"
        )
    # The driver would report these in errors of other kinds, or with the text in question.
    ports = [port for given in _each(url.query.get("port", ())) for port in given.split(",")]
    ports += [] if url.port is None else [str(url.port)]
    if not all(port.isdecimal() and len(port) <= 5 and 0 < int(port) <= LAST_PORT for port in ports):
        raise InvalidOptionError("the port of the PostgreSQL URL is no number from 1 to 65535")
    if any(
        "\0" in part for part in (url.username or "", url.password or "", url.host or "", url.database or "")
    ):
        raise InvalidOptionError("the PostgreSQL URL holds a NUL character")
    if "password" not in url.query:
        return url
    passwords = _each(url.query["password"])
    if len(passwords) > 1:
        raise InvalidOptionError("the PostgreSQL URL has several passwords among its options")
    return url.difference_update_query(["password"]).set(password=passwords[0])


def _each(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


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
        raise InvalidOptionError(
            f"the driver for {name} is {ours}, not {driver}: write {name}://… or {name}+{ours}://…"
        )
    return make(switches)


def backend_for_engine(engine: AsyncEngine, switches: Switches = STANDARD) -> Backend:
    """The backend of an engine that the application made."""
    return backend_for_url(engine.url, switches)
