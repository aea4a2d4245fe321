"""From what people have (a store, an engine, a session factory, a URL) to a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from esource.database.database import Database
from esource.errors import InvalidOptionError


def require_whole(source: Any, what: str) -> None:
    """For what works on the whole log, whoever's events it holds.

    Raises:
        InvalidOptionError: the source is a store bound to a tenant.
    """
    if getattr(source, "tenant_id", None) is not None:
        raise InvalidOptionError(
            f"{what} works for all tenants: give it the store itself, not one bound by for_tenant()"
        )


@asynccontextmanager
async def opened_database(source: Any) -> AsyncIterator[Database]:
    """The database behind a source. What was opened for this is closed: an engine gets its connections
    back; a store stays as it was."""
    database = Database.of(source)
    try:
        yield database
    finally:
        if database is not getattr(source, "__esource_database__", source):
            await database.close()
