"""The rows of the log, as they are written and as they are read."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID


class EncodedEvent(NamedTuple):
    """An event as the values of its own columns; the stream and the version come from the append."""

    event_id: UUID
    event_type: str
    tenant_id: UUID | None
    actor_id: str | None
    timestamp: datetime
    payload: str


EventRow: TypeAlias = "tuple[int, str, str, str, str, str | None, str | None, int, str, str, str]"
"""One stored event as the database hands it over, all ids and moments as text, on both databases:
global_position, event_id, aggregate_id, aggregate_type, event_type, tenant_id, actor_id, version,
timestamp, payload, created_at."""
