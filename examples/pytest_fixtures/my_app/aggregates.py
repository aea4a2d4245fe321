"""The aggregates of the application under test."""

from pydantic import BaseModel

from esource import AggregateRoot, DomainEvent, register_event


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
    order_id: str
    customer_id: str = ""
    total: float = 0.0
    status: str = "draft"
    tracking_number: str | None = None


class OrderAggregate(AggregateRoot[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState(order_id=str(self.aggregate_id))

    def _apply(self, event: DomainEvent) -> None:
        if isinstance(event, OrderPlaced):
            self._state = OrderState(
                order_id=str(self.aggregate_id),
                customer_id=event.customer_id,
                total=event.total,
                status="placed",
            )
        elif isinstance(event, OrderShipped):
            self._state = self.current.model_copy(
                update={"status": "shipped", "tracking_number": event.tracking_number}
            )

    def place(self, customer_id: str, total: float) -> None:
        if self.version > 0:
            raise ValueError("Order already placed")
        # create_event fills in the aggregate's id and type, and the event's version.
        self.apply_event(self.create_event(OrderPlaced, customer_id=customer_id, total=total))

    def ship(self, tracking_number: str) -> None:
        if not self.state or self.state.status != "placed":
            raise ValueError("Order must be placed to ship")
        self.apply_event(self.create_event(OrderShipped, tracking_number=tracking_number))
