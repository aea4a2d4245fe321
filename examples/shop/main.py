"""A small shop on an event store. `python main.py` on SQLite, `python main.py --postgres` on a real server.

With ``--nats nats://localhost`` the outbox goes to that broker, else to the screen.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any
from uuid import uuid4

from domain import Order, Stock
from readmodel import Mails, Sales, report

from esource import (
    AggregateRepository,
    DLQRepository,
    FastStreamPublisher,
    OutboxRelay,
    ProjectionRunner,
    open_store,
)
from esource.testing import server


class Screen:
    """A publisher for those who have no broker at hand."""

    async def publish(self, entry: Any) -> None:
        print(f"  published {entry.event_type} of {entry.aggregate_type}")


@asynccontextmanager
async def broker(url: str | None) -> AsyncIterator[Any]:
    if url is None:
        yield Screen()
        return
    from faststream.nats import NatsBroker

    async with NatsBroker(url) as nats:
        await nats.start()
        yield FastStreamPublisher(nats, "shop.{aggregate_type}.{event_type}", source="/shop")


async def trade(store: Any) -> None:
    """A day in the shop."""
    stocks, orders = AggregateRepository(store, Stock), AggregateRepository(store, Order)
    shelves = {}
    for product, quantity in (("espresso machine", 3), ("grinder", 10)):
        stock = stocks.create_new(uuid4())
        stock.arrive(product, quantity)
        await stocks.save(stock)
        shelves[product] = stock.aggregate_id
    wishes = [("ada", "grinder", 2, 19_800), ("bob", "espresso machine", 1, 64_900), ("cy", "grinder", 1, 9_900),
              ("dot", "espresso machine", 2, 129_800), ("eve", "espresso machine", 1, 64_900)]  # fmt: skip
    for number, (customer, product, quantity, cents) in enumerate(wishes, start=1):
        stock, order = await stocks.load(shelves[product]), orders.create_new(uuid4())
        try:
            stock.take(quantity)
        except ValueError as error:
            print(f"  {customer} gets nothing: {error}")
            continue
        order.place(customer, product, quantity, cents)
        async with store.transaction():  # both or neither
            await stocks.save(stock)
            await orders.save(order)
        order.ship(f"PX-{number}")
        await orders.save(order)
    print(f"  {await store.get_global_position()} events stored")


async def main(url: str, nats: str | None) -> None:
    async with open_store(url, outbox_enabled=True) as store:
        await store.initialize()
        print("1. Trading")
        await trade(store)

        print("2. The read model, in SQL")
        await ProjectionRunner(store, Sales()).run(live=False)
        async with store.reading() as connection:
            for product, sold, cents in await report(connection):
                print(f"  {product}: {sold} sold for ${cents / 100:.2f}")

        print("3. Mails, one of which fails")
        mails = Mails()
        runner = ProjectionRunner(store, mails)
        await runner.run(live=False)
        print(f"  sent: {', '.join(mails.sent)}")
        for letter in await DLQRepository(store).get_failed_events():
            print(f"  dead letter: {letter.event_type}, {letter.error_message}")
        mails.refused.clear()  # the mail server is mended
        print(f"  retried: {(await runner.retry_dead_letters()).resolved} resolved, sent: {mails.sent[-1]}")

        print("4. The outbox")
        async with broker(nats) as publisher:
            relay = OutboxRelay(store, publisher)
            count = await relay.drain()
        print(f"  {count} published, {(await relay.health()).lag_events} waiting")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="sqlite://", help="a database (default: SQLite in memory)")
    parser.add_argument(
        "--postgres", action="store_true", help="start an embedded PostgreSQL server and use it"
    )
    parser.add_argument("--nats", help="a NATS server for the outbox")
    chosen = parser.parse_args()
    with server.postgres_server() if chosen.postgres else nullcontext(chosen.url) as url:
        asyncio.run(main(url if isinstance(url, str) else url.render_as_string(False), chosen.nats))
