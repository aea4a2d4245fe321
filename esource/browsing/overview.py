"""A store at a glance, and its state of health."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from esource import schema
from esource.browsing.streams import StreamSummary, newest_streams
from esource.checks import check_whole
from esource.database.database import Database
from esource.database.sources import Source
from esource.dialect.inspection import IndexUse, Size, Symptom
from esource.dialect.urls import inspection_of
from esource.log.filling import TagFilling, tag_fillings_of
from esource.log.pages import last_position
from esource.moments import utc_now
from esource.repositories.checkpoint import CheckpointRepository, LagMetrics
from esource.repositories.dlq import DLQRepository, DLQStats
from esource.repositories.outbox import OutboxRepository, OutboxStats
from esource.schema.reports import differences
from esource.tables.model import events
from esource.tables.statement import Statement

LAG_SECONDS = 300.0
"""How long an event may wait for a projection or the outbox before `examine` speaks of it, in seconds."""

_TYPES = Statement(
    select(events.c.aggregate_type, events.c.event_type, func.count(), func.max(events.c.created_at))
    .group_by(events.c.aggregate_type, events.c.event_type)
    .order_by(events.c.aggregate_type, func.count().desc(), events.c.event_type)
)
_streams = (
    select(events.c.aggregate_id, events.c.aggregate_type)
    .group_by(events.c.aggregate_id, events.c.aggregate_type)
    .subquery("streams")
)
_STREAM_COUNTS = Statement(
    select(_streams.c.aggregate_type, func.count()).group_by(_streams.c.aggregate_type)
)


@dataclass(frozen=True, slots=True)
class TypeCount:
    """How many events of a type there are."""

    aggregate_type: str
    event_type: str
    events: int
    newest: datetime
    """When the last of them was stored."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A store at a glance."""

    database: str
    product: str
    schema: str | None
    position: int
    """Global position of the last event."""
    events: int
    streams: dict[str, int]
    """By aggregate type."""
    types: list[TypeCount]
    sizes: list[Size]
    projections: list[LagMetrics]
    outbox: OutboxStats
    dead_letters: DLQStats
    indexes: list[IndexUse]
    fillings: list[TagFilling]
    """The tags that stored events are still being given."""
    moved_to: str | None
    """The database that a cut-over has moved this one to, if it has: it takes no more writes."""


async def overview(store: Source) -> Overview:
    """Counts, sizes and progress of a store (or an engine, or a URL). Reads every row of the log's index.

    Raises:
        SchemaError: the tables are missing, older or newer.
    """
    async with schema.whole_store(store, "an overview") as database:
        inspection = inspection_of(database.backend)
        types = [TypeCount(*row) for row in await database.read(_TYPES, {})]
        position = await last_position(database)
        return Overview(
            database=database.name,
            product=await database.inspect(inspection.product),
            schema=await schema.current(database),
            position=position or 0,
            events=sum(found.events for found in types),
            streams=dict(sorted((row[0], row[1]) for row in await database.rows(_STREAM_COUNTS, {}))),
            types=types,
            sizes=await database.inspect(inspection.sizes),
            projections=await lags(database),
            outbox=await OutboxRepository(database).get_stats(),
            dead_letters=await DLQRepository(database).get_failure_stats(),
            indexes=await database.inspect(inspection.index_use),
            fillings=await unfilled(database),
            moved_to=await database.moved_to(),
        )


async def lags(database: Source) -> list[LagMetrics]:
    """How far each checkpoint is behind the end of the log, counting events of all types."""
    checkpoints = CheckpointRepository(database)
    found = [
        await checkpoints.get_lag_metrics(checkpoint.projection_name)
        for checkpoint in await checkpoints.get_all_checkpoints()
        if checkpoint.global_position is not None
    ]
    return [lag for lag in found if lag is not None]


async def streams(
    store: Source, *, aggregate_type: str | None = None, limit: int = 100
) -> list[StreamSummary]:
    """The streams that were appended to last, the newest first.

    Raises:
        InvalidOptionError: a limit below 1, or larger than any number of rows.
    """
    check_whole("limit", limit, least=1)
    async with schema.whole_store(store, "a list of all streams", any_schema=True) as database:
        found: list[StreamSummary] = []
        after = None
        while True:
            page = await newest_streams(
                database, aggregate_type=aggregate_type, after=after, size=limit - len(found)
            )
            found += page.rows
            after = page.after
            if after is None or len(found) >= limit:
                return found


async def examine(store: Source) -> list[Symptom]:
    """What is wrong or slow in a database, each with what mends it; nothing is changed."""
    async with schema.whole_store(store, "an examination", any_schema=True) as database:
        found = []
        version = await schema.current(database)
        if version != schema.HEAD:
            if version is None:
                remedy = "Run `esource init`, or `esource adopt` if eventsource-py wrote it"
            elif version in schema.REVISIONS:
                remedy = "Make a backup, then run `esource upgrade`"
            else:
                remedy = "It is newer than this esource: pip install --upgrade esource"
            found.append(Symptom(f"the schema is {version or 'missing'}, not {schema.HEAD}", remedy))
        else:
            found += [
                Symptom(str(difference), difference.remedy or "Compare with `esource sql`")
                for difference in await differences(database)
            ]
            found += await _waiting(database)
            found += await _untagged(database)
        found += await _moved(database)
        return found + await database.inspect(inspection_of(database.backend).symptoms)


async def unfilled(database: Database) -> list[TagFilling]:
    """The tags that stored events are still being given. One query."""
    return [filling for filling in await tag_fillings_of(database) if filling.completed_at is None]


async def _untagged(database: Database) -> list[Symptom]:
    fillings = await unfilled(database)
    last = await last_position(database) if fillings else 0
    return [
        Symptom(
            f"stored events of type {filling.event_type} are being given their tags {filling.tag_name}:..., up to position "
            f"{filling.global_position} of {last}; queries over these are refused until the end",
            "Wait, or go on with `esource tag --app ...` if that was ended",
        )
        for filling in fillings
    ]


async def _moved(database: Database) -> list[Symptom]:
    moved_to = await database.moved_to()
    if moved_to is None:
        return []
    return [
        Symptom(
            f"the store has moved to {moved_to} and takes no more writes",
            "Connect to that one. To use this one again after all: `esource reopen`",
        )
    ]


async def _waiting(database: Database) -> list[Symptom]:
    found = []
    outbox = await OutboxRepository(database).get_stats()
    if outbox.failed_count:
        found.append(
            Symptom(
                f"{outbox.failed_count} outbox rows were given up",
                "See why with `esource outbox list --failed`, then `esource outbox retry`",
            )
        )
    if outbox.oldest_pending and (utc_now() - outbox.oldest_pending).total_seconds() > LAG_SECONDS:
        found.append(
            Symptom(
                f"{outbox.pending_count} outbox rows wait, the first since {outbox.oldest_pending:%Y-%m-%d %H:%M}",
                "Is a relay running? `esource outbox relay`",
            )
        )
    found += [
        Symptom(
            f"{count.projection_name} has {count.failure_count} dead letters",
            "See them with `esource dlq list`",
        )
        for count in await DLQRepository(database).get_projection_failure_counts()
    ]
    found += [
        Symptom(
            f"{lag.projection_name} is {lag.lag_events} events behind, for {lag.lag_seconds:.0f} s",
            f"Is it running? If it is gone for good, `esource projections reset {lag.projection_name}` removes its "
            "checkpoint; one that is still in use would start anew",
        )
        for lag in await lags(database)
        if lag.lag_events and lag.lag_seconds > LAG_SECONDS
    ]
    return found
