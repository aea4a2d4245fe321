"""Readers of the log: a projection that fills a table of sales for SQL, and one that sends mails to customers."""

from __future__ import annotations

from domain import OrderPlaced, OrderShipped
from sqlalchemy import BigInteger, Column, MetaData, Table, Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from esource import Projection, ProjectionContext, Retry, handles

sales = Table(
    "shop_sales",
    MetaData(),
    Column("product", Text, primary_key=True),
    Column("sold", BigInteger, nullable=False),
    Column("cents", BigInteger, nullable=False),
)


class Sales(Projection):
    """How much of each product was sold. Saved with its checkpoint in one transaction: every order counts
    exactly once, whenever this process is killed."""

    async def reset(self, connection: AsyncConnection) -> None:
        await connection.run_sync(lambda sync: sales.drop(sync, checkfirst=True))
        await connection.run_sync(sales.create)

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        row = insert(sales).values(product=event.product, sold=event.quantity, cents=event.cents)
        await context.connection.execute(
            row.on_conflict_do_update(
                index_elements=["product"],
                set_={"sold": sales.c.sold + event.quantity, "cents": sales.c.cents + event.cents},
            )
        )


class Mails(Projection):
    """Tells customers that their parcel is on its way. The mail server does not take every address: such a
    mail becomes a dead letter, and the others go on."""

    progress = "after_event"
    on_failure = "skip"
    retry = Retry(attempts=2, first_seconds=0.01)

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refused = {"PX-3"}

    @handles(OrderShipped)
    async def shipped(self, event: OrderShipped, context: ProjectionContext) -> None:
        if event.parcel in self.refused:
            raise ConnectionError(f"the mail server refuses the mail about {event.parcel}")
        self.sent.append(event.parcel)


async def report(connection: AsyncConnection) -> list[tuple[str, int, int]]:
    """The read model is a table like any other."""
    found = await connection.execute(select(sales).order_by(sales.c.cents.desc()))
    return [(row.product, row.sold, row.cents) for row in found]
