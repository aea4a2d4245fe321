"""
Tutorial 12: SQLite Event Store

Complete example demonstrating SQLite for development and testing.

Prerequisites:
- pip install esource[sqlite]

Run with: python tutorial_12_sqlite.py
"""

import asyncio
import os
from uuid import UUID, uuid4

from pydantic import BaseModel

from esource import (
    AggregateRepository,
    AggregateRoot,
    DomainEvent,
    SQLiteEventStore,
    register_event,
)

# =============================================================================
# Events
# =============================================================================


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


# =============================================================================
# Aggregate
# =============================================================================


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
                order_id=self.aggregate_id,
                customer_id=event.customer_id,
                total=event.total,
                status="placed",
            )
        elif isinstance(event, OrderShipped):
            if self._state:
                self._state = self._state.model_copy(
                    update={
                        "status": "shipped",
                        "tracking_number": event.tracking_number,
                    }
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


# =============================================================================
# Demo Functions
# =============================================================================


async def in_memory_demo():
    """Demonstrate in-memory SQLite for testing."""
    print("=" * 70)
    print("In-Memory SQLite Demo")
    print("=" * 70)

    async with SQLiteEventStore(":memory:", wal_mode=False) as store:
        await store.initialize()

        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        # Create order
        order_id = uuid4()
        order = repo.create_new(order_id)
        order.place("customer-123", 99.99)
        await repo.save(order)

        print(f"\n1. Created order: {order_id}")
        print(f"   Version: {order.version}")
        print(f"   Customer: {order.state.customer_id}")
        print(f"   Total: ${order.state.total}")

        # Load and modify
        loaded = await repo.load(order_id)
        loaded.ship("TRACK-ABC123")
        await repo.save(loaded)

        print(f"\n2. Shipped order")
        print(f"   Version: {loaded.version}")
        print(f"   Status: {loaded.state.status}")
        print(f"   Tracking: {loaded.state.tracking_number}")

        # Verify
        verified = await repo.load(order_id)
        print(f"\n3. Verified order version: {verified.version}")

    print("\n4. Database cleaned up automatically (in-memory)")
    print()


async def file_based_demo():
    """Demonstrate file-based SQLite for development."""
    print("=" * 70)
    print("File-Based SQLite Demo")
    print("=" * 70)

    db_path = "./tutorial_orders.db"

    # First session - create
    async with SQLiteEventStore(db_path, wal_mode=True) as store:
        await store.initialize()

        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        order_id = uuid4()
        order = repo.create_new(order_id)
        order.place("customer-456", 149.99)
        await repo.save(order)

        print(f"\n1. Created order: {order_id}")
        print(f"   Saved to: {db_path}")
        print(f"   File exists: {os.path.exists(db_path)}")

    # Second session - load (simulates restart)
    print("\n2. Reopening database (simulating restart)...")
    async with SQLiteEventStore(db_path, wal_mode=True) as store:
        await store.initialize()

        repo = AggregateRepository(
            event_store=store,
            aggregate_factory=OrderAggregate,
            aggregate_type="Order",
        )

        loaded = await repo.load(order_id)
        print(f"   Loaded order: {loaded.state.customer_id}")
        print(f"   Total: ${loaded.state.total}")
        print(f"   Version: {loaded.version}")

    # Cleanup
    print("\n3. Cleaning up database files...")
    for suffix in ["", "-wal", "-shm"]:
        path = f"{db_path}{suffix}"
        if os.path.exists(path):
            os.remove(path)
            print(f"   Removed: {path}")
    print()


async def configuration_demo():
    """Demonstrate configuration options."""
    print("=" * 70)
    print("Configuration Options Demo")
    print("=" * 70)

    # Default configuration
    print("\n1. Default configuration:")
    async with SQLiteEventStore(":memory:") as store:
        await store.initialize()
        print(f"   Database: {store.database}")
        print(f"   WAL mode: {store.wal_mode}")
        print(f"   Busy timeout: {store.busy_timeout}ms")
        print(f"   Connected: {store.is_connected}")

    # Custom configuration
    print("\n2. Custom configuration:")
    async with SQLiteEventStore(
        ":memory:",
        wal_mode=False,
        busy_timeout=10000,
        enable_tracing=False,
    ) as store:
        await store.initialize()
        print(f"   WAL mode: {store.wal_mode}")
        print(f"   Busy timeout: {store.busy_timeout}ms")

    # Strict UUID detection
    print("\n3. Strict UUID detection:")
    store = SQLiteEventStore.with_strict_uuid_detection(
        database=":memory:",
        uuid_fields={"event_id", "aggregate_id", "tenant_id"},
    )
    async with store:
        await store.initialize()
        print(f"   Using explicit UUID fields only")
    print()


async def main():
    """Run all demos."""
    await in_memory_demo()
    await file_based_demo()
    await configuration_demo()

    print("=" * 70)
    print("Tutorial Complete!")
    print("=" * 70)
    print("\nKey Takeaways:")
    print("- Use :memory: for tests (fast, isolated)")
    print("- Use file-based for development (persistent)")
    print("- WAL mode improves concurrency (file-based only)")
    print("- Schema created with initialize() (idempotent)")
    print("- Migrate to PostgreSQL when scaling up")


if __name__ == "__main__":
    asyncio.run(main())
