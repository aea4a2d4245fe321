"""What an application gives the commands by name."""

from __future__ import annotations

import asyncio
from typing import Annotated

from esource import DomainEvent, EventRegistry, Projection, ProjectionContext, Retry, Tag, handles
from support.orders import OrderPlaced

seen: dict[str, None] = {}
"""Ids in their order; a batch with a failing event is handled once more, event by event."""
published: list[str] = []


class Seen(Projection):
    on_failure = "skip"

    async def reset(self, connection) -> None:
        seen.clear()

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        if event.customer_id == "bad":
            raise ValueError("a bad customer")
        seen[str(event.event_id)] = None


class Strict(Seen):
    """Ends at the first event that fails."""

    on_failure = "stop"
    retry = Retry(attempts=1)


class Mended(Seen):
    """Can handle what `Seen` could not, and takes its place."""

    name = "Seen"

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        seen[str(event.event_id)] = None


without_classes = EventRegistry()
with_tags = EventRegistry()
"""Has `Booked` as it is by now."""


class Booked(DomainEvent):
    """As it was."""

    room: str


class BookedNow(DomainEvent):
    event_type: str = "Booked"
    room: Annotated[str, Tag("room")]


with_tags.register(BookedNow)


class Broker:
    """Refuses the first message."""

    async def publish(self, entry) -> None:
        published.append(str(entry.event_id))


class Hanging(Strict):
    """Hangs at every event."""

    @handles(OrderPlaced)
    async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
        await asyncio.Event().wait()


class Stuck:
    """Hangs at every message."""

    async def publish(self, entry) -> None:
        await asyncio.Event().wait()
