"""A repository loads and saves aggregates, the same on every database."""

import asyncio
from uuid import uuid4

from shop import OrderAggregate

from esource import AggregateRepository, SQLiteEventStore


async def main():
    # Create SQLite event store
    async with SQLiteEventStore("./repositories.db") as store:
        await store.initialize()

        # Create repository
        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        # Create aggregate
        order_id = uuid4()
        order = repo.create_new(order_id)
        order.place(customer_id="cust-789", total=249.99)
        await repo.save(order)

        # Load aggregate
        loaded = await repo.load(order_id)
        print(f"Order status: {loaded.state.status}")


asyncio.run(main())
