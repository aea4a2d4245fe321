"""What one append may hold: the questions about its events together, asked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from uuid import UUID

from esource.checks import Limits
from esource.domain.events import UNASSIGNED, DomainEvent
from esource.domain.stream_closed import STREAM_CLOSED
from esource.errors import DuplicateEventError, InvalidEventError
from esource.tables.rows import EncodedEvent


def of_aggregate(event: DomainEvent, aggregate_id: UUID) -> DomainEvent:
    """The event with the id of its aggregate, if it names none."""
    if isinstance(event, DomainEvent) and event.aggregate_id == UNASSIGNED:
        return event.model_copy(update={"aggregate_id": aggregate_id})
    return event


def few_enough(events: Sequence[DomainEvent], limit: int) -> Sequence[DomainEvent]:
    """The events, if they are no more than the limit; an iterator is not followed beyond it.

    Raises:
        InvalidEventError: there are more.
    """
    if not isinstance(events, (list, tuple)):
        events = list(islice(events, limit + 1))
    if len(events) > limit:
        raise InvalidEventError(
            "events",
            f"are more than {limit}, the limit of one append",
            remedy="Append them in several steps, or raise Limits.append_events",
        )
    return events


def check_together(encoded: list[EncodedEvent], limits: Limits) -> None:
    """
    Raises:
        InvalidEventError: the events are too much together, or something follows the end of the stream.
        DuplicateEventError: two of them have one id.
    """
    characters = sum(len(event.payload) for event in encoded)
    if characters > limits.append_characters:
        raise InvalidEventError(
            "events",
            f"have {characters} characters of JSON together, the limit is {limits.append_characters}",
            remedy="Append them in several steps, or raise Limits.append_characters",
        )
    seen: set[UUID] = set()
    for event in encoded:
        if event.event_id in seen:
            raise DuplicateEventError(event.event_id, "earlier in the same append")
        seen.add(event.event_id)
    if any(event.event_type == STREAM_CLOSED for event in encoded[:-1]):
        raise InvalidEventError("events", f"{STREAM_CLOSED} has to be the last one: nothing may follow it")
