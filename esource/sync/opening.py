"""The one line that changes when a program without an event loop moves to a server."""

from __future__ import annotations

from os import PathLike
from typing import Any

from sqlalchemy.engine import URL

from esource.domain.registry import EventRegistry
from esource.store import doors as asynchronous
from esource.sync.doors import PostgreSQLEventStore, SQLiteEventStore
from esource.sync.driven import unwrapped
from esource.sync.event_store import EventStore


def open_store(
    url: str | URL | PathLike[str], event_registry: EventRegistry | None = None, **options: Any
) -> EventStore:
    """The store for a database URL, as `esource.open_store` opens it. No I/O.

    On SQLite it works in the caller's thread, unless ``execution="thread"`` says otherwise.

    Raises:
        InvalidOptionError: a URL of another kind of database.
        MissingDriverError: the extra with the driver is not installed.
    """
    options = {name: unwrapped(value) for name, value in options.items()}
    opened = asynchronous.open_store(url, event_registry, **options)
    if isinstance(opened, asynchronous.PostgreSQLEventStore):
        return PostgreSQLEventStore._of(opened)
    if "execution" not in options:
        opened = asynchronous.open_store(url, event_registry, **options, execution="caller")
    return SQLiteEventStore._of(opened)
