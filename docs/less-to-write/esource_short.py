import asyncio
from uuid import uuid4

from pydantic import BaseModel

from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    DomainEvent,
    handles,
    open_store,
    register_event,
)


@register_event
class OrderPlaced(DomainEvent):
    customer_id: str
    total: float


@register_event
class OrderShipped(DomainEvent):
    tracking_number: str


class OrderState(BaseModel):
    customer_id: str = ""
    total: float = 0.0
    status: str = "draft"
    tracking_number: str | None = None


class Order(DeclarativeAggregate[OrderState]):
    @handles
    def _placed(self, event: OrderPlaced) -> None:
        self._state = OrderState(customer_id=event.customer_id, total=event.total, status="placed")

    @handles
    def _shipped(self, event: OrderShipped) -> None:
        self.current.status = "shipped"
        self.current.tracking_number = event.tracking_number

    def place(self, customer_id: str, total: float) -> None:
        if self.version > 0:
            raise ValueError("Order already placed")
        self.apply_event(OrderPlaced(customer_id=customer_id, total=total))

    def ship(self, tracking_number: str) -> None:
        if self.current.status != "placed":
            raise ValueError("Order must be placed to ship")
        self.apply_event(OrderShipped(tracking_number=tracking_number))


async def main() -> None:
    async with open_store("sqlite:///orders.db") as store:
        await store.initialize()
        orders = AggregateRepository(store, Order)
        order_id = uuid4()
        await orders.execute_or_create(order_id, Order.place, "customer-123", 99.99)
        await orders.execute(order_id, Order.ship, "TRACK-ABC123")
        order = await orders.load(order_id)
        print(order.version, order.current.status, order.current.tracking_number)


asyncio.run(main())
