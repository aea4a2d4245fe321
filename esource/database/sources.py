"""From what an application has (a store, an engine, a session factory, a URL) to a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker

from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.dialect.backend import STANDARD, Switches
from esource.dialect.urls import backend_for_url
from esource.errors import InvalidOptionError


@dataclass(frozen=True, slots=True)
class SourceParts:
    """What stands behind a store, or behind what a store has made."""

    database: Database
    unit: Unit | None = None
    """The open transaction to work in, if it is one."""
    tenant_id: UUID | None = None
    """The tenant that it is bound to, if it is."""
    key_store: Any = None
    """The store's `KeyStore`. That class is above this one, so that it cannot be named here."""


class Opened(Protocol):
    """A store, a store bound to a tenant, or a transaction of one."""

    @property
    def _opened(self) -> SourceParts: ...


class DriverConnection(Protocol):
    """An open `aiosqlite.Connection` that the application lends."""

    @property
    def in_transaction(self) -> bool: ...

    @property
    def row_factory(self) -> Any: ...


Source: TypeAlias = (
    Opened | Database | AsyncEngine | async_sessionmaker[Any] | AsyncConnection | DriverConnection | URL | str
)
"""What names a database: a store (or a transaction of one, where a repository is made), an `AsyncEngine`, an
`async_sessionmaker`, a database URL, an open `AsyncConnection` (where a repository is made), or an open
`aiosqlite.Connection`. What comes without an engine of its own is borrowed, and stays open."""


def parts_of(source: object) -> SourceParts | None:
    """What stands behind a source that is open already; None for an engine, a URL and the like."""
    if isinstance(source, Database):
        return SourceParts(source)
    parts = getattr(source, "_opened", None)
    return parts if isinstance(parts, SourceParts) else None


def database_of(source: Source, switches: Switches = STANDARD) -> Database:
    """The database behind a source. No I/O.

    Raises:
        InvalidOptionError: it is no source, or a single transaction.
    """
    parts = parts_of(source)
    if parts is not None and parts.unit is None:
        return parts.database
    if isinstance(source, AsyncEngine):
        return Database.from_engine(source, switches)
    if isinstance(source, async_sessionmaker):
        engine = source.kw.get("bind")
        if not isinstance(engine, AsyncEngine):
            raise InvalidOptionError("the session factory is not bound to an AsyncEngine")
        return Database.from_engine(engine, switches)
    if isinstance(source, (str, URL)):
        return Database.from_url(source, switches)
    if type(source).__module__.startswith("aiosqlite"):
        url = make_url("sqlite+aiosqlite://")
        return Database(backend_for_url(url), url, driver=source)
    raise InvalidOptionError(
        "expected a store, an AsyncEngine, an async_sessionmaker, a database URL or an open "
        f"aiosqlite.Connection, not {type(source).__name__}"
    )


def require_whole(source: Source, what: str) -> None:
    """For work on the whole log, with the events of all tenants.

    Raises:
        InvalidOptionError: the source is a store bound to a tenant.
    """
    parts = parts_of(source)
    if parts is not None and parts.tenant_id is not None:
        raise InvalidOptionError(
            f"{what} works for all tenants: give it the store itself, not one bound by for_tenant()"
        )


@asynccontextmanager
async def opened_database(source: Source) -> AsyncIterator[Database]:
    """The database behind a source. What was opened for this is closed: an engine gets its connections
    back; a store stays as it was."""
    database = database_of(source)
    parts = parts_of(source)
    try:
        yield database
    finally:
        if parts is None:
            await database.close()
