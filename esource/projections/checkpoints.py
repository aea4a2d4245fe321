"""The checkpoints of a projection: one per version and partition, moved under a fence.

A batch is saved only by the worker that holds the checkpoint, and only from the position that the batch
began at. A worker that was paused, replaced, rewound or superseded meanwhile finds that its save changes no
row, and rolls back: that makes each event's effect happen once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import bindparam, case, func, literal_column, select, update

from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.moments import utc_now
from esource.tables.constructs import member_of, moment_after, tell_waiters, upsert
from esource.tables.model import projection_checkpoints
from esource.tables.rows import EVENT_ID, EVENT_TYPE, EventRow, id_of
from esource.tables.statement import Statement
from esource.tables.types import Identifier, Timestamp

_table = projection_checkpoints.c
_family = projection_checkpoints.alias("family")
_name = bindparam("name", type_=_table.projection_name.type)
_now = bindparam("now", type_=Timestamp())
_position = bindparam("position", type_=_table.global_position.type)
_at_start = func.coalesce(_table.global_position, literal_column("0")) == bindparam(
    "start", type_=_table.global_position.type
)
_forward = {
    "last_event_id": func.coalesce(bindparam("event_id", type_=Identifier()), _table.last_event_id),
    "last_event_type": func.coalesce(
        bindparam("event_type", type_=_table.last_event_type.type), _table.last_event_type
    ),
    "last_processed_at": _now,
    "global_position": _position,
    "events_processed": _table.events_processed + bindparam("count", type_=_table.events_processed.type),
    "updated_at": _now,
}
_superseded = (
    select(literal_column("1"))
    .where(
        _family.c.projection_name == bindparam("family_name", type_=_table.projection_name.type),
        _family.c.active_version > bindparam("version", type_=_table.active_version.type),
    )
    .exists()
)
_is_owner = _table.lease_owner == bindparam("owner", type_=_table.lease_owner.type)
_SAVE = Statement(
    update(projection_checkpoints)
    .where(_table.projection_name == _name, _is_owner, _at_start, ~_superseded)
    .values(**_forward, lease_until=moment_after("seconds"))
    .returning(_table.events_processed, tell_waiters(_table.projection_name))
)
_HOLD = Statement(
    update(projection_checkpoints)
    .where(_table.projection_name == _name, _is_owner, _at_start)
    .values(lease_until=moment_after("seconds"))
    .returning(_table.global_position)
)
_ADVANCE = Statement(
    update(projection_checkpoints)
    .where(_table.projection_name == _name, _at_start)
    .values(**_forward)
    .returning(_table.events_processed, tell_waiters(_table.projection_name))
)
_SET = Statement(
    update(projection_checkpoints)
    .where(member_of(_table.projection_name, "names"))
    .values(
        last_event_id=literal_column("NULL"),
        last_event_type=literal_column("NULL"),
        last_processed_at=literal_column("NULL"),
        global_position=_position,
        events_processed=bindparam("done", type_=_table.events_processed.type),
        updated_at=_now,
        # The worker that holds it may lie idle at the end of the log; it notices that it has lost it.
        lease_owner=literal_column("NULL"),
        lease_until=literal_column("NULL"),
    )
    .returning(_table.projection_name)
)
_CREATE = Statement(
    upsert(projection_checkpoints)
    .values(projection_name=_name, events_processed=literal_column("0"), created_at=_now, updated_at=_now)
    .on_conflict_do_nothing(index_elements=[_table.projection_name])
    .returning(_table.projection_name)
)
_LOCK = Statement(
    update(projection_checkpoints)
    .where(member_of(_table.projection_name, "names"))
    .values(updated_at=_table.updated_at)
    .returning(_table.projection_name, _table.global_position, _table.active_version)
)
_ACTIVATE = Statement(
    update(projection_checkpoints)
    .where(_table.projection_name == _name)
    .values(active_version=bindparam("version", type_=_table.active_version.type))
    .returning(tell_waiters(_table.projection_name))
)
_STATES = Statement(
    select(
        _table.projection_name,
        func.coalesce(_table.global_position, literal_column("0")),
        case((_table.lease_until > moment_after("seconds"), _table.lease_owner)),
        _table.active_version,
        _table.global_position.is_not(None),
        _table.lease_owner,
    )
)
_DELETE = Statement(
    projection_checkpoints.delete()
    .where(member_of(_table.projection_name, "names"))
    .returning(_table.projection_name)
)


class CheckpointState(NamedTuple):
    """A checkpoint as it is saved."""

    position: int
    owner: str | None
    """The worker that holds it now."""
    active_version: int | None
    has_started: bool
    last_owner: str | None
    """The worker that holds it now or held it last."""


class Fence(NamedTuple):
    """The worker that saves, and what has to be true of the checkpoint meanwhile."""

    name: str
    owner: str
    seconds: float
    family: str
    version: int

    def _values(self, start: int) -> dict[str, Any]:
        return {"name": self.name, "owner": self.owner, "seconds": self.seconds, "start": start}

    async def save(
        self,
        database: Database,
        unit: Unit | None,
        start: int,
        position: int,
        last: EventRow | None,
        count: int,
    ) -> bool:
        """Move the checkpoint and renew the lease; False if it is not ours from there. One statement."""
        values = {**self._values(start), **_step(position, last, count), "tells": database.backend.tells}
        values |= {"family_name": self.family, "version": self.version}
        return bool(await database.write(_SAVE, values, unit))

    async def hold(self, database: Database, unit: Unit, start: int) -> bool:
        """Lock the checkpoint until the transaction ends; False if it is not ours from there."""
        return bool(await database.write(_HOLD, self._values(start), unit))


def _step(position: int, last: EventRow | None, count: int) -> dict[str, Any]:
    return {
        "position": position,
        "event_id": None if last is None else id_of(last[EVENT_ID]),
        "event_type": None if last is None else last[EVENT_TYPE],
        "count": count,
        "now": utc_now(),
    }


async def advance(
    database: Database, unit: Unit, name: str, start: int, position: int, last: EventRow | None, count: int
) -> bool:
    """Move a checkpoint that another worker may hold; False if it is no longer at the start."""
    values = {"name": name, "start": start, "tells": database.backend.tells}
    return bool(await database.write(_ADVANCE, values | _step(position, last, count), unit))


async def states(database: Database) -> dict[str, CheckpointState]:
    """Every checkpoint, by name. One query."""
    rows = await database.read(_STATES, {"seconds": 0.0})
    return {
        name: CheckpointState(position, owner, active, bool(started), last)
        for name, position, owner, active, started, last in rows
    }


async def create(database: Database, unit: Unit, names: list[str]) -> None:
    for name in names:
        await database.write(_CREATE, {"name": name, "now": utc_now()}, unit)


async def lock(database: Database, unit: Unit, names: list[str]) -> dict[str, tuple[int | None, int | None]]:
    """Lock these checkpoints until the transaction ends; returns their positions and active versions."""
    rows = await database.write(_LOCK, {"names": database.backend.names(names)}, unit)
    return {name: (position, active) for name, position, active in rows}


async def rewind(database: Database, unit: Unit, names: list[str], position: int, done: int = 0) -> None:
    """Set checkpoints to a position, up to which each counts so many events as dealt with, and take them from their
    workers."""
    values = {"names": database.backend.names(names), "position": position, "done": done, "now": utc_now()}
    await database.write(_SET, values, unit)


async def delete(database: Database, unit: Unit, names: list[str]) -> None:
    if names:
        await database.write(_DELETE, {"names": database.backend.names(names)}, unit)


async def activate(database: Database, unit: Unit, family: str, version: int) -> None:
    values = {"name": family, "version": version, "tells": database.backend.tells}
    await database.write(_ACTIVATE, values, unit)
