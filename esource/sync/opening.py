"""Stores that were opened on the asynchronous side: for a URL, or by a directory of logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from os import PathLike
from typing import Any, TypeAlias

from sqlalchemy.engine import URL

from esource.domain.registry import EventRegistry
from esource.store import doors as asynchronous
from esource.store.store import EventStore as AsynchronousStore
from esource.sync.doors import PostgreSQLEventStore, SQLiteEventStore
from esource.sync.driven import unwrapped
from esource.sync.event_store import EventStore
from esource.sync.relay import OutboxRelay
from esource.sync.runner import ProjectionRunner

Follow: TypeAlias = (
    Callable[[EventStore], ProjectionRunner | OutboxRelay] | Callable[[AsynchronousStore], Awaitable[None]]
)
"""What works on one log, from its store: a function that makes a projection runner or a relay; or a coroutine function,
which follows the log on the asynchronous side."""


def opened(store: AsynchronousStore) -> EventStore:
    """The counterpart of a store of the asynchronous side."""
    if isinstance(store, asynchronous.PostgreSQLEventStore):
        return PostgreSQLEventStore._of(store)
    return SQLiteEventStore._of(store)


def following(follow: Follow) -> Any:
    """What makes the runner or relay of a log on the asynchronous side."""
    if iscoroutinefunction(follow) or not callable(follow):
        return follow
    make: Callable[[Any], Any] = follow

    def made(store: AsynchronousStore) -> Any:
        return unwrapped(make(opened(store)))

    return made


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
    store = asynchronous.open_store(url, event_registry, **options)
    if isinstance(store, asynchronous.SQLiteEventStore) and "execution" not in options:
        store = asynchronous.open_store(url, event_registry, **options, execution="caller")
    return opened(store)
