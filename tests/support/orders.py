"""The orders that most tests are about."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

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
    order_id: UUID
    customer_id: str = ""
    total: float = 0.0
    status: str = "draft"
    tracking_number: str | None = None


class Order(AggregateRoot[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState(order_id=self.aggregate_id)

    def _apply(self, event: DomainEvent) -> None:
        if isinstance(event, OrderPlaced):
            self._state = OrderState(
                order_id=self.aggregate_id, customer_id=event.customer_id, total=event.total, status="placed"
            )
        elif isinstance(event, OrderShipped):
            self._state = self.current.model_copy(
                update={"status": "shipped", "tracking_number": event.tracking_number}
            )

    def place(self, customer_id: str, total: float) -> None:
        if self.version > 0:
            raise ValueError("Order already placed")
        self.apply_event(self.create_event(OrderPlaced, customer_id=customer_id, total=total))

    def ship(self, tracking_number: str) -> None:
        if not self.state or self.state.status != "placed":
            raise ValueError("Order must be placed to ship")
        self.apply_event(self.create_event(OrderShipped, tracking_number=tracking_number))


def placed(aggregate_id: UUID | None = None, **fields: Any) -> OrderPlaced:
    """An order event with whatever is not said filled in."""
    return OrderPlaced(
        **{"aggregate_id": aggregate_id or uuid4(), "customer_id": "c-1", "total": 1.0, **fields}
    )


def several(count: int, aggregate_id: UUID | None = None, **fields: Any) -> list[OrderPlaced]:
    """So many new events of one order."""
    aggregate_id = aggregate_id or uuid4()
    return [placed(aggregate_id, **fields) for _ in range(count)]
