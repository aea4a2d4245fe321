"""A customer pays the price that was shown, if it is the price, or was it until ten minutes ago.

An order of several products has a view for each of them, and is one event.
"""

import asyncio
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Annotated

from pydantic import BaseModel

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

PRODUCT = Tag("product")
GRACE = timedelta(minutes=10)


@register_event
class ProductDefined(DomainEvent):
    product_id: Annotated[str, PRODUCT]
    price: int


@register_event
class ProductPriceChanged(DomainEvent):
    product_id: Annotated[str, PRODUCT]
    new_price: int


class Item(BaseModel):
    product_id: str
    price: int


@register_event
class ProductsOrdered(DomainEvent):
    items: list[Item]
    product_ids: Annotated[list[str], PRODUCT]


class RefusedError(Exception):
    """What the rules do not allow."""


class Price(View):
    def __init__(self, product_id: str, now: datetime | None = None) -> None:
        super().__init__(PRODUCT.of(product_id))
        self.product_id = product_id
        self.now = now or datetime.now(timezone.utc)
        self.settled: int | None = None
        """The price of ten minutes ago."""
        self.newer: set[int] = set()
        """Those since then."""

    def set_price(self, price: int, event: DomainEvent) -> None:
        if self.now - event.occurred_at > GRACE:
            self.settled = price
        else:
            self.newer.add(price)

    @handles
    def defined(self, event: ProductDefined) -> None:
        self.set_price(event.price, event)

    @handles
    def changed(self, event: ProductPriceChanged) -> None:
        self.set_price(event.new_price, event)


def order(displayed: Mapping[str, int], *prices: Price) -> ProductsOrdered:
    for price in prices:
        shown = displayed[price.product_id]
        if shown != price.settled and shown not in price.newer:
            raise RefusedError(f'invalid price for product "{price.product_id}"')
    return ProductsOrdered(
        items=[Item(product_id=product_id, price=price) for product_id, price in displayed.items()],
        product_ids=list(displayed),
    )


async def main(store: EventStore) -> None:
    long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    await store.append([ProductDefined(product_id="p1", price=123, occurred_at=long_ago)])
    await store.append([ProductPriceChanged(product_id="p1", new_price=134)])
    await store.append([ProductDefined(product_id="p2", price=321)])

    async def try_to_order(shown: dict[str, int]) -> str:
        try:
            await store.decide(lambda *prices: order(shown, *prices), *map(Price, shown))
        except RefusedError as refused:
            return str(refused)
        return "ordered"

    for shown in ({"p1": 123, "p2": 321}, {"p1": 134}, {"p1": 100}):
        print(f"{shown}: {await try_to_order(shown)}")


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
