"""How long to wait when another writer holds the database."""

import asyncio
import sqlite3
from contextlib import closing
from uuid import uuid4

from shop import OrderPlaced

from esource import SQLiteEventStore
from esource.errors import DatabaseBusyError


async def main():
    # Wait up to 10 seconds for database lock
    patient = SQLiteEventStore("./busy_timeout.db", busy_timeout=10000)
    async with patient:
        await patient.initialize()
        print(f"Patient: {patient.busy_timeout}ms")

    # Short timeout for fast-fail behavior
    hasty = SQLiteEventStore("./busy_timeout.db", busy_timeout=100)
    async with hasty:
        with closing(sqlite3.connect("./busy_timeout.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            order = OrderPlaced(aggregate_id=uuid4(), customer_id="customer-123", total=99.99)
            try:
                await hasty.append_events(order.aggregate_id, "Order", [order])
            except DatabaseBusyError:
                print(f"Hasty: gave up after {hasty.busy_timeout}ms")


asyncio.run(main())
