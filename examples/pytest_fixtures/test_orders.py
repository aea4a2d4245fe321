# test_orders.py
from uuid import uuid4

import pytest

from esource import SQLiteEventStore


class TestOrderAggregate:
    @pytest.mark.asyncio
    async def test_create_order(self, order_repository):
        """Test order creation with isolated database."""
        order_id = uuid4()
        order = order_repository.create_new(order_id)
        order.place("customer-123", 99.99)
        await order_repository.save(order)

        assert order.version == 1
        assert order.state.total == 99.99

    @pytest.mark.asyncio
    async def test_load_order(self, order_repository):
        """Test order loading with isolated database."""
        # Create
        order_id = uuid4()
        order = order_repository.create_new(order_id)
        order.place("customer-456", 149.99)
        await order_repository.save(order)

        # Load
        loaded = await order_repository.load(order_id)
        assert loaded.state.customer_id == "customer-456"
        assert loaded.state.total == 149.99

    @pytest.mark.asyncio
    async def test_isolation(self, event_store):
        """Verify each test gets a fresh database."""
        # Check that event store is empty
        count = 0
        async for _ in event_store.read_all():
            count += 1
        assert count == 0  # Fresh database per test


@pytest.mark.asyncio
async def test_checkpoints(checkpoint_repo):
    """Test a projection's progress with isolated checkpoints."""
    assert await checkpoint_repo.get_all_checkpoints() == []

    await checkpoint_repo.save_position("OrderProjection", 1, uuid4(), "OrderPlaced")

    assert await checkpoint_repo.get_position("OrderProjection") == 1


# Each test gets a fresh, isolated database
@pytest.mark.asyncio
async def test_order_creation():
    async with SQLiteEventStore(":memory:") as store:
        await store.initialize()
        # Test here - completely isolated from other tests
        assert await store.get_global_position() == 0
    # No cleanup needed - database disappears automatically
