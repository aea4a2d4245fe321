"""A command line tool for the same orders: `DATABASE_URL=... python command.py place ada 500`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any
from uuid import UUID, uuid4

from orders import Order, OrderList, listed

from esource import AggregateNotFoundError, AggregateRepository, EventStore, correlated, open_store
from esource.errors import EventSourceError


async def place(store: EventStore, customer: str, cents: int) -> str:
    repository = AggregateRepository(store, Order)
    order = repository.create_new(uuid4())
    order.place(customer, cents)
    await store.wait_for(await repository.save(order), projection=OrderList)
    return f"placed {order.aggregate_id}"


async def pay(store: EventStore, order_id: UUID) -> str:
    repository = AggregateRepository(store, Order)
    order = await repository.load(order_id)
    order.pay()
    await store.wait_for(await repository.save(order), projection=OrderList)
    return f"paid {order_id}"


async def show(store: EventStore, customer: str) -> str:
    async with store.reading() as connection:
        rows = (await connection.execute(listed(None, customer))).all()
    return "\n".join(f"{row.id} {row.cents} {row.state}" for row in rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Place and pay orders, and list them.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("place", help="place an order")
    command.add_argument("customer")
    command.add_argument("cents", type=int)
    command.set_defaults(work=place)
    command = commands.add_parser("pay", help="pay an order")
    command.add_argument("order_id", type=UUID)
    command.set_defaults(work=pay)
    command = commands.add_parser("list", help="list the orders of a customer")
    command.add_argument("customer")
    command.set_defaults(work=show)
    return parser.parse_args()


async def main(work: Any, **options: Any) -> int:
    """Open the store for one command; all its events have one correlation id."""
    try:
        async with open_store(os.environ["DATABASE_URL"]) as store:
            with correlated():
                print(await work(store, **options))
    except AggregateNotFoundError:
        print("there is no such order", file=sys.stderr)
        return 1
    except (ValueError, EventSourceError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(**vars(arguments()))))
