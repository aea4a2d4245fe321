"""Whether one store is in order: what no constraint of the schema can promise, looked at row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Table,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from esource import schema
from esource.codec.codec import Codec
from esource.copying.mirror import counters
from esource.copying.movable import unmovable
from esource.copying.progress import OnProgress, Progress
from esource.copying.rows import EVENTS, MIRRORED, Relation, Row, scan
from esource.copying.tag_index import REMEDY, Told, disagreement
from esource.database.database import Database
from esource.database.sources import Source
from esource.dialect.urls import moving_of
from esource.domain.registry import EventRegistry
from esource.domain.stream_closed import STREAM_CLOSED
from esource.errors import EventDecodeError, UnknownEventTypeError
from esource.privacy.fields import ALL_ERASED
from esource.tables.model import dead_letter_queue, event_outbox, events, projection_checkpoints, snapshots
from esource.tables.rows import EventRow
from esource.tables.statement import Statement
from esource.tables.types import as_text

SHOWN = 20
"""Problems of one kind that are told one by one; the others are counted."""

_one: ColumnElement[int] = literal_column("1")
_earlier = events.alias("earlier")
_same_stream = and_(
    _earlier.c.aggregate_id == events.c.aggregate_id, _earlier.c.aggregate_type == events.c.aggregate_type
)
_limit: BindParameter[int] = bindparam("page")
_stream = as_text(events.c.aggregate_id), events.c.aggregate_type


def _event_of(table: Table) -> ColumnElement[bool]:
    return events.c.event_id == table.c.event_id


_BROKEN_STREAMS = Statement(
    select(*_stream, events.c.version, events.c.global_position)
    .where(
        events.c.version > _one,
        ~exists(
            select(_one).where(
                _same_stream,
                _earlier.c.version == events.c.version - _one,
                _earlier.c.global_position < events.c.global_position,
            )
        ),
        # The tombstone of an archived stream stands alone.
        or_(
            events.c.event_type != literal_column(f"'{STREAM_CLOSED}'"),
            exists(select(_one).where(_same_stream, _earlier.c.version < events.c.version)),
        ),
    )
    .order_by(events.c.global_position)
    .limit(_limit)
)
_CONTINUED_STREAMS = Statement(
    select(*_stream, events.c.version, events.c.global_position)
    .where(
        events.c.event_type == literal_column(f"'{STREAM_CLOSED}'"),
        exists(select(_one).where(_same_stream, _earlier.c.version > events.c.version)),
    )
    .order_by(events.c.global_position)
    .limit(_limit)
)
_UNPUBLISHABLE = Statement(
    select(as_text(event_outbox.c.id), as_text(event_outbox.c.event_id))
    .where(
        event_outbox.c.status != literal_column("'published'"),
        event_outbox.c.event_data.is_(None),
        ~exists(select(_one).where(_event_of(event_outbox))),
    )
    .limit(_limit)
)
_MISPLACED = Statement(
    select(as_text(event_outbox.c.id), event_outbox.c.global_position, events.c.global_position)
    .join(events, _event_of(event_outbox))
    .where(event_outbox.c.global_position != events.c.global_position)
    .limit(_limit)
)
_AHEAD = Statement(
    select(projection_checkpoints.c.projection_name, projection_checkpoints.c.global_position)
    .where(projection_checkpoints.c.global_position > bindparam("last", type_=events.c.global_position.type))
    .limit(_limit)
)
_BEHIND_ITS_EVENT = Statement(
    select(
        projection_checkpoints.c.projection_name,
        projection_checkpoints.c.global_position,
        events.c.global_position,
    )
    .join(events, events.c.event_id == projection_checkpoints.c.last_event_id)
    .where(projection_checkpoints.c.global_position < events.c.global_position)
    .limit(_limit)
)
_SNAPSHOTS_AHEAD = Statement(
    select(as_text(snapshots.c.aggregate_id), snapshots.c.aggregate_type, snapshots.c.version)
    .where(
        snapshots.c.version
        > func.coalesce(
            select(func.max(events.c.version))
            .where(
                events.c.aggregate_id == snapshots.c.aggregate_id,
                events.c.aggregate_type == snapshots.c.aggregate_type,
            )
            .scalar_subquery(),
            literal_column("0"),
        )
    )
    .limit(_limit)
)
_LOST_LETTERS = Statement(
    select(as_text(dead_letter_queue.c.event_id), dead_letter_queue.c.projection_name)
    .where(
        dead_letter_queue.c.status != literal_column("'resolved'"),
        ~exists(select(_one).where(_event_of(dead_letter_queue))),
    )
    .limit(_limit)
)
_LAST_KEYS = {
    relation.name: Statement(select(func.max(relation.key)))
    for relation in (EVENTS, *MIRRORED)
    if relation.name not in ("projection_checkpoints", "event_outbox")
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a store that is not as it should be."""

    check: str
    """Which check found it: one of `Integrity.checks`."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.check}: {self.problem}. {self.remedy}"


@dataclass(slots=True)
class Integrity:
    """What `verify_store` found."""

    database: str
    rows: dict[str, int] = field(default_factory=dict)
    """Rows that were looked at, by table."""
    checks: list[str] = field(default_factory=list)
    """What was checked."""
    findings: list[Finding] = field(default_factory=list)
    more: int = 0
    """Findings beyond those that are listed."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


async def verify_store(
    store: Source, *, registry: EventRegistry | None = None, on_progress: OnProgress | None = None
) -> Integrity:
    """Look at every row of a store, as it is at one moment: nothing is changed.

    Writers go on meanwhile, but not those of a SQLite file without WAL (``wal_mode=False``): they cannot commit while
    it is read, and fail after their ``busy_timeout``. Verify a backup of such a file, if it is written to.

    Checked are: the database's own structure (SQLite); streams without holes, in the order of their versions,
    and nothing behind a stream's end; ids, moments and JSON that can be read; outbox rows whose event exists;
    checkpoints that are not ahead of the log; snapshots that are not ahead of their streams; dead letters whose
    event exists; an index of tags that is that of the events; and counters that hand out no position twice.

    Args:
        store: a store, an engine or a URL, at the newest schema.
        registry: decode every event with its class, too.
        on_progress: called now and then.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    async with schema.whole_store(store, "verifying") as database, database.reading():
        return await _Inspection(database, registry, on_progress or (lambda _: None)).run()


class _Inspection:
    def __init__(self, database: Database, registry: EventRegistry | None, tell: OnProgress) -> None:
        self._database = database
        self._codec = None if registry is None else Codec(registry)
        self._tell = tell
        self._found = Integrity(database.name)

    async def run(self) -> Integrity:
        moving = moving_of(self._database.backend)
        for problem in await self._database.inspect(moving.damage):
            self._add("storage", problem, "Restore a backup, or copy what can be read to a new database")
        await self._counters()
        await self._relations_between_rows()
        await self._values()
        self._found.checks = ["storage", "counters", "streams", "outbox", "checkpoints"]
        self._found.checks += ["snapshots", "dead letters", "values", "tags"]
        if self._codec is not None:
            self._found.checks.append("decoding")
        return self._found

    def _add(self, check: str, problem: str, remedy: str) -> None:
        if sum(finding.check == check for finding in self._found.findings) < SHOWN:
            self._found.findings.append(Finding(check, problem, remedy))
        else:
            self._found.more += 1

    async def _counters(self) -> None:
        handed_out = await counters(self._database, (EVENTS, *MIRRORED))
        for name, statement in _LAST_KEYS.items():
            [(last,)] = await self._database.rows(statement, {})
            if last is not None and name in handed_out and handed_out[name] < last:
                self._add(
                    "counters",
                    f"the next key of {name} is {handed_out[name] + 1}, but {last} is taken",
                    "Set the counter to the last key: the sequence, sqlite_sequence on SQLite, or the row of append_lock='row'",
                )
        [(last,)] = await self._database.rows(_LAST_KEYS[EVENTS.name], {})
        await self._each(
            "checkpoints",
            _AHEAD,
            lambda name, at: (
                f"{name} is at position {at}, the log ends at {max(last or 0, handed_out['events'])}"
            ),
            "Events that come there would be skipped: reset the projection",
            last=max(last or 0, handed_out["events"]),
        )

    async def _relations_between_rows(self) -> None:
        await self._each(
            "streams",
            _BROKEN_STREAMS,
            lambda id_, type_, version, at: (
                f"{type_} {id_} has version {version} at position {at}, and version {version - 1} not before it"
            ),
            "Events are missing: restore them from a backup",
        )
        await self._each(
            "streams",
            _CONTINUED_STREAMS,
            lambda id_, type_, version, at: (
                f"{type_} {id_} goes on after it was closed at version {version}, position {at}"
            ),
            "A program that knows nothing of closed streams has appended",
        )
        await self._each(
            "outbox",
            _UNPUBLISHABLE,
            lambda row, event: f"row {row} is to publish event {event}, which is not in the log",
            "Delete the row, or restore the event",
        )
        await self._each(
            "outbox",
            _MISPLACED,
            lambda row, said, at: f"row {row} says position {said}, its event is at {at}",
            "It would be published out of order: set its global_position",
        )
        await self._each(
            "checkpoints",
            _BEHIND_ITS_EVENT,
            lambda name, at, event: f"{name} is at position {at}, its last event at {event}",
            "Events would be handled again: reset the projection, unless its handlers do not mind",
        )
        await self._each(
            "snapshots",
            _SNAPSHOTS_AHEAD,
            lambda id_, type_, version: f"{type_} {id_} has one at version {version}, past its last event",
            "Delete the snapshot",
        )
        await self._each(
            "dead letters",
            _LOST_LETTERS,
            lambda event, name: f"{name} waits for event {event}, which is not in the log",
            "Resolve the dead letter",
        )

    async def _each(
        self, check: str, statement: Statement, say: Callable[..., str], remedy: str, **values: Any
    ) -> None:
        for row in await self._database.rows(statement, {"page": 1000, **values}):
            self._add(check, say(*row), remedy)

    async def _values(self) -> None:
        told = Told()
        [(total,)] = await self._database.rows(EVENTS.count, {})
        for relation in (EVENTS, *MIRRORED):
            step, of = ("verify", total) if relation is EVENTS else (relation.name, 0)
            done = 0
            async for rows in scan(self._database, relation):
                for row in rows:
                    self._value(relation, row)
                    if relation is EVENTS:
                        told.add_event(row)
                done += len(rows)
                self._tell(Progress(step, done, of))
            self._found.rows[relation.name] = done
        problem = await disagreement(self._database, told)
        if problem is not None:
            self._add("tags", problem, REMEDY)

    def _value(self, relation: Relation, row: Row) -> None:
        problem = unmovable(relation, row)
        if problem is not None:
            self._add(
                "values",
                f"{relation.name}, row {row[relation.key_place]}: {problem[0]} {problem[1]}",
                "Another program wrote it: mend the row",
            )
        elif relation is EVENTS and self._codec is not None:
            try:
                # No key is asked for: the question is whether the event can be read after all keys are destroyed.
                self._codec.decode(cast("EventRow", tuple(row)), ALL_ERASED)
            except UnknownEventTypeError as error:
                self._add(
                    "decoding",
                    f"position {row[relation.key_place]}: no class is registered for event type {error.event_type!r}",
                    f"Put @register_event above {error.forgotten}"
                    if error.forgotten
                    else "Name the module that registers it with --app",
                )
            except EventDecodeError as error:
                self._add(
                    "decoding",
                    f"position {row[relation.key_place]}: {error}",
                    "Mend the class, or write an upcaster",
                )
