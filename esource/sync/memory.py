"""`esource.store.memory` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from typing import Any

from esource.domain.registry import EventRegistry
from esource.store import memory as asynchronous
from esource.sync.doors import SQLiteEventStore


class InMemoryEventStore(SQLiteEventStore):
    """An event store that forgets everything when it is closed; made for tests and first steps.

    Ready on first use: neither ``with`` nor `initialize` is needed, both are allowed.
    """

    _target: asynchronous.InMemoryEventStore

    def __init__(self, event_registry: EventRegistry | None = None, **options: Any) -> None:
        self._hold(asynchronous.InMemoryEventStore, event_registry, **options)
