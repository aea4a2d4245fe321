"""What all the applications in this folder are about: orders, and what each customer has paid. Nothing here knows the web."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, Uuid, insert, select, update

from esource import DeclarativeAggregate, DomainEvent, Projection, ProjectionContext, handles, register_event


@register_event
class OrderPlaced(DomainEvent):
    aggregate_type: str = "Order"
    customer: str
    cents: int


@register_event
class OrderPaid(DomainEvent):
    aggregate_type: str = "Order"


class OrderState(BaseModel):
    is_paid: bool = False


class Order(DeclarativeAggregate[OrderState]):
    aggregate_type = "Order"

    def _get_initial_state(self) -> OrderState:
        return OrderState()

    def place(self, customer: str, cents: int) -> None:
        self.apply_event(self.create_event(OrderPlaced, customer=customer, cents=cents))

    def pay(self) -> None:
        if self.current.is_paid:
            raise ValueError("the order is paid already")
        self.apply_event(self.create_event(OrderPaid))

    @handles(OrderPlaced)
    def _placed(self, event: OrderPlaced) -> None:
        self._state = OrderState()

    @handles(OrderPaid)
    def _paid(self, event: OrderPaid) -> None:
        self._state = OrderState(is_paid=True)


orders = Table(
    "orders",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("tenant", Uuid),
    Column("customer", String),
    Column("cents", Integer),
    Column("state", String),
    Column("correlation", Uuid),
)


class OrderList(Projection):
    """The read model: one row for each order."""

    async def reset(self, connection: Any) -> None:
        await connection.run_sync(lambda sync: orders.drop(sync, checkfirst=True))
        await connection.run_sync(orders.create)

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        row = {
            "id": event.aggregate_id,
            "tenant": event.tenant_id,
            "customer": event.customer,
            "cents": event.cents,
            "state": "placed",
            "correlation": event.correlation_id,
        }
        await context.connection.execute(insert(orders).values(row))

    @handles(OrderPaid)
    async def paid(self, event: OrderPaid, context: ProjectionContext) -> None:
        row = update(orders).where(orders.c.id == event.aggregate_id).values(state="paid")
        await context.connection.execute(row)


def listed(tenant: Any, customer: str) -> Any:
    """The orders of a customer, as a query: the same for every framework."""
    own = orders.c.tenant.is_(None) if tenant is None else orders.c.tenant == tenant
    return select(orders).where(own, orders.c.customer == customer).order_by(orders.c.id)
