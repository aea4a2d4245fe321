"""Which values of an event without declared types become UUIDs when it is read.

A field declared in the event's class is decoded by its declared type, always. The options below are for
what no type is declared for: here, an event that is read without its class.
"""

import asyncio
from uuid import UUID, uuid4

from esource import DomainEvent, EventRegistry, SQLiteEventStore, register_event


@register_event
class PaymentTaken(DomainEvent):
    aggregate_type: str = "Payment"
    user_id: UUID
    reference: UUID
    stripe_customer_id: str


async def read_without_class(store, title):
    """Print the types that the fields have when no class declares them."""
    async with store:
        async for stored in store.read_all():
            print(title)
            for field in ("user_id", "reference", "stripe_customer_id"):
                print(f"  {field}: {type(getattr(stored.event, field)).__name__}")


async def main():
    async with SQLiteEventStore("./uuid_fields.db") as store:
        await store.initialize()
        event = PaymentTaken(
            aggregate_id=uuid4(), user_id=uuid4(), reference=uuid4(), stripe_customer_id=str(uuid4())
        )
        await store.append_events(event.aggregate_id, "Payment", [event])

    untyped = {"event_registry": EventRegistry(), "unknown_events": "untyped"}

    # Default: auto-detect fields ending in '_id'
    store = SQLiteEventStore("./uuid_fields.db", **untyped)
    await read_without_class(store, "Default")

    # Add custom UUID fields
    store = SQLiteEventStore(
        "./uuid_fields.db",
        uuid_fields={"parent_id", "reference"},
        **untyped,
    )
    await read_without_class(store, "With uuid_fields")

    # Exclude string IDs from auto-detection
    store = SQLiteEventStore(
        "./uuid_fields.db",
        string_id_fields={"stripe_customer_id", "external_api_id"},
        **untyped,
    )
    await read_without_class(store, "With string_id_fields")

    # Strict mode: only explicit UUID fields
    store = SQLiteEventStore.with_strict_uuid_detection(
        database="./uuid_fields.db",
        uuid_fields={"event_id", "aggregate_id", "tenant_id"},
        **untyped,
    )
    await read_without_class(store, "Strict")


asyncio.run(main())
