"""Events about people."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import BaseModel

from esource import DomainEvent, register_event, upcaster
from esource.privacy import Personal


class Address(BaseModel):
    street: str
    town: str


NOWHERE = Address(street="", town="")


@register_event
class Joined(DomainEvent):
    aggregate_type: str = "Member"
    name: Annotated[str, Personal()]
    email: Annotated[str | None, Personal()] = None
    born: Annotated[date, Personal(placeholder=date(1900, 1, 1))] = date(1970, 5, 17)
    notes: Annotated[Any, Personal()] = None
    plan: str = "basic"


@register_event
class Delivered(DomainEvent):
    aggregate_type: str = "Parcel"
    member_id: UUID
    courier_id: int
    address: Annotated[Address, Personal(subject="member_id", placeholder=NOWHERE)]
    signature: Annotated[str, Personal(subject="courier_id", placeholder="?")]
    weight: float = 1.0


@register_event
class Renamed(DomainEvent):
    """Version 1 had a `name`, version 2 has its parts."""

    aggregate_type: str = "Member"
    event_version: int = 2
    first: Annotated[str, Personal()]
    last: Annotated[str, Personal()]

    @upcaster(from_version=1)
    def in_parts(payload):
        first, _, last = payload.pop("name").partition(" ")
        return {**payload, "first": first, "last": last}


def joined(member: UUID | None = None, **fields: Any) -> Joined:
    values = {"name": "Ada Lovelace", "email": "ada@example.org", **fields}
    return Joined(aggregate_id=member or uuid4(), **values)


def delivered(member: UUID, courier: int = 7) -> Delivered:
    return Delivered(
        aggregate_id=uuid4(),
        member_id=member,
        courier_id=courier,
        address=Address(street="Analytical Row 1", town="London"),
        signature="squiggle",
    )


async def append(store, *events: DomainEvent) -> None:
    for event in events:
        await store.append_events(event.aggregate_id, event.aggregate_type, [event])


async def all_events(store) -> list[DomainEvent]:
    return [stored.event async for stored in store.read_all()]


async def every_text(store) -> str:
    """All that the database holds of events, outbox and dead letters, as one text."""
    found = []
    async with store.transaction() as transaction:
        for table in ("events", "event_outbox", "dead_letter_queue", "snapshots"):
            rows = await transaction.connection.exec_driver_sql(f"SELECT * FROM {table}")
            found += [repr(tuple(row)) for row in rows]
    return "\n".join(found)
