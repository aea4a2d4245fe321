"""A batch of appends as a database is given it, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from esource.tables.rows import EncodedEvent, StreamId


class StreamWrite(NamedTuple):
    """One stream's part in a batch: what it must look like before its rows are added."""

    stream: StreamId
    expected_version: int
    first_event_id: UUID
    """Looked up when the version does not fit: an append repeated after a lost answer is no conflict."""


class Plan(NamedTuple):
    """A batch of appends, decided as far as it can be without knowing the streams' versions.

    Row ``(stream, step, event)`` becomes version ``step`` past what the stream has.
    """

    streams: list[StreamWrite]
    rows: list[tuple[int, int, EncodedEvent]]
    outbox: bool


class Written(NamedTuple):
    """What became of a plan, stream by stream and row by row."""

    versions: Sequence[int]
    """Each stream's version before the batch; negative for one that is closed, and accepts nothing."""
    accepted: Sequence[bool]
    """Whether the stream was at its expected version; the rows of the others were not written."""
    known: Sequence[bool]
    """For streams that were not: whether the first event id is stored already."""
    positions: Sequence[int]
    """Global positions of the written rows, in the plan's order."""
