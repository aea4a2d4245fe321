"""The rows of the log, as they are written and as they are read, and the key of a stream."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple, TypeAlias
from uuid import NAMESPACE_OID, UUID, uuid5


class StreamId(NamedTuple):
    """The key of a stream: always in this order. Its text is the stream's name, ``<id>:<type>``."""

    aggregate_id: UUID
    aggregate_type: str

    def __str__(self) -> str:
        return f"{self.aggregate_id}:{self.aggregate_type}"


class EncodedEvent(NamedTuple):
    """An event as the values of its own columns; the stream and the version come from the append."""

    event_id: UUID
    event_type: str
    tenant_id: UUID | None
    actor_id: str | None
    timestamp: datetime
    payload: str
    tags: str | None = None
    """A sorted JSON array of texts; None if it has none."""

    # `_replace` takes three times as long, and a batch has many.

    def of_tenant(self, tenant_id: UUID) -> EncodedEvent:
        """The same event, as this tenant's."""
        return tuple.__new__(EncodedEvent, (*self[:2], tenant_id, *self[3:]))

    def tagged(self, tags: str | None) -> EncodedEvent:
        """The same event with these tags."""
        return tuple.__new__(EncodedEvent, (*self[:6], tags))


EventRow: TypeAlias = "tuple[int, str, str, str, str, str | None, str | None, int, str, str, str, str | None]"
"""One stored event as the database hands it over, on both databases: all ids and moments are text. The
constants below name its places, which are in the order of the table's columns. It is the driver's own row, because making another one costs time."""

POSITION: Final = 0
EVENT_ID: Final = 1
AGGREGATE_ID: Final = 2
AGGREGATE_TYPE: Final = 3
EVENT_TYPE: Final = 4
TENANT_ID: Final = 5
ACTOR_ID: Final = 6
VERSION: Final = 7
TIMESTAMP: Final = 8
PAYLOAD: Final = 9
STORED_AT: Final = 10
TAGS: Final = 11

CLOUD_EVENT_ATTRIBUTES: Final = {
    "event_id": "id",
    "event_type": "type",
    "timestamp": "time",
    "global_position": "globalposition",
    "version": "aggregateversion",
    "tenant_id": "tenantid",
    "actor_id": "actorid",
    "created_at": "storedat",
    "payload": "data",
    "tags": "tags",
}
"""Columns of an event, and the CloudEvents attributes that hold them; the stream is the ``subject``."""


def id_of(text: str) -> UUID:
    """The id that a column holds; what another program wrote there and is no UUID has one that stands for it."""
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE_OID, text)
