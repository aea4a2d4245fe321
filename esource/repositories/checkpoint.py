"""How far each projection has read the log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ScalarSelect, and_, bindparam, delete, func, literal_column, or_, select, update

from esource import schema
from esource.checks import check_id, check_name, check_names, check_whole
from esource.database.sources import Source
from esource.log.tenants import OWN_EVENTS
from esource.moments import utc_now
from esource.repositories.access import Access
from esource.tables.constructs import member_of, tell_waiters, upsert
from esource.tables.model import events, projection_checkpoints
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Timestamp

_table = projection_checkpoints.c
_name = bindparam("projection_name", type_=_table.projection_name.type)
_COLUMNS = (
    _table.projection_name,
    _table.last_event_id,
    _table.last_event_type,
    _table.last_processed_at,
    _table.events_processed,
    _table.global_position,
)


def _save(position: Any) -> Statement:
    """Save a checkpoint, unless it would not move it forward; returns a row if it did."""
    now = bindparam("now", type_=Timestamp())
    values = {
        "projection_name": _name,
        "last_event_id": bindparam("event_id", type_=Identifier()),
        "last_event_type": bindparam("event_type", type_=_table.last_event_type.type),
        "last_processed_at": now,
        "global_position": position,
        "events_processed": literal_column("1"),
        "created_at": now,
        "updated_at": now,
    }
    row = upsert(projection_checkpoints)
    if isinstance(
        position, ScalarSelect
    ):  # Citus has no subqueries in VALUES, and SQLite no SELECT without WHERE here
        row = row.from_select(list(values), select(*values.values()).where(literal_column("1 = 1")))
    else:
        row = row.values(values)
    new = row.excluded
    forward = or_(
        _table.global_position.is_(None),
        new.global_position > _table.global_position,
    )
    return Statement(
        row.on_conflict_do_update(
            index_elements=[_table.projection_name],
            set_={
                "last_event_id": new.last_event_id,
                "last_event_type": new.last_event_type,
                "last_processed_at": new.last_processed_at,
                "global_position": func.coalesce(new.global_position, _table.global_position),
                "events_processed": _table.events_processed + literal_column("1"),
                "updated_at": new.updated_at,
            },
            where=and_(
                forward,
                or_(
                    _table.last_event_id.is_(None),
                    _table.last_event_id != new.last_event_id,
                    new.global_position.is_not(None),
                ),
            ),
        ).returning(_table.events_processed, tell_waiters(_table.projection_name))
    )


_SAVE_POSITION = _save(bindparam("position", type_=_table.global_position.type))
_new_position = bindparam("position", type_=_table.global_position.type)
_now = bindparam("now", type_=Timestamp())
_MOVE_PAST = Statement(
    update(projection_checkpoints)
    .where(
        _table.projection_name == _name,
        _table.global_position >= bindparam("dealt", type_=_table.global_position.type),
        _table.global_position < _new_position,
    )
    .values(global_position=_new_position, updated_at=_now)
    .returning(_table.global_position, tell_waiters(_table.projection_name))
)
_CREATE_AT = Statement(
    upsert(projection_checkpoints)
    .values(
        projection_name=_name,
        global_position=_new_position,
        events_processed=literal_column("0"),
        created_at=_now,
        updated_at=_now,
    )
    .on_conflict_do_nothing(index_elements=[_table.projection_name])
    .returning(_table.global_position, tell_waiters(_table.projection_name))
)
_position_of_event = select(events.c.global_position).where(
    events.c.event_id == bindparam("event_id", type_=Identifier())
)
_SAVE_EVENT = _save(_position_of_event.scalar_subquery())
_SAVE_OWN_EVENT = _save(_position_of_event.where(OWN_EVENTS).scalar_subquery())
_ONE = Statement(select(*_COLUMNS).where(_table.projection_name == _name))
_ALL = Statement(select(*_COLUMNS).order_by(_table.projection_name))
_RESET = Statement(delete(projection_checkpoints).where(_table.projection_name == _name))
_of_types = or_(
    bindparam("any_type", type_=_table.events_processed.type) == literal_column("1"),
    member_of(events.c.event_type, "event_types"),
)
_LATEST = Statement(
    select(events.c.global_position, events.c.event_id)
    .where(_of_types)
    .order_by(events.c.global_position.desc())
    .limit(bindparam("one"))
)
_PENDING = Statement(
    select(func.count(), func.min(events.c.created_at, type_=Timestamp())).where(
        events.c.global_position > bindparam("position", type_=events.c.global_position.type), _of_types
    )
)


@dataclass(frozen=True, slots=True)
class CheckpointData:
    """One projection's checkpoint."""

    projection_name: str
    last_event_id: UUID | None = None
    last_event_type: str | None = None
    last_processed_at: datetime | None = None
    events_processed: int = 0
    """How often the checkpoint moved forward."""
    global_position: int | None = None


@dataclass(frozen=True, slots=True)
class LagMetrics:
    """How far a projection is behind the log."""

    projection_name: str
    last_event_id: str | None = None
    latest_event_id: str | None = None
    lag_seconds: float = 0.0
    """Age of the oldest event that it has not processed, in seconds; 0 when it is up to date."""
    events_processed: int = 0
    last_processed_at: str | None = None
    lag_events: int = 0
    """Events past its position."""
    global_position: int | None = None


class CheckpointRepository:
    """Checkpoints in the database of a store, an engine, a session factory, a URL, an open
    `aiosqlite.Connection`, or an open transaction.

    A checkpoint moves only forward: saving the same position again, or an older one, changes nothing
    and counts nothing; `reset_checkpoint` is the one way back.

    A store bound to a tenant has checkpoints of its own: the same name is another checkpoint for each
    tenant (stored as ``<tenant id>:<name>``), and counts only that tenant's events.
    """

    def __init__(self, database: Source) -> None:
        self._access = Access(database, "projection_checkpoints")

    async def get_checkpoint(self, projection_name: str) -> UUID | None:
        """The id of the last event that was processed; None if there is no checkpoint."""
        found = await self.get_checkpoint_data(projection_name)
        return found.last_event_id if found else None

    async def get_checkpoint_data(self, projection_name: str) -> CheckpointData | None:
        """The whole checkpoint; None if there is none."""
        rows = await self._access.read(_ONE, projection_name=self._stored_name(projection_name))
        return self._checkpoint(rows[0]) if rows else None

    async def get_position(self, subscription_id: str) -> int | None:
        """The global position reached; None if there is no checkpoint."""
        found = await self.get_checkpoint_data(subscription_id)
        return found.global_position if found else None

    async def save_position(
        self, subscription_id: str, position: int, event_id: UUID, event_type: str
    ) -> bool:
        """Record that everything up to this position has been processed; whether that was news.

        Raises:
            InvalidOptionError: a negative position, or an event id that is not a UUID.
            InvalidEventError: a name that cannot be stored.
        """
        return bool(
            await self._access.insert(
                _SAVE_POSITION,
                projection_name=check_name("subscription_id", self._stored_name(subscription_id)),
                position=check_whole("position", position),
                event_id=check_id("event_id", event_id),
                event_type=check_name("event_type", event_type),
                now=utc_now(),
                tells=self._access.database.backend.tells,
            )
        )

    async def move_past(
        self, subscription_id: str, dealt: int, position: int, *, create: bool = False
    ) -> bool:
        """Record that nothing is left to do up to a position, because no event between is wanted; whether that
        was news. Counts no event, and does nothing to a checkpoint that was set back meanwhile.

        Args:
            subscription_id: The checkpoint's name.
            dealt: Where the checkpoint is at least: the last event that was wanted.
            position: Where it is to be.
            create: Make a checkpoint that does not exist.

        Raises:
            InvalidOptionError: a negative position.
            InvalidEventError: a name that cannot be stored.
        """
        values: dict[str, Any] = {
            "projection_name": check_name("subscription_id", self._stored_name(subscription_id)),
            "position": check_whole("position", position),
            "now": utc_now(),
            "tells": self._access.database.backend.tells,
        }
        if create and await self._access.insert(_CREATE_AT, **values):
            return True
        return bool(await self._access.write(_MOVE_PAST, dealt=check_whole("dealt", dealt), **values))

    async def update_checkpoint(self, projection_name: str, event_id: UUID, event_type: str) -> bool:
        """Record that this event has been processed, at its own position in the log; whether that was
        news."""
        return bool(
            await self._access.insert(
                _SAVE_EVENT if self._access.tenant_id is None else _SAVE_OWN_EVENT,
                projection_name=check_name("projection_name", self._stored_name(projection_name)),
                event_id=check_id("event_id", event_id),
                event_type=check_name("event_type", event_type),
                now=utc_now(),
                tells=self._access.database.backend.tells,
            )
        )

    async def get_lag_metrics(
        self, projection_name: str, event_types: list[str] | None = None
    ) -> LagMetrics | None:
        """How far the projection is behind, counting only these event types if given; None if it has no
        checkpoint. Three queries."""
        types = self._types(event_types)
        checkpoint = await self.get_checkpoint_data(projection_name)
        if checkpoint is None:
            return None
        latest = await self._access.read(_LATEST, table="events", one=1, **types)
        pending, seconds = await self.get_lag(checkpoint.global_position or 0, event_types)
        at = checkpoint.last_processed_at
        return LagMetrics(
            projection_name,
            last_event_id=str(checkpoint.last_event_id) if checkpoint.last_event_id else None,
            latest_event_id=str(latest[0][1]) if latest else None,
            lag_seconds=seconds,
            events_processed=checkpoint.events_processed,
            last_processed_at=at.isoformat() if at else None,
            lag_events=pending,
            global_position=checkpoint.global_position,
        )

    async def get_lag(self, position: int, event_types: Iterable[str] | None = None) -> tuple[int, float]:
        """How many events are past a position, and the age of the first of them in seconds; only of
        these event types if given. One query."""
        [(pending, oldest)] = await self._access.read(
            _PENDING, table="events", position=position, **self._types(event_types)
        )
        return pending, max(0.0, (utc_now() - oldest).total_seconds()) if oldest else 0.0

    def _types(self, event_types: Iterable[str] | None) -> dict[str, Any]:
        names = check_names("event_types", event_types)
        return {
            "any_type": 1 if names is None else 0,
            "event_types": self._access.database.backend.names(sorted(names or ())),
        }

    async def reset_checkpoint(self, projection_name: str) -> None:
        """Forget the checkpoint: the projection starts from the beginning."""
        await self._access.write(_RESET, projection_name=self._stored_name(projection_name))

    async def get_all_checkpoints(self) -> list[CheckpointData]:
        """Every checkpoint, by name."""
        return [self._checkpoint(row) for row in await self._access.read(_ALL)]

    def _stored_name(self, name: str) -> str:
        # What is no name at all, or an empty one, is left for `check_name` to refuse.
        return f"{self._access.checkpoint_prefix}{name}" if isinstance(name, str) and name else name

    def _checkpoint(self, row: tuple[Any, ...]) -> CheckpointData:
        return CheckpointData(row[0].removeprefix(self._access.checkpoint_prefix), *row[1:])

    async def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        await self._access.close()


class SQLiteCheckpointRepository(CheckpointRepository):
    """Checkpoints in a SQLite database, for instance on an open `aiosqlite.Connection`."""


class PostgreSQLCheckpointRepository(CheckpointRepository):
    """Checkpoints in a PostgreSQL database."""


class InMemoryCheckpointRepository(CheckpointRepository):
    """Checkpoints in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Source | None = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None


__all__ = [
    "CheckpointData",
    "CheckpointRepository",
    "InMemoryCheckpointRepository",
    "LagMetrics",
    "PostgreSQLCheckpointRepository",
    "SQLiteCheckpointRepository",
]
