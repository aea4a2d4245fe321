"""One checkpoint of a projection at work: pages past it, handled in batches, saved under the fence."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from esource.errors import ProjectionFailedError, error_text
from esource.log.pages import Fetch, ahead, last_position, next_size, page_after
from esource.projections.context import Writes
from esource.projections.dead_letters import halted_streams, hold_back, record, stream_of
from esource.projections.job import Job, LostCheckpoint, Stopping
from esource.projections.missed import tell_of_new_types
from esource.tables.rows import EVENT_ID, EVENT_TYPE, POSITION, STORED_AT, EventRow, StreamId

if TYPE_CHECKING:
    from esource.database.unit_of_work import Unit

logger = logging.getLogger("esource")

IDLE_SAVE_SECONDS = 1.0
"""A checkpoint that only moves past events of other types is saved so often at most, in seconds."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error in a batch: at which event, if that is known, and how many before it are done."""

    error: Exception
    index: int | None
    done: int


class Share:
    """The events of one checkpoint, for as long as its lease is held."""

    def __init__(self, job: Job, number: int, position: int, notice: Callable[[], None]) -> None:
        self.job = job
        self.number = number
        self.position = position
        """Everything up to here is dealt with."""
        self._notice = notice
        self._fence = job.fence(number)
        self._registry = job.reader.codec.registry
        self._seen_changes = self._registry.changes
        self._types = job.projection.event_types(self._registry)
        self._wanted = job.selection(self._types)
        self._saved = position
        self._saved_at = time.monotonic()
        self._last: EventRow | None = None
        self._unsaved = 0
        self._halted: dict[StreamId, int] = {}
        self._size = job.projection.batch_size
        job.advance(number, position, 0)

    async def run(self, goal: int | None, on_caught_up: Callable[[Share], Awaitable[None]]) -> None:
        """Handle what is past the checkpoint, then what is appended; up to a position if one is given.

        Raises:
            LostCheckpoint: the checkpoint is not ours any more.
            ProjectionFailedError: an event could not be handled, and the policy is to stop.
        """
        job = self.job
        with job.database.wake_up.listening() as waiter:
            try:
                if job.projection.on_failure == "halt_stream":
                    name = job.projection.checkpoint_name
                    self._halted = await job.read(lambda: halted_streams(job.database, None, name))
                while not job.stopping.is_set():
                    waiter.clear()
                    await self._catch_up()
                    if job.is_building:
                        await self.flush()
                        await on_caught_up(self)
                    if goal is not None and self.position >= goal and not job.is_building:
                        break
                    await self._flush_if_due()
                    await waiter.wait(self._patience())
            except (Stopping, ProjectionFailedError) as ending:
                await self.flush()
                if isinstance(ending, ProjectionFailedError):
                    raise
            else:
                await self.flush()

    async def _catch_up(self) -> None:
        """Handle what is past the position now."""
        job = self.job
        database = job.database
        # Read before the events: whatever is at or below it is visible to the queries that follow.
        head = await job.read(lambda: last_position(database))
        job.stats.head = max(job.stats.head, head)
        if head <= self.position:
            return
        is_last = False

        def follow(rows: list[EventRow]) -> Fetch[EventRow] | None:
            nonlocal is_last
            is_last = len(rows) < self._size
            self._size = next_size(rows, job.projection.batch_size)
            return None if is_last else partial(self._page, rows[-1][POSITION])

        def is_wanted() -> bool:
            return database.backend.reads_ahead

        async with aclosing(ahead(partial(self._page, self.position), follow, is_wanted)) as pages:
            async for rows in pages:
                job.stats.oldest = rows[0][STORED_AT]
                await self._deal_with(rows, max(head, rows[-1][POSITION]) if is_last else rows[-1][POSITION])
                if job.stopping.is_set():
                    return
        if not is_last:
            await self._deal_with([], max(head, self.position))

    async def _deal_with(self, rows: list[EventRow], upto: int) -> None:
        """Handle those of a page that are ours, with their keys; then everything up to a position is done."""
        self.job.require_place()
        known = self.job.known(rows, self.number)
        await self.job.fetch_keys(known)
        await self._work_off(known, upto)
        self._notice()

    async def _page(self, after: int) -> list[EventRow]:
        while True:
            rows = await self.job.read(lambda: page_after(self.job.database, self._wanted, after, self._size))
            # Asked afterwards: of a class that is registered by then the page may lack events.
            if self._seen_changes == self._registry.changes:
                return rows
            await self._look_for_types(after)

    async def _look_for_types(self, after: int) -> None:
        """Read the types of classes, too, that were registered since; say so if events up to a position were missed."""
        self._seen_changes = self._registry.changes
        before, self._types = self._types, self.job.projection.event_types(self._registry)
        self._wanted = self.job.selection(self._types)
        if before is not None and self._types is not None:
            await tell_of_new_types(self.job, after, self._types - before)

    async def _work_off(self, rows: list[EventRow], upto: int) -> None:
        """Handle rows, and whatever goes wrong with them; then everything up to a position is done."""
        while rows:
            failed = await self._apply(rows, upto)
            if failed is None:
                return
            if failed.index is None and len(rows) > 1:
                # Refused at the end: only one by one can it be told which event is to blame.
                for row in rows:
                    await self._work_off([row], row[POSITION])
                break
            index = failed.index or 0
            before = rows[failed.done : index]
            if before:
                await self._work_off(before, before[-1][POSITION])
            await self._try_again(rows[index], failed.error)
            rows = rows[index + 1 :]
        self.position = max(self.position, upto)
        self.job.advance(self.number, self.position, 0)

    async def _apply(self, rows: list[EventRow], upto: int) -> _Failed | None:
        if self.job.in_transaction:
            return await self._apply_in_transaction(rows, upto)
        return await self._apply_one_by_one(rows, upto)

    async def _apply_in_transaction(self, rows: list[EventRow], upto: int) -> _Failed | None:
        """All rows and the checkpoint in one transaction, or nothing."""
        at: int | None = None

        async def attempt() -> None:
            nonlocal at
            at = None
            async with self.job.database.transaction() as unit:
                if self._halted:
                    await self._look_up_halted(unit)
                writes = Writes()
                for index, row in enumerate(rows):
                    at = index
                    await self._handle_or_hold_back(row, unit, writes)
                at = None  # of what fails from here on it is not known which event's doing it is
                await self.job.execute(writes, unit)
                await self._save(unit, rows[-1], len(rows), upto)

        try:
            await self.job.retry_outages(attempt)
        except (LostCheckpoint, Stopping):
            raise
        except Exception as error:
            if self.job.is_outage(error) or self.job.is_moved(error):
                raise
            return _Failed(error, at, 0)
        self._is_saved(len(rows), upto)
        return None

    async def _handle_or_hold_back(self, row: EventRow, unit: Unit, writes: Writes) -> None:
        if self._halted:
            behind = self._halted.get(stream_of(row))
            if behind is not None:
                await hold_back(self.job.database, self.job.projection.checkpoint_name, row, behind)
                return
        await self.job.gather(row, unit, writes)

    async def _apply_one_by_one(self, rows: list[EventRow], upto: int) -> _Failed | None:
        """Each row by itself; the checkpoint follows."""
        for index, row in enumerate(rows):
            if self.job.stopping.is_set():
                raise Stopping
            try:
                if stream_of(row) not in self._halted or not await self._hold_back(row):
                    await self.job.retry_outages(lambda row=row: self.job.handle(row, None))  # type: ignore[misc]
            except (LostCheckpoint, Stopping):
                raise
            except Exception as error:
                if self.job.is_outage(error) or self.job.is_moved(error):
                    raise
                return _Failed(error, index, index)
            self.position = row[POSITION]
            self._last = row
            self._unsaved += 1
            self.job.advance(self.number, row[POSITION], 1)
            await self._flush_if_due()
        self.position = max(self.position, upto)
        self.job.advance(self.number, self.position, 0)
        return None

    async def _try_again(self, row: EventRow, error: Exception) -> None:
        """Try one event with growing pauses; when it has failed for the last time, do as the policy says."""
        retry = self.job.projection.retry
        for attempts in count(1):
            self.job.failed(
                error,
                f"attempt {attempts} of {retry.attempts} at event {row[EVENT_ID]} ({row[EVENT_TYPE]}, position "
                f"{row[POSITION]}) failed",
            )
            if attempts == retry.attempts:
                break
            await self.job.pause(retry.pause_after(attempts))
            failed = await self._apply([row], row[POSITION])
            if failed is None:
                return
            error = failed.error
        await self._give_up(row, error)

    async def _give_up(self, row: EventRow, error: Exception) -> None:
        projection = self.job.projection
        if projection.on_failure == "stop":
            # A version that was superseded may have lost its tables with that; then it is not the event.
            async with self.job.database.transaction() as unit:
                if not await self._fence.save(
                    self.job.database, unit, self._saved, self.position, self._last, self._unsaved
                ):
                    raise LostCheckpoint
            self._is_saved(0, self.position)
            raise ProjectionFailedError(
                projection.checkpoint_name,
                row[EVENT_TYPE],
                row[EVENT_ID],
                row[POSITION],
                error_text(error),
            ) from error

        async def write() -> None:
            async with self.job.database.transaction() as unit:
                await record(
                    self.job.database, projection.checkpoint_name, row, error, projection.retry.attempts - 1
                )
                await self._save(unit, row, self._unsaved + 1, row[POSITION])

        await self.job.retry_outages(write)
        self._is_saved(1, row[POSITION])
        logger.error(
            "projection %s: event %s (%s, position %d) has become a dead letter. Mend the handler, then call "
            "retry_dead_letters()",
            projection.checkpoint_name,
            row[EVENT_ID],
            row[EVENT_TYPE],
            row[POSITION],
        )
        if projection.on_failure == "halt_stream":
            self._halted.setdefault(stream_of(row), row[POSITION])

    async def _look_up_halted(self, unit: Unit) -> None:
        """Which streams are halted, now that no other worker can retry their dead letters."""
        database, name = self.job.database, self.job.projection.checkpoint_name
        if not await self._fence.hold(database, unit, self._saved):
            raise LostCheckpoint
        self._halted = await halted_streams(database, unit, name)

    async def _hold_back(self, row: EventRow) -> bool:
        """Make an event wait behind the failed one of its stream; False if that has been mended."""

        async def write() -> bool:
            async with self.job.database.transaction() as unit:
                await self._look_up_halted(unit)
                behind = self._halted.get(stream_of(row))
                if behind is None:
                    return False
                await hold_back(self.job.database, self.job.projection.checkpoint_name, row, behind)
                return True

        return await self.job.retry_outages(write)

    async def _save(self, unit: Unit | None, last: EventRow | None, count: int, position: int) -> None:
        if not await self._fence.save(self.job.database, unit, self._saved, position, last, count):
            raise LostCheckpoint

    def _is_saved(self, events: int, position: int) -> None:
        """The checkpoint is at the position, and so many events more are dealt with."""
        self.position = self._saved = position
        self._unsaved = 0
        self._saved_at = time.monotonic()
        self.job.advance(self.number, position, events)

    async def flush(self) -> None:
        """Save what is not saved yet."""
        if self.position <= self._saved:
            return
        position = self.position
        await self.job.retry_outages(lambda: self._save(None, self._last, self._unsaved, position))
        self._is_saved(0, position)

    async def _flush_if_due(self) -> None:
        if self._unsaved >= self.job.every.events or self._patience(idle=False) <= 0:
            await self.flush()

    def _patience(self, *, idle: bool = True) -> float:
        """Seconds until the checkpoint is to be saved; when idle, at most until the next poll."""
        poll = self.job.poll_seconds if idle else float("inf")
        if self.position <= self._saved:
            return poll
        limit = self.job.every.seconds if self._unsaved else IDLE_SAVE_SECONDS
        left = self._saved_at + limit - time.monotonic()
        return max(0.001, min(poll, left)) if idle else left
