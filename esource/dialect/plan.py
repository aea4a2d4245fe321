"""A batch of appends as a database is given it, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esource.tables.filling import Declared
    from esource.tables.rows import EncodedEvent, StreamId


class Condition(NamedTuple):
    """What an append depends on, beside its stream: see `esource.domain.queries.AppendCondition`."""

    after: int
    items: tuple[tuple[frozenset[str], frozenset[str]], ...]
    """Types and tags of each item; none of either: any will do."""
    streams: tuple[tuple[StreamId, int], ...]
    tenant_id: UUID | None
    """Only this tenant's events are looked at; None: those of all."""


class Matched(NamedTuple):
    """The first event that a condition excludes."""

    position: int
    event_type: str


class Moved(NamedTuple):
    """A stream that is not at the version that a condition says."""

    stream: StreamId
    expected_version: int
    version: int


class Unjudged(NamedTuple):
    """A condition that a transaction cannot judge, because it sees the log as it was when the transaction began."""

    isolation: str


Refusal: TypeAlias = "Matched | Moved | Unjudged | Declared"
"""Of `Declared`: the condition depends on tags that stored events may still lack."""


class StreamWrite(NamedTuple):
    """One stream's part in a batch: what it must look like before its rows are added."""

    stream: StreamId
    expected_version: int
    first_event_id: UUID
    """Looked up when the version does not fit: an append repeated after a lost answer is no conflict."""
    condition: Condition | None = None
    """Judged with the log locked, by what is stored before the batch."""


NOTHING_REFUSED: Mapping[int, Refusal] = {}


class Plan(NamedTuple):
    """A batch of appends, decided as far as it can be without knowing the streams' versions.

    Row ``(stream, step, event)`` becomes version ``step`` past what the stream has.
    """

    streams: list[StreamWrite]
    rows: list[tuple[int, int, EncodedEvent]]
    outbox: bool
    conditional: bool = False
    """Whether any of the streams has a condition."""


class Written(NamedTuple):
    """What became of a plan, stream by stream and row by row."""

    versions: Sequence[int]
    """Each stream's version before the batch; negative for one that is closed, and accepts nothing."""
    accepted: Sequence[bool]
    """Whether the stream was at its expected version, and its condition held; the rows of the others were not written."""
    known: Sequence[bool]
    """For streams that were not: whether the first event id is stored already, or may be."""
    positions: Sequence[int]
    """Global positions of the written rows, in the plan's order."""
    refusals: Mapping[int, Refusal] = NOTHING_REFUSED
    """By stream: why its condition did not hold."""
