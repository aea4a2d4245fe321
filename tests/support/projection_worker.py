"""A worker process for the tests that kill: keeps two read models up to date until it is stopped.

Called with the database's URL, the number of partitions and the length of its leases.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

from sqlalchemy import Column, Float, Integer, MetaData, Table, Text, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from esource import Projection, ProjectionContext, ProjectionRunner, handles, open_store
from support.orders import OrderPlaced


class Totals(Projection):
    """Sums and counts, which show an event that was applied twice, and an order, which shows a wrong one."""

    name = "totals"
    batch_size = 7

    def __init__(self, table: str = "totals") -> None:
        self.table = Table(
            table,
            MetaData(),
            Column("order_id", Text, primary_key=True),
            Column("events", Integer),
            Column("total", Float),
            Column("positions", Text),
        )

    async def reset(self, connection: AsyncConnection) -> None:
        await connection.run_sync(lambda sync: self.table.drop(sync, checkfirst=True))
        await connection.run_sync(self.table.create)

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        table, order_id = self.table, str(event.aggregate_id)
        # Two statements with a read between: anybody who works beside us would be seen.
        found = (
            await context.connection.execute(select(table).where(table.c.order_id == order_id))
        ).one_or_none()
        if found is None:
            row = {
                "order_id": order_id,
                "events": 1,
                "total": event.total,
                "positions": f"{context.position}",
            }
            await context.connection.execute(table.insert().values(row))
            return
        await context.connection.execute(
            update(table)
            .where(table.c.order_id == order_id)
            .values(
                events=found.events + 1,
                total=found.total + event.total,
                positions=f"{found.positions} {context.position}",
            )
        )


async def contents(connection: AsyncConnection, table: Table) -> bytes:
    """A read model, byte for byte."""
    rows = (await connection.execute(select(table).order_by(table.c.order_id))).all()
    return repr([tuple(row) for row in rows]).encode()


def stream(number: int) -> UUID:
    return UUID(int=number + 1)


async def work(url: str, partitions: int, lease_seconds: float) -> None:
    options = {"busy_timeout": 30_000, "synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, **options) as store:
        runner = ProjectionRunner(store, Totals(), partitions=partitions, lease_seconds=lease_seconds)
        sys.stdout.write(f"{runner.owner}\n")
        sys.stdout.flush()
        await runner.run()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
