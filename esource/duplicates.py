"""Events that are stored already: an append that came before, repeated, or one that takes another's ids."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from esource.batch import Append, Outcome
from esource.encoding import same_payload
from esource.errors import DuplicateEventError
from esource.streams import AppendResult
from esource.types import to_iso


def earlier_outcome(append: Append, stored: dict[str, Any]) -> Outcome | None:
    """The first result, if these very events are stored at this very place; an error, if others are."""
    found = [stored.get(str(event.event_id)) for event in append.events]
    if not any(found):
        return None
    aggregate_id, aggregate_type = append.stream
    first = found[0]
    for step, (event, row) in enumerate(zip(append.events, found, strict=True)):
        if row is None:
            taken = next(row for row in found if row is not None)
            return DuplicateEventError(UUID(taken[1]), _place(taken))
        same = (
            first is not None
            and row[2] == str(aggregate_id)
            and row[3] == aggregate_type
            and row[7] == first[7] + step
            and row[4] == event.event_type
            and row[5] == (None if event.tenant_id is None else str(event.tenant_id))
            and row[6] == event.actor_id
            and row[8] == to_iso(event.timestamp)
            and same_payload(row[9], event.payload)
        )
        if not same:
            return DuplicateEventError(event.event_id, _place(row))
    last = found[-1]
    assert last is not None
    assert first is not None
    expected = append.expected_version
    if expected >= 0 and first[7] != expected + 1:
        return DuplicateEventError(append.events[0].event_id, _place(first))
    return AppendResult(True, last[7], last[0], idempotent=True)


def _place(row: Any) -> str:
    return f"{row[3]} {row[2]} version {row[7]}, global position {row[0]}"
