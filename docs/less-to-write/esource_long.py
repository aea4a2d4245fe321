import asyncio
from uuid import UUID, uuid4

from pydantic import BaseModel

from esource import AggregateRepository, AggregateRoot, DomainEvent, SQLiteEventStore, register_event


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


class OrderAggregate(AggregateRoot[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState(order_id=self.aggregate_id)

    def _apply(self, event: DomainEvent) -> None:
        if isinstance(event, OrderPlaced):
            self._state = OrderState(
                order_id=self.aggregate_id, customer_id=event.customer_id, total=event.total, status="placed"
            )
        elif isinstance(event, OrderShipped) and self._state:
            self._state = self._state.model_copy(
                update={"status": "shipped", "tracking_number": event.tracking_number}
            )

    def place(self, customer_id: str, total: float) -> None:
        if self.version > 0:
            raise ValueError("Order already placed")
        event = OrderPlaced(
            aggregate_id=self.aggregate_id,
            customer_id=customer_id,
            total=total,
            aggregate_version=self.get_next_version(),
        )
        self.apply_event(event)

    def ship(self, tracking_number: str) -> None:
        if not self.state or self.state.status != "placed":
            raise ValueError("Order must be placed to ship")
        event = OrderShipped(
            aggregate_id=self.aggregate_id,
            tracking_number=tracking_number,
            aggregate_version=self.get_next_version(),
        )
        self.apply_event(event)


async def main() -> None:
    async with SQLiteEventStore("orders.db") as store:
        await store.initialize()
        orders = AggregateRepository(
            event_store=store, aggregate_factory=OrderAggregate, aggregate_type="Order"
        )
        order = orders.create_new(uuid4())
        order.place("customer-123", 99.99)
        await orders.save(order)
        order = await orders.load(order.aggregate_id)
        order.ship("TRACK-ABC123")
        await orders.save(order)
        if order.state:
            print(order.version, order.state.status, order.state.tracking_number)


asyncio.run(main())
