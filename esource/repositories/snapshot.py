"""Saved states of aggregates, so that loading replays only what came after."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, or_, select

from esource import schema
from esource.checks import LARGEST_INTEGER, check_id, check_moment, check_name, check_whole, json_text, shown
from esource.database.sources import Source
from esource.errors import InvalidOptionError
from esource.moments import utc_now
from esource.repositories.access import Access
from esource.tables.constructs import upsert
from esource.tables.model import events, snapshots
from esource.tables.statement import Statement

EVENT_ID_KEY = "esource:event_id"
"""Beside the state's own keys: the id of the event at the snapshot's version."""

_table = snapshots.c
_of_aggregate = (
    _table.aggregate_id == bindparam("aggregate_id", type_=_table.aggregate_id.type),
    _table.aggregate_type == bindparam("aggregate_type", type_=_table.aggregate_type.type),
)
_row = upsert(snapshots).values(
    {
        name: bindparam(name, type_=_table[name].type)
        for name in ("aggregate_id", "aggregate_type", "version", "schema_version", "state", "created_at")
    }
)
_SAVE = Statement(
    _row.on_conflict_do_update(
        index_elements=[_table.aggregate_id, _table.aggregate_type],
        set_={name: _row.excluded[name] for name in ("version", "schema_version", "state", "created_at")},
        where=_row.excluded.version >= _table.version,
    ).returning(_table.version)
)
_GET = Statement(
    select(
        _table.aggregate_id,
        _table.aggregate_type,
        _table.version,
        _table.state,
        _table.schema_version,
        _table.created_at,
    ).where(*_of_aggregate)
)
_EVENT_AT = Statement(
    select(events.c.event_id).where(
        events.c.aggregate_id == bindparam("aggregate_id", type_=events.c.aggregate_id.type),
        events.c.aggregate_type == bindparam("aggregate_type", type_=events.c.aggregate_type.type),
        events.c.version == bindparam("version", type_=events.c.version.type),
    )
)
_DELETE = Statement(delete(snapshots).where(*_of_aggregate).returning(_table.id))
_DELETE_TYPE = Statement(
    delete(snapshots)
    .where(
        _table.aggregate_type == bindparam("aggregate_type", type_=_table.aggregate_type.type),
        or_(
            bindparam("below", type_=_table.schema_version.type).is_(None),
            _table.schema_version < bindparam("below", type_=_table.schema_version.type),
        ),
    )
    .returning(_table.id)
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an aggregate at a version of its stream."""

    aggregate_id: UUID
    aggregate_type: str
    version: int
    state: dict[str, Any]
    """The state as JSON values."""
    schema_version: int = 1
    """The aggregate class's `schema_version` when it was taken; another one means replay."""
    created_at: datetime = field(default_factory=utc_now)
    event_id: UUID | None = None
    """The id of the event at that version: by it a repository tells whether the snapshot belongs to the log. Left
    out, it is looked up when the snapshot is saved, if the events are in the same database."""


class SnapshotStore:
    """Snapshots in the database of a store, an engine, a session factory, a URL, or an open transaction.

    One snapshot per aggregate. An older one never overwrites a newer one. Of a store bound to a tenant, it
    holds the snapshots of that tenant's streams only.
    """

    def __init__(self, database: Source) -> None:
        self._access = Access(database, "snapshots")

    async def save_snapshot(self, snapshot: Snapshot) -> bool:
        """Save a snapshot; False if a newer one is there, which then stays.

        Raises:
            InvalidEventError: the state cannot be stored as JSON.
            InvalidOptionError: a version below 1, an id that is not a UUID, a moment without a time zone.
            TenantMismatchError: the stream is not one of the tenant bound to.
        """
        if not isinstance(snapshot, Snapshot):
            raise InvalidOptionError(f"snapshot must be a Snapshot, not {shown(snapshot)}")
        aggregate_id = check_id("aggregate_id", snapshot.aggregate_id)
        aggregate_type = check_name("aggregate_type", snapshot.aggregate_type)
        version = check_whole("version", snapshot.version, least=1, most=LARGEST_INTEGER)
        await self._access.require_own_stream(aggregate_id, aggregate_type)
        event_id = snapshot.event_id or await self._event_at(aggregate_id, aggregate_type, version)
        proof = {} if event_id is None else {EVENT_ID_KEY: str(check_id("event_id", event_id))}
        return bool(
            await self._access.insert(
                _SAVE,
                aggregate_id=aggregate_id,
                aggregate_type=aggregate_type,
                version=version,
                schema_version=check_whole("schema_version", snapshot.schema_version, most=LARGEST_INTEGER),
                state=json_text("state", {**snapshot.state, **proof}, self._access.database.limits),
                created_at=check_moment("created_at", snapshot.created_at),
            )
        )

    async def _event_at(self, aggregate_id: UUID, aggregate_type: str, version: int) -> UUID | None:
        rows = await self._access.read(
            _EVENT_AT,
            table="events",
            aggregate_id=aggregate_id,
            aggregate_type=aggregate_type,
            version=version,
        )
        return rows[0][0] if rows else None

    async def get_snapshot(self, aggregate_id: UUID, aggregate_type: str) -> Snapshot | None:
        """The aggregate's snapshot; None if there is none. One query."""
        rows = await self._access.read(
            _GET, aggregate_id=check_id("aggregate_id", aggregate_id), aggregate_type=aggregate_type
        )
        if not rows:
            return None
        found_id, found_type, version, text, schema_version, created_at = rows[0]
        state = json.loads(text)
        event_id = state.pop(EVENT_ID_KEY, None)
        return Snapshot(
            found_id,
            found_type,
            version,
            state,
            schema_version,
            created_at,
            None if event_id is None else UUID(event_id),
        )

    async def delete_snapshot(self, aggregate_id: UUID, aggregate_type: str) -> bool:
        """Delete the aggregate's snapshot; whether there was one."""
        return bool(
            await self._access.write(
                _DELETE, aggregate_id=check_id("aggregate_id", aggregate_id), aggregate_type=aggregate_type
            )
        )

    async def snapshot_exists(self, aggregate_id: UUID, aggregate_type: str) -> bool:
        return await self.get_snapshot(aggregate_id, aggregate_type) is not None

    async def delete_snapshots_by_type(
        self, aggregate_type: str, schema_version_below: int | None = None
    ) -> int:
        """Delete the snapshots of a type, all or those of older schema versions; how many there were."""
        if schema_version_below is not None:
            check_whole("schema_version_below", schema_version_below, most=LARGEST_INTEGER)
        return len(
            await self._access.write(_DELETE_TYPE, aggregate_type=aggregate_type, below=schema_version_below)
        )

    async def close(self) -> None:
        """Close the connection that a URL was opened with; anything borrowed stays open."""
        await self._access.close()


class SQLiteSnapshotStore(SnapshotStore):
    """Snapshots in a SQLite database."""


class PostgreSQLSnapshotStore(SnapshotStore):
    """Snapshots in a PostgreSQL database."""


class InMemorySnapshotStore(SnapshotStore):
    """Snapshots in a private in-memory database, or in that of the store given."""

    def __init__(self, database: Source | None = None) -> None:
        super().__init__(schema.in_memory() if database is None else database)
        self._access.owns_database = database is None
