"""When a repository takes snapshots, and which of them it believes.

A snapshot proves that it belongs to the log by the id of the event at its version: a log that was restored from a
backup, or whose events were rolled back, has another event there, or none. Event ids are never used twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from esource.checks import json_text
from esource.domain.aggregates import AggregateRoot, writes_itself
from esource.domain.states import require_restored
from esource.errors import InvalidOptionError
from esource.log.pages import page_after
from esource.log.streams import EventStream, ReadOptions
from esource.moments import from_iso
from esource.repositories.snapshot import Snapshot, SnapshotStore
from esource.store.store import EventStore
from esource.tables.rows import EVENT_ID, STORED_AT, VERSION, EventRow, StreamId

SnapshotMode = Literal["sync", "background", "manual"]

logger = logging.getLogger("esource")


class Snapshotting:
    """The snapshots of one kind of aggregate, as its repository uses them."""

    def __init__(
        self,
        event_store: EventStore,
        make: Callable[[UUID], AggregateRoot[Any]],
        aggregate_type: str,
        snapshots: SnapshotStore,
        threshold: int | None,
        mode: SnapshotMode,
    ) -> None:
        self._event_store = event_store
        self._make = make
        self._aggregate_type = aggregate_type
        self._snapshots = snapshots
        self._threshold = threshold
        self._mode = mode
        self.pending: set[asyncio.Task[Any]] = set()
        """The tasks that save snapshots in the background."""

    async def restore(self, aggregate: AggregateRoot[Any]) -> Snapshot | None:
        """Start an aggregate from its snapshot: the snapshot; None if none can be used.

        One that was taken of another form of the state is not used. After a failure the aggregate may hold
        something of the snapshot.
        """
        try:
            snapshot = await self._snapshots.get_snapshot(aggregate.aggregate_id, self._aggregate_type)
            if snapshot is None or snapshot.schema_version != aggregate.schema_version:
                return None
            aggregate._restore_from_snapshot(snapshot.state, snapshot.version)
        except Exception:
            logger.warning(
                "snapshot of %s %s cannot be used; replaying all events",
                self._aggregate_type,
                aggregate.aggregate_id,
                exc_info=True,
            )
            return None
        return snapshot

    async def is_proved(self, snapshot: Snapshot, stream: EventStream) -> bool:
        """Whether a snapshot was taken of these events, which begin with the one at its version.

        Asks for that event if the stream was read without it, because its type is unknown; and for the time at
        which it was stored, if the snapshot does not name it. Such a snapshot is believed if it is younger.
        """
        if stream.version < snapshot.version:
            logger.warning(
                "snapshot of %s %s is newer than its events (version %d, stored %d); ignoring it",
                self._aggregate_type,
                snapshot.aggregate_id,
                snapshot.version,
                stream.version,
            )
            return False
        first = stream.events[0] if stream.events else None
        if (
            snapshot.event_id is not None
            and first is not None
            and first.aggregate_version == snapshot.version
        ):
            is_proved = first.event_id == snapshot.event_id
        else:
            is_proved = await self._is_of_the_log(snapshot)
        if not is_proved:
            logger.warning(
                "snapshot of %s %s at version %d was not taken of its events: the log has another event there. "
                "Replaying all events; the next snapshot takes its place",
                self._aggregate_type,
                snapshot.aggregate_id,
                snapshot.version,
            )
        return is_proved

    async def _is_of_the_log(self, snapshot: Snapshot) -> bool:
        row = await self.row_at(snapshot.aggregate_id, snapshot.version)
        if row is None:
            return False
        if snapshot.event_id is None:
            return snapshot.created_at >= from_iso(row[STORED_AT])
        return UUID(row[EVENT_ID]) == snapshot.event_id

    async def row_at(self, aggregate_id: UUID, version: int) -> EventRow | None:
        """The event at a version of an aggregate's stream, of whatever type. One query."""
        reader = self._event_store.reader
        wanted = reader.selection(ReadOptions(), StreamId(aggregate_id, self._aggregate_type))
        rows = await page_after(reader.database, wanted, version - 1, 1)
        return rows[0] if rows and rows[0][VERSION] == version else None

    def due(self, aggregate: AggregateRoot[Any], before: int) -> Snapshot | None:
        """The snapshot that a save since this version asks for; None if it asks for none, or if it fails.

        It is of the aggregate as it is now: that may change before the snapshot is saved.
        """
        threshold = self._threshold
        if threshold is None or self._mode == "manual":
            return None
        if aggregate.version // threshold <= before // threshold:
            return None
        try:
            return self.of(aggregate)
        except Exception as error:
            self._warn_of_failure(aggregate.aggregate_id, error)
            return None

    def of(self, aggregate: AggregateRoot[Any]) -> Snapshot:
        """A snapshot of an aggregate whose events are stored. No I/O.

        Raises:
            InvalidEventError: an aggregate that starts from it would have another state.
        """
        state = aggregate._serialize_state()
        if writes_itself(type(aggregate)):
            again = self._make(aggregate.aggregate_id)
            again._restore_from_snapshot(json.loads(json_text("state", state)), aggregate.version)
            require_restored(aggregate._state, again._state)
        return Snapshot(
            aggregate_id=aggregate.aggregate_id,
            aggregate_type=self._aggregate_type,
            version=aggregate.version,
            state=state,
            schema_version=aggregate.schema_version,
            event_id=aggregate._stored_event_id,
        )

    async def take(self, snapshot: Snapshot) -> None:
        """Save a snapshot that is due, or begin to. A failure is logged."""
        if self._mode == "sync":
            await self._save_or_warn(snapshot)
            return
        task = asyncio.create_task(self._save_or_warn(snapshot))
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    async def _save_or_warn(self, snapshot: Snapshot) -> None:
        try:
            await self.save(snapshot)
        except Exception as error:
            self._warn_of_failure(snapshot.aggregate_id, error)

    def _warn_of_failure(self, aggregate_id: UUID, error: Exception) -> None:
        logger.warning("snapshot of %s %s failed", self._aggregate_type, aggregate_id, exc_info=error)

    async def save(self, snapshot: Snapshot) -> None:
        """Save a snapshot; in place of a later one, if that was not taken of the log."""
        if await self._snapshots.save_snapshot(snapshot):
            return
        there = await self._snapshots.get_snapshot(snapshot.aggregate_id, self._aggregate_type)
        if there is not None and not await self._is_of_the_log(there):
            await self._snapshots.delete_snapshot(snapshot.aggregate_id, self._aggregate_type)
            await self._snapshots.save_snapshot(snapshot)

    async def prove(self, aggregate: AggregateRoot[Any]) -> None:
        """Make sure that the log has what the aggregate was made of. One query.

        Raises:
            InvalidOptionError: it has other events, or none.
        """
        row = await self.row_at(aggregate.aggregate_id, aggregate.version)
        stored = None if row is None else UUID(row[EVENT_ID])
        known = aggregate._stored_event_id or stored
        if stored is None or known != stored:
            raise InvalidOptionError(
                f"the log has not the events of this {self._aggregate_type} up to version {aggregate.version}: "
                "they were rolled back, or the log was restored from a backup; load it anew"
            )
        aggregate._stored_event_id = stored
