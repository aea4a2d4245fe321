import asyncio
from uuid import UUID, uuid4

from eventsource import AggregateRepository, DeclarativeAggregate, DomainEvent, handles, register_event
from eventsource.stores import SQLiteEventStore
from pydantic import BaseModel


@register_event
class OrderPlaced(DomainEvent):
    event_type: str = "OrderPlaced"
    aggregate_type: str = "Order"
    customer_id: str
    total: float


@register_event
class OrderShipped(DomainEvent):
    event_type: str = "OrderShipped"
    aggregate_type: str = "Order"
    tracking_number: str


class OrderState(BaseModel):
    order_id: UUID
    customer_id: str = ""
    total: float = 0.0
    status: str = "draft"
    tracking_number: str | None = None


class Order(DeclarativeAggregate[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState(order_id=self.aggregate_id)

    @handles(OrderPlaced)
    def _placed(self, event: OrderPlaced) -> None:
        self._state = OrderState(
            order_id=self.aggregate_id, customer_id=event.customer_id, total=event.total, status="placed"
        )

    @handles(OrderShipped)
    def _shipped(self, event: OrderShipped) -> None:
        if self._state:
            self._state = self._state.model_copy(
                update={"status": "shipped", "tracking_number": event.tracking_number}
            )

    def place(self, customer_id: str, total: float) -> None:
        if self.version > 0:
            raise ValueError("Order already placed")
        self.apply_event(
            OrderPlaced(
                aggregate_id=self.aggregate_id,
                customer_id=customer_id,
                total=total,
                aggregate_version=self.get_next_version(),
            )
        )

    def ship(self, tracking_number: str) -> None:
        if not self.state or self.state.status != "placed":
            raise ValueError("Order must be placed to ship")
        self.apply_event(
            OrderShipped(
                aggregate_id=self.aggregate_id,
                tracking_number=tracking_number,
                aggregate_version=self.get_next_version(),
            )
        )


async def main() -> None:
    async with SQLiteEventStore("orders.db") as store:
        await store.initialize()
        orders = AggregateRepository(store, Order, "Order")
        order = orders.create_new(uuid4())
        order.place("customer-123", 99.99)
        await orders.save(order)
        order = await orders.load(order.aggregate_id)
        order.ship("TRACK-ABC123")
        await orders.save(order)
        if order.state:
            print(order.version, order.state.status, order.state.tracking_number)


asyncio.run(main())
