"""One tenant's share of the log and of the tables beside it: what `EventStore.for_tenant` restricts to.

What a bound store guarantees, whatever else is stored in the same database:

- it reads only events that carry its tenant's id, and from the other tables only rows that belong to them;
- every event it writes carries that id; one that carries another is refused before anything is written;
- it never adds to a stream whose events belong to another tenant, or to none, and of two
  tenants that begin a stream under the same id at once, one is refused: a stream's tenant is settled by its
  first event, and that append expects no stream;
- what it refuses tells nothing of what the others stored. That an id is taken cannot be hidden: event ids,
  and the ids of streams, are unique in the whole database.

A store that is not bound sees and writes everything, and is trusted to put each event where it belongs. So
is SQL by hand: on PostgreSQL, `esource.schema.row_level_security` lets the database refuse it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, bindparam, exists, func, literal_column, select, tuple_

from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.domain.events import DomainEvent, filled_in
from esource.errors import (
    AppendConditionError,
    ConstraintError,
    DuplicateEventError,
    EventSourceError,
    OptimisticLockError,
    StreamClosedError,
    TenantMismatchError,
)
from esource.log.batch import Append
from esource.log.streams import AppendResult, ExpectedVersion, ReadOptions
from esource.tables.model import dead_letter_queue, event_outbox, events, projection_checkpoints, snapshots
from esource.tables.rows import EncodedEvent, StreamId
from esource.tables.statement import Statement
from esource.tables.types import Identifier

_tenant = bindparam("of_tenant", type_=Identifier())
OWN_EVENTS: ColumnElement[bool] = events.c.tenant_id == _tenant

CHECKPOINT_PREFIX_LENGTH = 37
"""A tenant's checkpoints are stored as ``<tenant id>:<name>``."""

_OWN: dict[str, ColumnElement[bool]] = {
    "events": OWN_EVENTS,
    "event_outbox": event_outbox.c.tenant_id == _tenant,
    # These two carry no tenant: they belong to whom the event or the stream belongs.
    "dead_letter_queue": exists(
        select(literal_column("1")).where(events.c.event_id == dead_letter_queue.c.event_id, OWN_EVENTS)
    ),
    "snapshots": exists(
        select(literal_column("1")).where(
            events.c.aggregate_id == snapshots.c.aggregate_id,
            events.c.aggregate_type == snapshots.c.aggregate_type,
            OWN_EVENTS,
        )
    ),
    "projection_checkpoints": (
        func.substr(
            projection_checkpoints.c.projection_name,
            literal_column("1"),
            literal_column(str(CHECKPOINT_PREFIX_LENGTH)),
        )
        == bindparam("checkpoint_prefix", type_=Text())
    ),
}

_stream = tuple_(events.c.aggregate_id, events.c.aggregate_type)
_place = tuple_(
    bindparam("aggregate_id", type_=Identifier()),
    bindparam("aggregate_type", type_=events.c.aggregate_type.type),
)
_LAST_OF_STREAM = Statement(
    select(events.c.tenant_id)
    # A range that only the unique index can serve: with equalities, PostgreSQL may keep another plan that
    # it made while the table was small.
    .where(_stream >= _place, _stream <= _place)
    .order_by(events.c.aggregate_id.desc(), events.c.aggregate_type.desc(), events.c.version.desc())
    .limit(literal_column("1"))
)
_OWN_EVENT = Statement(
    select(events.c.global_position).where(
        events.c.event_id == bindparam("event_id", type_=Identifier()), OWN_EVENTS
    )
)


def may_read(checkpoint: str, tenants: Collection[str | None]) -> bool:
    """Whether the follower with this checkpoint may read events of these tenants: a tenant's own reads only its own."""
    tenant = checkpoint[: CHECKPOINT_PREFIX_LENGTH - 1]
    try:
        is_tenants = checkpoint.startswith(f"{UUID(tenant)}:")
    except ValueError:
        return True
    return not is_tenants or tenant in tenants


@lru_cache(maxsize=256)
def of_tenant(statement: Statement, table: str) -> Statement:
    """The same statement on the tenant's own rows of the table; it takes the value ``of_tenant``."""
    restricted: Any = statement.construct
    return Statement(restricted.where(_OWN[table]))


def restricted(options: ReadOptions, tenant_id: UUID) -> ReadOptions:
    """The same reading, of the tenant's events only.

    Raises:
        TenantMismatchError: the options ask for another tenant's.
    """
    require_own("tenant_id", options.tenant_id, tenant_id)
    return replace(options, tenant_id=tenant_id)


def require_own(what: str, given: UUID | None, tenant_id: UUID) -> None:
    """Refuse the id of another tenant.

    Raises:
        TenantMismatchError: a tenant was given, and it is another one.
    """
    if given is not None and given != tenant_id:
        raise TenantMismatchError(tenant_id, f"{what} is {given}")


def owned(event: EncodedEvent, tenant_id: UUID) -> EncodedEvent:
    """The event with its tenant filled in.

    Raises:
        TenantMismatchError: it is another tenant's.
    """
    if event.tenant_id is None:
        return event.of_tenant(tenant_id)
    require_own(f"the tenant_id of {event.event_type} {event.event_id}", event.tenant_id, tenant_id)
    return event


def of_its_tenant(event: DomainEvent, tenant_id: UUID) -> DomainEvent:
    """The event as the bound store has stored it."""
    return event if event.tenant_id is not None else filled_in(event, {"tenant_id": tenant_id})


async def append_as_tenant(
    database: Database,
    unit: Unit | None,
    append: Append,
    tenant_id: UUID,
    write: Callable[[Append], Awaitable[AppendResult]],
) -> AppendResult:
    """Write an append, unless its stream belongs to another tenant; one query more if the stream may exist.

    Events are never deleted and only appended: a stream that ends with an event of this tenant's stays
    its own as long as all other writers respect that, and whether a new stream is really new is decided
    within the append, which expects no stream.

    Raises:
        TenantMismatchError: the stream belongs to another tenant, or to none.
    """
    stream = append.stream
    while True:
        attempt = append
        if append.expected_version != ExpectedVersion.NO_STREAM:
            last = await _tenants_of_last(database, unit, stream)
            if last and last[0] != tenant_id:
                raise _not_own(stream, tenant_id)
            if not last:
                if append.expected_version != ExpectedVersion.ANY:
                    raise append.conflict(0)
                attempt = Append(
                    stream, append.events, ExpectedVersion.NO_STREAM, append.condition, append.given
                )
        try:
            return await write(attempt)
        except (OptimisticLockError, StreamClosedError, DuplicateEventError, ConstraintError) as error:
            refused: EventSourceError = error
        refused = await _in_confidence(refused, database, unit, stream, tenant_id)
        if attempt is append or not _is_begun(refused, stream):
            # Before Python 3.11 a task goes on inside its `except`, so that what is hidden would be shown as the context.
            refused.__suppress_context__ = True
            raise refused
        # Another task of this tenant has begun the stream meanwhile, and any version will do.


def _is_begun(refused: EventSourceError, stream: StreamId) -> bool:
    """Whether an append that expected no stream was refused because there is one."""
    return (
        isinstance(refused, OptimisticLockError)
        and not isinstance(refused, AppendConditionError)
        and (refused.aggregate_id, refused.aggregate_type) == stream
        and refused.expected_version == ExpectedVersion.NO_STREAM
    )


async def _in_confidence(
    refused: EventSourceError, database: Database, unit: Unit | None, stream: StreamId, tenant_id: UUID
) -> EventSourceError:
    """The error itself, or one that does not tell what another tenant has stored."""
    if isinstance(refused, DuplicateEventError):
        if await owns_event(database, unit, refused.event_id, tenant_id):
            return refused
        return DuplicateEventError(refused.event_id, "elsewhere")
    if isinstance(refused, ConstraintError):
        # Row-level security hides the row that is in the way from the append itself.
        is_taken = refused.constraint == "uq_events_aggregate_version"
        return _not_own(stream, tenant_id) if is_taken else refused
    last = await _tenants_of_last(database, unit, stream)
    return _not_own(stream, tenant_id) if last and last[0] != tenant_id else refused


async def _tenants_of_last(database: Database, unit: Unit | None, stream: StreamId) -> list[UUID | None]:
    """The tenant of the stream's last event; nothing if there is no stream."""
    return [row[0] for row in await database.read(_LAST_OF_STREAM, stream._asdict(), unit)]


def _not_own(stream: StreamId, tenant_id: UUID) -> TenantMismatchError:
    return TenantMismatchError(
        tenant_id, f"{stream.aggregate_type} {stream.aggregate_id} is not a stream of its own"
    )


async def owns_event(database: Database, unit: Unit | None, event_id: UUID, tenant_id: UUID) -> bool:
    """Whether the event is stored and the tenant's."""
    return bool(await database.rows(_OWN_EVENT, {"event_id": event_id, "of_tenant": tenant_id}, unit))
