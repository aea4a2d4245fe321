"""The suite for stores, and the tutorial's complete example, without `async` and `await`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.without_async import module_without_async

import esource.testing
from esource.sync import EventStore, open_store

FOLDER = Path(esource.testing.__file__).parent
module_without_async("esource_sync_conformance_tables", FOLDER / "conformance_tables.py", {})
CONFORMANCE = module_without_async(
    "esource_sync_conformance",
    FOLDER / "conformance.py",
    {"esource.testing.conformance_tables": "esource_sync_conformance_tables"},
)


class TestSynchronousStore(CONFORMANCE.EventStoreConformance):
    @pytest.fixture
    def event_store(self, database_url: str) -> Iterator[EventStore]:
        options = {"synchronous": "NORMAL"} if database_url.startswith("sqlite") else {}
        with open_store(database_url, enable_tracing=False, **options) as store:
            store.initialize()
            yield store


@pytest.mark.slow
class TestSynchronousStoreWithThreads(CONFORMANCE.EventStoreConformance):
    @pytest.fixture
    def event_store(self, sqlite_url: str) -> Iterator[EventStore]:
        with open_store(sqlite_url, execution="thread", synchronous="NORMAL", enable_tracing=False) as store:
            yield store
