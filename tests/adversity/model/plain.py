"""What a store promises, in plain Python: lists and dictionaries, one step after the other, no database.

Every method returns what the store's own method is to return, or raises `Refused` with the names of the errors that
may be raised instead. Positions are places in the log, from 1: databases leave holes, and each its own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from esource import DomainEvent, ExpectedVersion, ReadDirection, ReadOptions

Stream = tuple[UUID, str]


class Refused(Exception):
    def __init__(self, *errors: str) -> None:
        super().__init__(errors)
        self.errors = errors


@dataclass
class Row:
    stream: Stream
    version: int
    event: DomainEvent
    closes: bool = False


@dataclass
class OutboxRow:
    event_id: UUID
    tenant: UUID | None
    status: str = "pending"
    attempts: int = 0


@dataclass
class Letter:
    event_id: UUID
    name: str
    attempts: int
    status: str = "failed"


@dataclass
class Plain:
    log: list[Row] = field(default_factory=list)
    checkpoints: dict[str, list[Any]] = field(default_factory=dict)  # name: [position, event id, how many]
    snapshots: dict[Stream, tuple[int, int, dict[str, Any]]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)

    def fork(self) -> Plain:
        return copy.deepcopy(self)

    def become(self, other: Plain) -> None:
        self.__dict__.update(other.__dict__)

    # -- streams ---------------------------------------------------------------------------------

    def rows(self, stream: Stream) -> list[Row]:
        return [row for row in self.log if row.stream == stream]

    def version(self, stream: Stream, tenant: UUID | None = None) -> int:
        return max((row.version for row in self.rows(stream) if _seen(row, tenant)), default=0)

    def is_closed(self, stream: Stream) -> bool:
        return any(row.closes for row in self.rows(stream))

    def append(
        self,
        stream: Stream,
        events: list[DomainEvent],
        expected: int,
        tenant: UUID | None = None,
        has_outbox: bool = True,
    ) -> tuple[str, int]:
        if tenant is not None:
            if any(event.tenant_id not in (None, tenant) for event in events):
                raise Refused("TenantMismatchError")
            events = [event.model_copy(update={"tenant_id": tenant}) for event in events]
        rows = self.rows(stream)
        version, is_closed = len(rows), self.is_closed(stream)
        if not events:
            return "stored", self.version(stream, tenant)
        if len({event.event_id for event in events}) < len(events):
            raise Refused("DuplicateEventError")
        is_foreign = tenant is not None and bool(rows) and rows[-1].event.tenant_id != tenant
        if is_foreign and expected != ExpectedVersion.NO_STREAM:
            raise Refused("TenantMismatchError")
        if (
            tenant is not None
            and not rows
            and expected not in (ExpectedVersion.NO_STREAM, ExpectedVersion.ANY)
        ):
            raise Refused("OptimisticLockError 0")
        fits = not is_closed and (
            expected in (version, ExpectedVersion.ANY)
            or (expected == ExpectedVersion.STREAM_EXISTS and version > 0)
        )
        conflict = "StreamClosedError" if is_closed else f"OptimisticLockError {version}"
        if is_foreign:
            conflict = "TenantMismatchError"
        stored = {row.event.event_id: row for row in self.log}
        found = [stored.get(event.event_id) for event in events]
        if any(found):
            start = found[0].version if found[0] else 0
            same = all(
                row is not None
                and row.stream == stream
                and row.version == start + step
                and row.event == event.model_copy(update={"aggregate_version": row.version})
                for step, (row, event) in enumerate(zip(found, events, strict=True))
            )
            if same and (expected < 0 or expected == start - 1):
                return "repeated", start + len(events) - 1
            raise Refused("DuplicateEventError", *([] if fits else [conflict]))
        if not fits:
            raise Refused(conflict)
        for step, event in enumerate(events, 1):
            self.log.append(
                Row(stream, version + step, event.model_copy(update={"aggregate_version": version + step}))
            )
            if has_outbox:
                self.outbox.append(OutboxRow(event.event_id, event.tenant_id))
        return "stored", version + len(events)

    def close(
        self, stream: Stream, tombstone: DomainEvent, expected: int, tenant: UUID | None = None
    ) -> tuple[str, int]:
        try:
            result = self.append(stream, [tombstone], expected, tenant)
        except Refused as refused:
            if refused.errors == ("StreamClosedError",):
                return "repeated", self.version(stream, tenant)
            raise
        self.log[-1].closes = True
        return result

    def only_stream(self, aggregate_id: UUID, tenant: UUID | None) -> Stream:
        """The one stream of that id."""
        streams = {row.stream for row in self.log if row.stream[0] == aggregate_id and _seen(row, tenant)}
        if len(streams) > 1:
            raise Refused("InvalidOptionError")
        return streams.pop() if streams else (aggregate_id, "")

    def owns(self, stream: Stream, tenant: UUID | None) -> bool:
        """Whether the stream is one of the tenant's, to which every stream is if it is None."""
        rows = self.rows(stream)
        return tenant is None or (bool(rows) and rows[-1].event.tenant_id == tenant)

    def event(self, event_id: UUID, tenant: UUID | None = None) -> tuple[int, DomainEvent] | None:
        """Place and event of an id."""
        for place, event in self.read(ReadOptions(), None, tenant):
            if event.event_id == event_id:
                return place, event
        return None

    # -- reading ---------------------------------------------------------------------------------

    def read(
        self, options: ReadOptions, stream: Stream | None = None, tenant: UUID | None = None
    ) -> list[tuple[int, DomainEvent]]:
        found = []
        for place, row in enumerate(self.log, 1):
            key = place if stream is None else row.version
            is_past = (
                key > options.from_position
                if options.direction is ReadDirection.FORWARD
                else key < (options.from_position or 10**9)
            )
            event = row.event
            if (
                is_past
                and (stream is None or row.stream == stream)
                and _seen(row, options.tenant_id)
                and _seen(row, tenant)
                and _within(event.occurred_at, options.from_timestamp, options.to_timestamp)
                and (options.event_types is None or event.event_type in options.event_types)
                and (options.aggregate_types is None or row.stream[1] in options.aggregate_types)
            ):
                found.append((place, event))
        if options.direction is ReadDirection.BACKWARD:
            found.reverse()
        return found[: options.limit]

    # -- beside the log --------------------------------------------------------------------------

    def save_position(self, name: str, position: int | None, event_id: UUID) -> bool:
        """Whether that was news; the position is unknown of an event that is not stored."""
        kept = self.checkpoints.get(name)
        if kept is None:
            self.checkpoints[name] = [position, event_id, 1]
            return True
        if kept[0] is None:
            is_news = position is not None or event_id != kept[1]
        else:
            is_news = position is not None and position > kept[0]
        if is_news:
            kept[:] = [position, event_id, kept[2] + 1]
        return is_news

    def save_snapshot(
        self, stream: Stream, version: int, schema: int, state: dict[str, Any], tenant: UUID | None
    ) -> bool:
        if not self.owns(stream, tenant):
            raise Refused("TenantMismatchError")
        kept = self.snapshots.get(stream)
        if kept is not None and kept[0] > version:
            return False
        self.snapshots[stream] = (version, schema, state)
        return True

    def snapshots_of(self, tenant: UUID | None) -> dict[Stream, tuple[int, int, dict[str, Any]]]:
        return {
            stream: kept
            for stream, kept in self.snapshots.items()
            if tenant is None or self.version(stream, tenant) > 0
        }

    def add_letter(self, event_id: UUID, name: str, attempts: int, tenant: UUID | None) -> None:
        if tenant is not None and self.event(event_id, tenant) is None:
            raise Refused("TenantMismatchError")
        for letter in self.letters:
            if (letter.event_id, letter.name) == (event_id, name):
                letter.attempts, letter.status = attempts, "failed"
                return
        self.letters.append(Letter(event_id, name, attempts))

    def letters_of(self, tenant: UUID | None) -> list[Letter]:
        if tenant is None:
            return self.letters
        return [letter for letter in self.letters if self.event(letter.event_id, tenant) is not None]

    def outbox_of(self, tenant: UUID | None, status: str) -> list[OutboxRow]:
        return [row for row in self.outbox if tenant in (None, row.tenant) and row.status == status]


def _seen(row: Row, tenant: UUID | None) -> bool:
    return tenant is None or row.event.tenant_id == tenant


def _within(moment: datetime, first: datetime | None, last: datetime | None) -> bool:
    return (first is None or moment >= first) and (last is None or moment <= last)
