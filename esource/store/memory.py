"""The store and the tables beside it in memory: the same code, on a private in-memory SQLite database."""

from __future__ import annotations

from typing import Any

from esource import schema
from esource.domain.registry import EventRegistry
from esource.store.doors import SQLiteEventStore


class InMemoryEventStore(SQLiteEventStore):
    """An event store that forgets everything when it is closed; made for tests and first steps.

    Ready on first use: neither ``async with`` nor `initialize` is needed, both are allowed.
    """

    def __init__(self, event_registry: EventRegistry | None = None, **options: Any) -> None:
        super().__init__(":memory:", event_registry, **options)
        database = self._database
        database.connections.set_option("on_connect", schema.create_script(database))
