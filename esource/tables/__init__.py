"""The table model: seven tables, declared once for both databases."""

from esource.tables import append_function as _append_function  # noqa: F401 - it adds the function to the tables
from esource.tables import tag_index as _tag_index  # noqa: F401 - it adds triggers to the tables
from esource.tables.model import (
    dead_letter_queue,
    event_outbox,
    event_tags,
    events,
    indexes_of,
    metadata,
    projection_checkpoints,
    snapshots,
    tag_fillings,
)

__all__ = [
    "dead_letter_queue",
    "event_outbox",
    "event_tags",
    "events",
    "indexes_of",
    "metadata",
    "projection_checkpoints",
    "snapshots",
    "tag_fillings",
]
