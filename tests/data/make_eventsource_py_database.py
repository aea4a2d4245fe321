"""Writes eventsource-py-0.5.0.db: a database of eventsource-py 0.5.0, as its users have them.

In a virtual environment of its own::

    pip install 'eventsource-py[sqlite]==0.5.0' greenlet
    python tests/data/make_eventsource_py_database.py

Everything goes through that library's own store and repositories, except the outbox rows: its SQLite
outbox puts a UUID into an INTEGER key, which SQLite refuses, so they are written as its schema has them.
Ids and moments are fixed, so that the tests can name them; only created_at is the time of writing.
"""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import aiosqlite
from eventsource import DomainEvent, SQLiteEventStore, register_event
from eventsource.repositories.checkpoint import SQLiteCheckpointRepository
from eventsource.repositories.dlq import SQLiteDLQRepository
from eventsource.snapshots import Snapshot, SQLiteSnapshotStore

FILE = Path(__file__).with_name("eventsource-py-0.5.0.db")
TENANT = UUID("7e000000-0000-4000-8000-000000000001")
ORDERS = [UUID(f"0d000000-0000-4000-8000-00000000000{n}") for n in (1, 2, 3)]
INVOICE = UUID("1f000000-0000-4000-8000-000000000001")
CORRELATION = UUID("c0000000-0000-4000-8000-000000000001")
START = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)


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


@register_event
class InvoiceSent(DomainEvent):
    event_type: str = "InvoiceSent"
    aggregate_type: str = "Invoice"
    order_id: UUID
    due_at: datetime
    lines: list[dict]


def event_id(n: int) -> UUID:
    return UUID(f"e0000000-0000-4000-8000-{n:012d}")


def history() -> list[tuple[UUID, str, list[DomainEvent]]]:
    first, second, third = ORDERS
    placed = OrderPlaced(
        event_id=event_id(1),
        occurred_at=START,
        aggregate_id=first,
        aggregate_version=1,
        tenant_id=TENANT,
        actor_id="anna",
        correlation_id=CORRELATION,
        metadata={"source": "web", "attempt": 1},
        customer_id="customer-1",
        total=99.99,
    )
    shipped = OrderShipped(
        event_id=event_id(2),
        occurred_at=START + timedelta(hours=1),
        aggregate_id=first,
        aggregate_version=2,
        tenant_id=TENANT,
        actor_id="bert",
        correlation_id=CORRELATION,
        causation_id=event_id(1),
        tracking_number="TRACK-1",
    )
    return [
        (first, "Order", [placed, shipped]),
        (
            second,
            "Order",
            [
                OrderPlaced(
                    event_id=event_id(3),
                    # Without a fraction, isoformat() writes none: text of another width.
                    occurred_at=START.replace(microsecond=0),
                    aggregate_id=second,
                    aggregate_version=1,
                    customer_id="größer – 注文",
                    total=0.1,
                )
            ],
        ),
        (
            third,
            "Order",
            [
                OrderPlaced(
                    event_id=event_id(4),
                    occurred_at=START.astimezone(timezone(timedelta(hours=5, minutes=30))),
                    aggregate_id=third,
                    aggregate_version=1,
                    customer_id="9b2d6d7e-7d8a-4c56-9f6f-0a3d6f3f3b11",
                    total=1e20,
                )
            ],
        ),
        (
            INVOICE,
            "Invoice",
            [
                InvoiceSent(
                    event_id=event_id(5),
                    occurred_at=START + timedelta(days=1),
                    aggregate_id=INVOICE,
                    aggregate_version=1,
                    tenant_id=TENANT,
                    order_id=first,
                    due_at=START + timedelta(days=30),
                    lines=[{"sku": "a", "quantity": 2}],
                )
            ],
        ),
    ]


async def main() -> None:
    FILE.unlink(missing_ok=True)
    async with SQLiteEventStore(str(FILE)) as store:
        await store.initialize()
        for aggregate_id, aggregate_type, events in history():
            await store.append_events(aggregate_id, aggregate_type, events, 0)

    state = {"order_id": str(ORDERS[0]), "customer_id": "customer-1", "total": 99.99, "status": "placed"}
    await SQLiteSnapshotStore(str(FILE)).save_snapshot(Snapshot(ORDERS[0], "Order", 1, state, 1, START))

    async with aiosqlite.connect(FILE) as connection:
        checkpoints = SQLiteCheckpointRepository(connection)
        await checkpoints.save_position("OrderList", 4, event_id(4), "OrderPlaced")
        await checkpoints.update_checkpoint("Totals", event_id(2), "OrderShipped")

        letters = SQLiteDLQRepository(connection)
        for number, retries in ((1, 3), (5, 0)):
            # Never raised: a traceback would carry the path of whoever ran this.
            error = ValueError(f"cannot project {number}")
            await letters.add_failed_event(
                event_id(number), "OrderList", "OrderPlaced", {"number": number}, error, retries
            )
        [failed] = [
            entry for entry in await letters.get_failed_events() if str(entry.event_id) == str(event_id(1))
        ]
        await letters.mark_resolved(failed.id, "anna")

        for number, status, published_at in (
            (1, "published", (START + timedelta(minutes=1)).isoformat()),
            (2, "pending", None),
        ):
            [(aggregate_id, event)] = [
                (aggregate_id, event)
                for aggregate_id, _, events in history()
                for event in events
                if event.event_id == event_id(number)
            ]
            await connection.execute(
                "INSERT INTO event_outbox (event_id, event_type, aggregate_id, aggregate_type, tenant_id, "
                "event_data, published_at, status) VALUES (?, ?, ?, 'Order', ?, ?, ?, ?)",
                (
                    str(event.event_id),
                    event.event_type,
                    str(aggregate_id),
                    str(TENANT),
                    json.dumps({"event_id": str(event.event_id), "payload": event.model_dump(mode="json")}),
                    published_at,
                    status,
                ),
            )
        await connection.commit()
        # One small file: no log beside it, and small pages for tables that are nearly empty.
        await connection.execute("PRAGMA journal_mode = DELETE")
        await connection.execute("PRAGMA page_size = 1024")
        await connection.execute("VACUUM")


asyncio.run(main())
