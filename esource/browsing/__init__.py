"""Looking through a store page by page: streams, types, checkpoints, dead letters and the outbox.

Every query reads a page by key, and at most a bounded part of a table to find it: the first page of a store
with millions of events is there at once, and so is the next one.
"""

from esource.browsing.followers import (
    MOST_COUNTED,
    CheckpointState,
    OutboxStatus,
    Pending,
    checkpoint_states,
    dead_letters_page,
    outbox_page,
    pending,
)
from esource.browsing.pages import Page, Row
from esource.browsing.streams import (
    StreamSummary,
    aggregate_types,
    event_types,
    newest_streams,
    streams_by_id,
)
from esource.log.pages import last_position

__all__ = [
    "MOST_COUNTED",
    "CheckpointState",
    "OutboxStatus",
    "Page",
    "Pending",
    "Row",
    "StreamSummary",
    "aggregate_types",
    "checkpoint_states",
    "dead_letters_page",
    "event_types",
    "last_position",
    "newest_streams",
    "outbox_page",
    "pending",
    "streams_by_id",
]
