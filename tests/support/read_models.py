"""Read models of orders, for the tests of projections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Float, Integer, MetaData, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncConnection

from esource import EventStore, Projection, ProjectionContext, ProjectionRunner, Retry, handles
from support.orders import OrderPlaced, OrderShipped, placed

QUICK = Retry(attempts=3, first_seconds=0.001, longest_seconds=0.01)


def journal_table(name: str = "journal") -> Table:
    """One row per event that was applied, in the order of application: twice is two rows."""
    return Table(
        name,
        MetaData(),
        Column("number", Integer, primary_key=True),
        Column("position", Integer),
        Column("customer", Text),
        Column("total", Float),
    )


class Journal(Projection):
    """Writes every order event down, and fails on those of the customers it is told to."""

    name = "journal"
    retry = QUICK

    def __init__(self) -> None:
        self.table = journal_table(f"journal_{self.version}")
        self.bad: set[str] = set()
        self.calls: list[str] = []

    async def reset(self, connection: AsyncConnection) -> None:
        await connection.run_sync(lambda sync: self.table.drop(sync, checkfirst=True))
        await connection.run_sync(self.table.create)

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        self.calls.append(event.customer_id)
        await context.connection.execute(
            self.table.insert().values(
                position=context.position, customer=event.customer_id, total=event.total
            )
        )
        if event.customer_id in self.bad:
            raise ValueError(f"cannot stand {event.customer_id}")


class Letters(Projection):
    """An effect elsewhere: a list of what was sent."""

    name = "letters"
    progress = "after_event"
    retry = QUICK

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.bad: set[str] = set()

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        if event.customer_id in self.bad:
            raise ValueError(f"no letters to {event.customer_id}")
        self.sent.append(context.position)


async def append(store: EventStore, *customers: str, stream: UUID | None = None) -> list[int]:
    """One order event per customer, each in a stream of its own unless told otherwise; the positions."""
    positions = []
    for customer in customers:
        event = placed(stream, customer_id=customer)
        result = await store.append_events(event.aggregate_id, "Order", [event])
        positions.append(result.global_position)
    return positions


async def ship(store: EventStore, stream: UUID) -> int:
    event = OrderShipped(aggregate_id=stream, tracking_number="t")
    return (await store.append_events(stream, "Order", [event])).global_position


async def rows(store: EventStore, table: Table, *columns: str) -> list[Any]:
    """What a read model holds, in the order in which it was written."""
    async with store.transaction() as transaction:
        query = select(*(table.c[name] for name in columns)).order_by(table.c.number)
        found = (await transaction.connection.execute(query)).all()
    return [row[0] if len(columns) == 1 else tuple(row) for row in found]


async def catch_up(store: EventStore, projection: Projection, **options: Any) -> ProjectionRunner:
    runner = ProjectionRunner(store, projection, **options)
    await runner.run(live=False)
    return runner


@asynccontextmanager
async def running(*runners: ProjectionRunner) -> AsyncIterator[None]:
    """Runners at work, live, until the block ends."""
    tasks = [asyncio.create_task(runner.run()) for runner in runners]
    try:
        yield
    finally:
        for runner in runners:
            runner.stop()
        await asyncio.gather(*tasks)


async def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait until something that others do has happened."""

    async def look() -> None:
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), seconds)
