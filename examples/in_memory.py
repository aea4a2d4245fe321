"""A database that exists only while the store is open."""

import asyncio
from uuid import uuid4

from pydantic import BaseModel

from esource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    SQLiteEventStore,
    register_event,
)


@register_event
class OrderPlaced(DomainEvent):
    event_type: str = "OrderPlaced"
    aggregate_type: str = "Order"
    customer_id: str
    total: float


class OrderState(BaseModel):
    order_id: str
    customer_id: str = ""
    total: float = 0.0
    status: str = "draft"


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

    def place(self, customer_id: str, total: float) -> None:
        event = OrderPlaced(
            aggregate_id=self.aggregate_id,
            customer_id=customer_id,
            total=total,
            aggregate_version=self.get_next_version(),
        )
        self.apply_event(event)


async def in_memory_example():
    """Demonstrate in-memory SQLite usage."""
    # Create in-memory store - exists only while connection is open
    store = SQLiteEventStore(":memory:")

    # Use async context manager for proper lifecycle
    async with store:
        # Initialize creates the schema
        await store.initialize()

        # Create repository
        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        # Create and save an order
        order_id = uuid4()
        order = repo.create_new(order_id)
        order.place(customer_id="customer-123", total=99.99)
        await repo.save(order)

        print(f"Order created: {order_id}")
        print(f"Version: {order.version}")

        # Load it back
        loaded = await repo.load(order_id)
        print(f"Loaded: {loaded.state.customer_id} - ${loaded.state.total}")

    # After exiting context, database is gone
    print("Database automatically cleaned up")


asyncio.run(in_memory_example())
