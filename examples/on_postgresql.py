"""The tutorial's order on PostgreSQL. Run with: DATABASE_URL=postgresql://user@host/db python on_postgresql.py"""

import asyncio
import os
from uuid import uuid4

from shop import OrderAggregate

from esource import AggregateRepository, PostgreSQLEventStore, SQLiteEventStore  # noqa: F401


def open_database():
    # On SQLite this line is: return SQLiteEventStore("./orders.db")
    return PostgreSQLEventStore(os.environ["DATABASE_URL"])


async def main():
    order_id = uuid4()

    # First session - create
    async with open_database() as store:
        await store.initialize()
        repo = AggregateRepository(store, OrderAggregate)
        order = repo.create_new(order_id)
        order.place("customer-123", 99.99)
        await repo.save(order)
        print(f"1. Created order: {order_id}")
        print(f"   Version: {order.version}")
        print(f"   Customer: {order.state.customer_id}")
        print(f"   Total: ${order.state.total}")

    # Second session - load and modify
    async with open_database() as store:
        await store.initialize()
        repo = AggregateRepository(store, OrderAggregate)
        loaded = await repo.load(order_id)
        loaded.ship("TRACK-ABC123")
        await repo.save(loaded)
        print("2. Shipped order")
        print(f"   Version: {loaded.version}")
        print(f"   Status: {loaded.state.status}")
        print(f"   Tracking: {loaded.state.tracking_number}")

        verified = await repo.load(order_id)
        print(f"3. Verified order version: {verified.version}")


asyncio.run(main())
