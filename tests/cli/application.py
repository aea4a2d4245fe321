"""What an application gives the commands by name."""

from __future__ import annotations

from orders import OrderPlaced

from esource import Projection, ProjectionContext, handles

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


class Broker:
    """Refuses the first message."""

    async def publish(self, entry) -> None:
        published.append(str(entry.event_id))
