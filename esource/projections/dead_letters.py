"""Events that a projection gave up on: recording them, holding their streams back, trying them again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, literal_column, select, update

from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.errors import InvalidEventError, StreamHaltedError
from esource.log.pages import EVENT_COLUMNS
from esource.moments import utc_now
from esource.projections.checkpoints import lock
from esource.repositories.dlq import DLQRepository
from esource.tables.model import dead_letter_queue, events
from esource.tables.rows import (
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    EVENT_TYPE,
    PAYLOAD,
    POSITION,
    EventRow,
    StreamId,
    id_of,
)
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

if TYPE_CHECKING:
    from esource.projections.job import Job

_letter = dead_letter_queue.c
_joined = dead_letter_queue.join(events, events.c.event_id == _letter.event_id)
_unresolved = (
    _letter.projection_name == bindparam("projection_name", type_=_letter.projection_name.type),
    _letter.status != literal_column("'resolved'"),
)
_HALTED = Statement(
    select(events.c.aggregate_id, events.c.aggregate_type, func.min(events.c.global_position))
    .select_from(_joined)
    .where(*_unresolved)
    .group_by(events.c.aggregate_type, events.c.aggregate_id)
)
_PAGE = Statement(
    select(*EVENT_COLUMNS, _letter.id, _letter.retry_count)
    .select_from(_joined)
    .where(*_unresolved, events.c.global_position > bindparam("after", type_=events.c.global_position.type))
    .order_by(events.c.global_position)
    .limit(bindparam("page"))
)
_FORGET = Statement(
    update(dead_letter_queue)
    .where(
        *_unresolved,
        _letter.event_id.in_(
            select(events.c.event_id).where(
                events.c.global_position > bindparam("after", type_=events.c.global_position.type)
            )
        ),
    )
    .values(
        status=literal_column("'resolved'"),
        resolved_at=bindparam("now", type_=Timestamp()),
        resolved_by=literal_column("'rebuild'"),
    )
    .returning(_letter.id)
)

PAGE_LETTERS = 100

BEGINNING = 1000
"""So many characters of a payload that may not be stored in a dead letter are."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of dead letters that were tried again."""

    resolved: int = 0
    failed: int = 0
    waiting: int = 0
    """Not tried, because an earlier event of the stream is still unresolved."""


def stream_of(row: EventRow) -> StreamId:
    return StreamId(id_of(row[AGGREGATE_ID]), row[AGGREGATE_TYPE])


async def halted_streams(database: Database, unit: Unit | None, name: str) -> dict[StreamId, int]:
    """Streams with unresolved dead letters, and the position of the first of each. One query."""
    rows = await database.rows(_HALTED, {"projection_name": name}, unit)
    return {
        StreamId(id_of(str(aggregate_id)), aggregate_type): position
        for aggregate_id, aggregate_type, position in rows
    }


async def record(
    database: Database, name: str, row: EventRow, error: BaseException, retry_count: int
) -> None:
    """Write an event's dead letter, as part of the running task's transaction."""
    values = id_of(row[EVENT_ID]), name, row[EVENT_TYPE]
    letters = DLQRepository(database)
    try:
        data = json.loads(row[PAYLOAD])
    except (ValueError, RecursionError):
        data = row[PAYLOAD]
    try:
        await letters.add_failed_event(
            *values, data if isinstance(data, dict) else {"payload": data}, error, retry_count
        )
    except (InvalidEventError, RecursionError):
        # What may not be stored in a letter, another program has stored in the log: there it is to be found.
        beginning = {"payload": f"{row[PAYLOAD][:BEGINNING]} ..."}
        await letters.add_failed_event(*values, beginning, error, retry_count)


async def hold_back(database: Database, name: str, row: EventRow, behind: int) -> None:
    """Write the dead letter of an event that was not tried."""
    await record(database, name, row, StreamHaltedError(behind), 0)


async def forget(database: Database, unit: Unit, name: str, position: int) -> None:
    """Resolve the dead letters past a position: a rebuild will meet those events again."""
    values = {"projection_name": name, "after": position, "now": utc_now()}
    await database.write(_FORGET, values, unit)


async def retry(job: Job, ids: Collection[int] | None) -> Retried:
    """Try dead letters again, in the order of the log; a stream's later ones only after its earlier."""
    name, position = job.projection.checkpoint_name, 0
    blocked: set[StreamId] = set()
    resolved = failed = waiting = 0
    while True:
        values = {"projection_name": name, "after": position, "page": PAGE_LETTERS}
        rows: list[Any] = await job.database.rows(_PAGE, values)
        if not rows:
            return Retried(resolved, failed, waiting)
        for row in rows:
            position = row[POSITION]
            stream = stream_of(row)
            if ids is not None and row[-2] not in ids:
                if job.projection.on_failure == "halt_stream":
                    blocked.add(stream)
            elif stream in blocked:
                waiting += 1
            else:
                error = await _retry_one(job, row)
                resolved += error is None
                if error is not None:
                    failed += 1
                    blocked.add(stream)
                    job.failed(error, f"dead letter {row[-2]} failed again")


async def _retry_one(job: Job, row: Any) -> Exception | None:
    letter_id = row[-2]
    database = job.database

    async def claim(unit: Unit) -> bool:
        # First of all the checkpoint: its worker decides under the same lock which streams are halted.
        await lock(database, unit, [job.checkpoint_of(row)])
        return await DLQRepository(database).mark_retrying(letter_id)

    async def in_transaction() -> None:
        async with database.transaction() as unit:
            if await claim(unit):
                await job.handle(row, unit)
                await DLQRepository(database).mark_resolved(letter_id, "retry")

    async def by_itself() -> None:
        async with database.transaction() as unit:
            if not await claim(unit):
                return
        await job.handle(row, None)
        async with database.transaction() as unit:
            await lock(database, unit, [job.checkpoint_of(row)])
            await DLQRepository(database).mark_resolved(letter_id, "retry")

    try:
        await job.retry_outages(in_transaction if job.in_transaction else by_itself, asyncio.sleep)
    except Exception as error:
        if job.is_outage(error):
            raise
        failure = error  # the name of an except clause ends with it

        async def note() -> None:
            async with database.transaction():
                await record(database, job.projection.checkpoint_name, row, failure, row[-1] + 1)

        await job.retry_outages(note, asyncio.sleep)
        return failure
    return None
