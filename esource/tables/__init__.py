"""The table model: five tables, declared once for both databases."""

from esource.tables.model import (
    dead_letter_queue,
    event_outbox,
    events,
    indexes_of,
    metadata,
    projection_checkpoints,
    snapshots,
)

__all__ = [
    "dead_letter_queue",
    "event_outbox",
    "events",
    "indexes_of",
    "metadata",
    "projection_checkpoints",
    "snapshots",
]
