"""The first read model: what all accounts hold together, kept up to date with the log."""

import asyncio

from sqlalchemy import Column, Integer, MetaData, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from esource import (
    DomainEvent,
    Projection,
    ProjectionContext,
    ProjectionRunner,
    handles,
    open_store,
    register_event,
)

total = Table("total", MetaData(), Column("amount", Integer))


@register_event
class Deposited(DomainEvent):
    amount: int


class Total(Projection):
    async def reset(self, connection: AsyncConnection) -> None:
        await connection.run_sync(total.metadata.drop_all)
        await connection.run_sync(total.metadata.create_all)
        await connection.execute(insert(total).values(amount=0))

    @handles
    async def deposited(self, event: Deposited, context: ProjectionContext) -> None:
        await context.connection.execute(update(total).values(amount=total.c.amount + event.amount))


async def main() -> None:
    async with open_store("sqlite:///events.db") as store:
        await store.initialize()
        await ProjectionRunner(store, Total()).run(live=False)
        async with store.reading() as connection:
            print(await connection.scalar(select(total.c.amount)))


asyncio.run(main())
