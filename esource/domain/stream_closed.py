"""Events that esource itself gives a meaning to: every store reads them, whatever its registry knows."""

from __future__ import annotations

from esource.domain.events import DomainEvent

STREAM_CLOSED = "esource.StreamClosed"


class StreamClosed(DomainEvent):
    """The tombstone of a stream: its last event, after which every append is refused.

    `EventStore.close_stream` appends one. Appended by hand, as the last event of an append, it does the
    same: the last word about an aggregate and its end are then one.
    """

    event_type: str = STREAM_CLOSED
    reason: str | None = None
    """Why, for people."""


SYSTEM_EVENTS: dict[str, type[DomainEvent]] = {STREAM_CLOSED: StreamClosed}
"""By stored event type."""
