"""Taking closed streams out of the log, into files, and back.

`archive` writes the events of closed streams to a file, reads the file back, and only then deletes them, one
stream a transaction. A stream's end, the `StreamClosed` event, stays where it is: no append can begin the stream
anew, and `restore` knows where the others belong. Whenever this is killed, every event is in the log, or in a
file that is complete and on the disk, or both; `remove` goes on with such a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, bindparam, delete, exists, func, literal_column, select

from esource import schema
from esource.copying.export import SOURCE, File, name_of
from esource.copying.files import RowsReader, RowsWriter, opened, path_of, written
from esource.copying.mirror import load
from esource.copying.rows import EVENTS, Row, neutral
from esource.copying.tagging import take_back
from esource.database.database import Database
from esource.database.sources import Source
from esource.domain.stream_closed import STREAM_CLOSED
from esource.errors import ArchiveRefusedError, FileRefusedError
from esource.log.filling import filled_now
from esource.log.pages import NEWEST_OUTBOX_ROW
from esource.log.tenants import may_read
from esource.tables.model import dead_letter_queue, event_outbox, events, projection_checkpoints, snapshots
from esource.tables.rows import (
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_TYPE,
    POSITION,
    TENANT_ID,
    VERSION,
    StreamId,
)
from esource.tables.statement import Statement
from esource.tables.types import Timestamp, as_text

HOLDS = "closed streams"
"""What the first line of an archive says that it holds."""

_one: ColumnElement[int] = literal_column("1")


def _in_stream(table: Table) -> ColumnElement[bool]:
    return and_(
        table.c.aggregate_id == bindparam("aggregate_id", type_=table.c.aggregate_id.type),
        table.c.aggregate_type == bindparam("aggregate_type", type_=table.c.aggregate_type.type),
    )


_of_stream = _in_stream(events)

_earlier = events.alias("earlier")
_ENDS = Statement(
    select(events.c.global_position, as_text(events.c.aggregate_id), events.c.aggregate_type)
    .where(
        events.c.event_type == literal_column(f"'{STREAM_CLOSED}'"),
        events.c.global_position > bindparam("after", type_=events.c.global_position.type),
        events.c.created_at < bindparam("before", type_=Timestamp()),
        exists(
            select(_one).where(
                _earlier.c.aggregate_id == events.c.aggregate_id,
                _earlier.c.aggregate_type == events.c.aggregate_type,
                _earlier.c.version < events.c.version,
            )
        ),
    )
    .order_by(events.c.global_position)
    .limit(bindparam("page"))
)
_STREAM = Statement(
    select(*(neutral(events.c[name]) for name in EVENTS.columns(with_key=True)))
    .where(_of_stream, events.c.version > bindparam("after_version", type_=events.c.version.type))
    .order_by(events.c.version)
    .limit(bindparam("page"))
)
_FORGET = Statement(
    delete(events).where(_of_stream, events.c.version < bindparam("end", type_=events.c.version.type))
)
_FORGET_SNAPSHOT = Statement(delete(snapshots).where(_in_stream(snapshots)))
_FORGET_PUBLISHED = Statement(
    delete(event_outbox).where(
        _in_stream(event_outbox),
        event_outbox.c.status == literal_column("'published'"),
        event_outbox.c.id.not_in(NEWEST_OUTBOX_ROW),
    )
)
_UNPUBLISHED = Statement(
    select(func.count())
    .select_from(event_outbox)
    .where(
        _in_stream(event_outbox),
        event_outbox.c.status != literal_column("'published'"),
        exists(
            select(_one).where(_of_stream, events.c.tenant_id.is_not_distinct_from(event_outbox.c.tenant_id))
        ),
    )
)
_LETTERS = Statement(
    select(func.min(dead_letter_queue.c.projection_name))
    .join(events, events.c.event_id == dead_letter_queue.c.event_id)
    .where(_of_stream, dead_letter_queue.c.status != literal_column("'resolved'"))
)
_BEHIND = Statement(
    select(projection_checkpoints.c.projection_name, projection_checkpoints.c.global_position)
    .where(projection_checkpoints.c.global_position < bindparam("end", type_=events.c.global_position.type))
    .order_by(projection_checkpoints.c.global_position)
)

PAGE = 1000


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """What was archived, removed or restored."""

    database: str
    file: str
    streams: int
    events: int
    """Events that were written, removed or restored."""


async def archive(
    store: Source,
    file: File,
    *,
    streams: Iterable[tuple[UUID, str]] | None = None,
    closed_before: datetime | None = None,
    keep: bool = False,
    ignore_projections: Collection[str] = (),
    source: str = SOURCE,
) -> ArchiveResult:
    """Move the events of closed streams from the log to a file of JSON Lines.

    Their snapshots, and their outbox rows that are published, go without a trace. Projections that are rebuilt
    afterwards do not see the events any more. Where there is nothing to archive no file is made.

    Args:
        store: a store, an engine or a URL.
        file: what to write, a name; compressed if it ends in ``.gz`` or ``.zst``.
        streams: pairs of aggregate id and type; every closed stream if None.
        closed_before: only streams that were closed before this moment.
        keep: only write the file; `remove` takes the events out of the log later.
        ignore_projections: checkpoints that need not have come past the streams: of projections that are gone,
            or that handle none of these events.
        source: the CloudEvents ``source``.

    Raises:
        ArchiveRefusedError: a stream is not closed, or its events are still needed: by the outbox, by a dead
            letter, or by a projection that has not come so far. Nothing was written or deleted.
        InvalidOptionError: the file is there already or cannot be made.
        InvalidEventError: a row that another program wrote is none of ours.
    """
    file = path_of(file)  # no open file: it is read again before anything is deleted
    chosen = None if streams is None else [StreamId(*stream) for stream in streams]
    count = 0
    async with schema.whole_store(store, "an archive") as database:
        async with aclosing(_closed(database, chosen, closed_before)) as found:
            if await anext(found, None) is None:
                return ArchiveResult(database.name, name_of(file), 0, 0)
        async with written(file) as opened_file, database.reading():
            header = {"holds": HOLDS, "schema": schema.HEAD, "database": database.backend.name}
            writer = RowsWriter(opened_file, {**header, "filled": await filled_now(database)}, source)
            async for stream in _closed(database, chosen, closed_before):
                await _require_removable(database, stream, ignore_projections)
                async for rows in _pages(database, stream):
                    await asyncio.to_thread(writer.rows, EVENTS, rows)
                count += 1
            writer.end()
        moved = max(0, writer.counts[EVENTS.name] - count)
        result = ArchiveResult(database.name, name_of(file), count, moved)
        if not keep:
            await remove(database, file, ignore_projections=ignore_projections)
        return result


async def remove(
    store: Source, file: str | Path, *, ignore_projections: Collection[str] = ()
) -> ArchiveResult:
    """Delete from the log what an archive holds, all but the streams' ends; again, after it was ended.

    Raises:
        FileRefusedError: the file is not an archive, is not complete, or holds something else than the log.
        ArchiveRefusedError: as for `archive`; what was deleted before stays deleted.
    """

    async def act(database: Database, stream: StreamId, rows: list[Row]) -> int:
        here = await _in_log(database, stream)
        if _same(here, rows[-1:]):
            return 0
        if not _same(here, rows):
            raise FileRefusedError(
                str(file), f"the log holds something else of {_said(stream)}: nothing was deleted"
            )
        await _require_removable(database, stream, ignore_projections)
        await database.write(_FORGET, {**stream._asdict(), "end": rows[-1][VERSION]})
        await database.write(_FORGET_SNAPSHOT, stream._asdict())
        await database.write(_FORGET_PUBLISHED, stream._asdict())
        return len(rows) - 1

    return await _each_stream(store, "removing archived streams", file, act)


async def restore(store: Source, file: str | Path) -> ArchiveResult:
    """Put back into the log what `archive` took out of it, each event where it was; again, after it was ended.

    The streams stay closed. If tags of these types were filled since (`esource.copying.fill_tags`), queries over these tags are refused
    until it has looked at these events, too.

    Raises:
        FileRefusedError: the file is not an archive, is not complete, or its streams are not this store's.
    """

    with opened(path_of(file)) as reader:
        filled = reader.header.get("filled") or []

    async def act(database: Database, stream: StreamId, rows: list[Row]) -> int:
        here = await _in_log(database, stream)
        if _same(here, rows):
            return 0
        if not _same(here, rows[-1:]):
            raise FileRefusedError(
                str(file), f"the log does not hold the end of {_said(stream)}, or holds more of it"
            )
        unit = database.current_unit()
        assert unit is not None
        await load(database, unit, EVENTS, rows[:-1], with_key=True)
        await take_back(database, unit, rows, filled)
        return len(rows) - 1

    return await _each_stream(store, "restoring archived streams", file, act)


def _said(stream: StreamId) -> str:
    return f"{stream.aggregate_type} {stream.aggregate_id}"


async def _each_stream(
    store: Source, what: str, file: str | Path, act: Callable[[Database, StreamId, list[Row]], Awaitable[int]]
) -> ArchiveResult:
    """Do something with each stream of a file, in a transaction of its own, after all of it was read once."""
    path = path_of(file)
    streams = changed = 0
    async with schema.whole_store(store, what) as database:
        async with aclosing(_streams_of(path)) as found:
            async for _ in found:
                pass
        async with aclosing(_streams_of(path)) as found:
            async for stream, rows in found:
                async with database.transaction():
                    changed += await act(database, stream, rows)
                streams += 1
        return ArchiveResult(database.name, str(path), streams, changed)


async def _streams_of(path: Path) -> AsyncGenerator[tuple[StreamId, list[Row]], None]:
    with opened(path) as reader:
        _require_archive(reader, path)
        stream: StreamId | None = None
        rows: list[Row] = []
        batches = reader.batches()
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            for relation, row in batch:
                if relation is not EVENTS:
                    raise FileRefusedError(str(path), f"a row of {relation.name} is no part of an archive")
                of = StreamId(UUID(row[AGGREGATE_ID]), row[AGGREGATE_TYPE])
                if stream is not None and of != stream:
                    yield stream, _closed_rows(path, stream, rows)
                    rows = []
                stream = of
                rows.append(row)
        if stream is not None:
            yield stream, _closed_rows(path, stream, rows)


def _require_archive(reader: RowsReader, path: Path) -> None:
    if reader.header.get("holds") != HOLDS:
        raise FileRefusedError(str(path), "this is no archive of closed streams. Is it an export?")


def _closed_rows(path: Path, stream: StreamId, rows: list[Row]) -> list[Row]:
    if rows[-1][EVENT_TYPE] != STREAM_CLOSED:
        raise FileRefusedError(str(path), f"{_said(stream)} does not end with {STREAM_CLOSED}")
    return rows


async def _closed(
    database: Database, chosen: list[StreamId] | None, closed_before: datetime | None
) -> AsyncGenerator[StreamId, None]:
    if chosen is not None:
        for stream in dict.fromkeys(chosen):
            rows = await _in_log(database, stream)
            if not rows or rows[-1][EVENT_TYPE] != STREAM_CLOSED:
                raise ArchiveRefusedError(stream.aggregate_type, stream.aggregate_id, "it is not closed")
            if len(rows) > 1:
                yield stream
        return
    values: dict[str, Any] = {"after": 0, "page": PAGE, "before": closed_before or _END_OF_TIME}
    while ends := await database.rows(_ENDS, values):
        for _, aggregate_id, aggregate_type in ends:
            yield StreamId(UUID(aggregate_id), aggregate_type)
        values["after"] = ends[-1][0]


_END_OF_TIME = datetime.fromisoformat("9999-12-31T00:00:00+00:00")


async def _pages(database: Database, stream: StreamId) -> AsyncIterator[list[Row]]:
    after = 0
    while rows := await database.rows(_STREAM, {**stream._asdict(), "after_version": after, "page": PAGE}):
        yield rows
        after = rows[-1][VERSION]


async def _in_log(database: Database, stream: StreamId) -> list[Row]:
    return [row async for rows in _pages(database, stream) for row in rows]


def _same(ours: list[Row], theirs: list[Row]) -> bool:
    return [EVENTS.canonical(row) for row in ours] == [EVENTS.canonical(row) for row in theirs]


async def _require_removable(database: Database, stream: StreamId, ignored: Collection[str]) -> None:
    def refused(why: str) -> ArchiveRefusedError:
        return ArchiveRefusedError(stream.aggregate_type, stream.aggregate_id, why)

    [(waiting,)] = await database.rows(_UNPUBLISHED, stream._asdict())
    if waiting:
        raise refused(f"{waiting} of its outbox rows are not published. Let the relay run first")
    [(name,)] = await database.rows(_LETTERS, stream._asdict())
    if name is not None:
        raise refused(f"{name} has a dead letter of it. Retry or resolve it first")
    rows = await _in_log(database, stream)
    for name, position in await database.rows(_BEHIND, {"end": rows[-1][POSITION]}):
        if name not in ignored and may_read(name, {row[TENANT_ID] for row in rows}):
            raise refused(
                f"{name} is at position {position}, and the stream ends at {rows[-1][POSITION]}. Let it catch "
                "up, or name it in ignore_projections (--ignore-projection)"
            )
