"""The store and the tables beside it in memory: the same code, on a private in-memory SQLite database."""

from __future__ import annotations

from typing import Any

from esource import schema
from esource.checkpoints import CheckpointRepository
from esource.dead_letters import DLQRepository
from esource.doors import SQLiteEventStore
from esource.events import EventRegistry
from esource.outbox import OutboxRepository
from esource.snapshots import SnapshotStore


class InMemoryEventStore(SQLiteEventStore):
    """An event store that forgets everything when it is closed; made for tests and first steps.

    Ready on first use: neither ``async with`` nor `initialize` is needed, both are allowed.
    """

    def __init__(self, event_registry: EventRegistry | None = None, **options: Any) -> None:
        super().__init__(":memory:", event_registry, **options)
        database = self.__esource_database__
        database.connections.set_option("on_connect", schema.create_script(database))


class InMemoryCheckpointRepository(CheckpointRepository):
    """Checkpoints in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Any = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


class InMemorySnapshotStore(SnapshotStore):
    """Snapshots in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Any = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


class InMemoryDLQRepository(DLQRepository):
    """Dead letters in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Any = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


class InMemoryOutboxRepository(OutboxRepository):
    """An outbox in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Any = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None
