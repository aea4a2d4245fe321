"""A database in a file survives the end of the process."""

import asyncio
import os
from uuid import uuid4

from shop import OrderAggregate

from esource import AggregateRepository, SQLiteEventStore


async def file_based_example():
    """Demonstrate file-based SQLite usage."""
    db_path = "./my_events.db"

    # First session - create and save
    async with SQLiteEventStore(db_path) as store:
        await store.initialize()

        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        order_id = uuid4()
        order = repo.create_new(order_id)
        order.place("customer-456", 149.99)
        await repo.save(order)

        print(f"Created order: {order_id}")
        print(f"Database saved to: {db_path}")

    # Database persists after context manager exits
    print(f"File exists: {os.path.exists(db_path)}")  # True

    # Second session - load persisted data
    async with SQLiteEventStore(db_path) as store:
        await store.initialize()  # Safe to call again (idempotent)

        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        # Load the previously saved order
        loaded = await repo.load(order_id)
        print(f"Loaded from disk: ${loaded.state.total}")


asyncio.run(file_based_example())
