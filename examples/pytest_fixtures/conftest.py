# conftest.py
import pytest_asyncio
from my_app.aggregates import OrderAggregate

from esource import (
    AggregateRepository,
    InMemoryCheckpointRepository,
    SQLiteEventStore,
)


@pytest_asyncio.fixture
async def event_store():
    """Provide fresh in-memory event store for each test."""
    store = SQLiteEventStore(
        database=":memory:",
        wal_mode=False,  # WAL not supported for in-memory
    )
    async with store:
        await store.initialize()
        yield store


@pytest_asyncio.fixture
async def order_repository(event_store):
    """Provide order repository using the event store fixture."""
    return AggregateRepository(
        event_store=event_store,
        aggregate_factory=OrderAggregate,
        aggregate_type="Order",
    )


@pytest_asyncio.fixture
async def checkpoint_repo(event_store):
    """Provide checkpoint repository for projection tests."""
    # A database of its own, in memory; InMemoryCheckpointRepository(event_store) would share the store's.
    return InMemoryCheckpointRepository()
