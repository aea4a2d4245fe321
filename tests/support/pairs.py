"""Two databases, and a source with a bit of everything in it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import NamedTuple
from uuid import UUID, uuid4

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventStore,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
)
from esource.repositories.lease import Lease
from support.orders import placed, several


class Pair(NamedTuple):
    """The URLs of two databases, both with our tables and empty."""

    source: str
    target: str


async def fill(store: EventStore) -> list[UUID]:
    """A bit of everything: a log with holes, rows beside it, names and values of all kinds."""
    tenant = uuid4()
    orders = [uuid4() for _ in range(6)]
    for number, order in enumerate(orders):
        events = several(
            number + 1,
            order,
            customer_id=f"é\u2028'\"\\ {number}",
            tenant_id=tenant if number % 2 else None,
            actor_id="me" if number % 3 else None,
            total=0.1 * number,
            metadata={"b": [1, 1.0, -0.0, 10**30, 1e300, None, True], "a": {"z": 1, "é": "\U0001f600"}},
        )
        await store.append_events(order, "Order", events, 0)
    # Positions with holes, the last one given out among them.
    async with store.transaction() as tx:
        await tx.connection.exec_driver_sql("DELETE FROM events WHERE global_position IN (1, 5, 21)")
    outbox = OutboxRepository(store)
    failed, again = placed(orders[0]), placed(orders[1])
    row = await outbox.add_event(failed)
    for _ in range(2):
        await outbox.add_event(again)
    await outbox.mark_failed(row, "no\nway")
    checkpoints = CheckpointRepository(store)
    for name, position in (("b", 3), ("B", 4), ("é", 2), ("a:1", 0), ("A_", 7)):
        await checkpoints.save_position(name, position, uuid4(), "OrderPlaced")
    await Lease(store, "b").acquire()
    letters = DLQRepository(store)
    for number in range(3):
        event = placed(orders[number])
        await letters.add_failed_event(event.event_id, "p", "OrderPlaced", event.to_dict(), ValueError("x"))
    snapshots = SnapshotStore(store)
    for number, order in enumerate(orders):
        await snapshots.save_snapshot(
            Snapshot(
                aggregate_id=order,
                aggregate_type="Order",
                version=number + 1,
                state={"total": 1.50, "lines": [{"n": number}]},
                schema_version=1,
                created_at=datetime.now(timezone.utc),
            )
        )
    await snapshots.delete_snapshot(orders[-1], "Order")
    return orders
