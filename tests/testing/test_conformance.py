"""Our own stores pass the suite that others are offered, on every database."""

from __future__ import annotations

import pytest

from esource import EventStore
from esource.testing import EventStoreConformance


class TestStore(EventStoreConformance):
    @pytest.fixture
    async def event_store(self, store: EventStore) -> EventStore:
        return store


class TestStoreWithOutbox(EventStoreConformance):
    @pytest.fixture
    async def event_store(self, database_url, open_stores) -> EventStore:
        return await open_stores(database_url, outbox_enabled=True)
