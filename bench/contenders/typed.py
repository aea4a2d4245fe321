"""The typed event and the aggregate of esource, which the raw contenders decode as well."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from bench.contenders.base import AGGREGATE_TYPE, CONTENT
from esource import AggregateRoot, DomainEvent, register_event


@register_event
class LineAdded(DomainEvent):
    aggregate_type: str = AGGREGATE_TYPE
    customer: str
    product: str
    quantity: int
    price: float
    reference: UUID
    note: str


class OrderState(BaseModel):
    lines: int = 0
    total: float = 0.0


class Order(AggregateRoot[OrderState]):
    aggregate_type = AGGREGATE_TYPE

    def _get_initial_state(self) -> OrderState:
        return OrderState()

    def _apply(self, event: DomainEvent) -> None:
        if isinstance(event, LineAdded):
            state = self.current
            self._state = OrderState(lines=state.lines + 1, total=state.total + event.quantity * event.price)

    def add_line(self) -> None:
        self.apply_event(self.create_event(LineAdded, **CONTENT))
