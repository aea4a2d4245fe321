"""Which kind of database a URL or an engine belongs to, and what is ours of each kind.

A kind's driver, and our modules that need it, are imported when they are asked for.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from esource.dialect.backend import STANDARD, Backend, Switches
from esource.dialect.postgresql import url as postgresql_url
from esource.dialect.postgresql.quoting import check_schema
from esource.dialect.sqlite import url as sqlite_url
from esource.errors import InvalidOptionError, MissingDriverError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from esource.dialect.inspection import Inspection
    from esource.dialect.moving import Moving


@cache
def _sqlite(switches: Switches) -> Backend:
    try:
        import aiosqlite  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("aiosqlite", "sqlite") from error
    from esource.dialect.sqlite.backend import SQLiteBackend

    return SQLiteBackend()


def _sqlite_moving(backend: Backend) -> Moving:
    from esource.dialect.sqlite.moving import SQLiteMoving

    return SQLiteMoving(backend)


def _sqlite_inspection() -> Inspection:
    from esource.dialect.sqlite.inspection import SQLiteInspection

    return SQLiteInspection()


@cache
def _postgresql(switches: Switches) -> Backend:
    try:
        import asyncpg  # noqa: F401
    except ImportError as error:
        raise MissingDriverError("asyncpg", "postgresql") from error
    from esource.dialect.postgresql.backend import PostgreSQLBackend

    return PostgreSQLBackend(switches)


def _postgresql_moving(backend: Backend) -> Moving:
    from esource.dialect.postgresql.moving import PostgreSQLMoving

    return PostgreSQLMoving(backend)


def _postgresql_inspection() -> Inspection:
    from esource.dialect.postgresql.inspection import PostgreSQLInspection

    return PostgreSQLInspection()


class _Kind(NamedTuple):
    """What is ours of one kind of database."""

    driver: str
    backend: Callable[[Switches], Backend]
    moving: Callable[[Backend], Moving]
    inspection: Callable[[], Inspection]
    checked: Callable[[URL], URL]
    check_text: Callable[[str], None]


_POSTGRESQL = _Kind(
    "asyncpg",
    _postgresql,
    _postgresql_moving,
    _postgresql_inspection,
    postgresql_url.checked,
    postgresql_url.check_text,
)
_KINDS = {
    "sqlite": _Kind(
        "aiosqlite",
        _sqlite,
        _sqlite_moving,
        _sqlite_inspection,
        sqlite_url.checked,
        sqlite_url.check_text,
    ),
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
}
"""The kinds of databases by the first word of their URLs."""


def parse_url(url: str | URL) -> URL:
    """A database URL in its parts.

    A password among the options of a PostgreSQL URL is moved to where nothing shows it.

    Raises:
        InvalidOptionError: it cannot be read. Its text stays out of the message: a password may be in it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidOptionError(
            "the database URL cannot be read: it must look like sqlite:///events.db or "
            "postgresql://user:password@host:5432/database, with special characters in percent-encoding"
        ) from None  # the cause may quote a part of the password
    kind = _KINDS.get(parsed.drivername.partition("+")[0])
    if kind is None:
        return parsed
    if isinstance(url, str):
        kind.check_text(url)
    return kind.checked(parsed)


def in_schema(url: str | URL, schema: str | None) -> URL:
    """A database URL in its parts, which names this schema.

    Raises:
        InvalidOptionError: it cannot be read, or names another one; no schema has such a name; or the database has none.
    """
    parsed = parse_url(url)
    if schema is None:
        return parsed
    named = parsed.query.get("schema", schema)
    if named != schema:
        raise InvalidOptionError(
            f"the URL names the schema {named!r}, and the option {schema!r}: give one of them"
        )
    return parse_url(parsed.set(query={**parsed.query, "schema": check_schema(schema)}))


def backend_for_url(url: URL, switches: Switches = STANDARD) -> Backend:
    """The backend of a database URL, with or without a driver name in it.

    Raises:
        InvalidOptionError: another database, or a driver that is not asynchronous.
        MissingDriverError: the extra with the driver is not installed.
    """
    name, _, driver = url.drivername.partition("+")
    if name not in _KINDS:
        raise InvalidOptionError(
            f"no backend for {url.drivername!r} URLs: use sqlite:///events.db or "
            "postgresql://user@host/database"
        )
    kind = _KINDS[name]
    if driver not in ("", kind.driver):
        raise InvalidOptionError(
            f"the driver for {name} is {kind.driver}, not {driver}: write {name}://… or {name}+{kind.driver}://…"
        )
    return kind.backend(switches)


def backend_for_engine(engine: AsyncEngine, switches: Switches = STANDARD) -> Backend:
    """The backend of an engine that the application made."""
    return backend_for_url(engine.url, switches)


def moving_of(backend: Backend) -> Moving:
    """What moving a whole store asks of a kind of database."""
    return _KINDS[backend.name].moving(backend)


def inspection_of(backend: Backend) -> Inspection:
    """What a kind of database can tell of itself."""
    return _KINDS[backend.name].inspection()
