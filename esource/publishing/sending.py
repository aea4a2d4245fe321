"""One batch of claimed rows on its way to the publisher, and what becomes of each row."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Hashable, Sequence
from dataclasses import dataclass, field

from esource.database.calls import answer_of, called
from esource.database.cancellation import drop, uninterrupted
from esource.database.patience import Retry
from esource.errors import error_text
from esource.publishing.claims import Claims
from esource.publishing.publishers import BatchPublisher, Publisher
from esource.repositories.lease import Keeper
from esource.repositories.outbox_entries import OutboxEntry
from esource.tables.rows import StreamId
from esource.telemetry import FollowerStats

logger = logging.getLogger("esource")


@dataclass(slots=True)
class Retries:
    """When a row that failed is tried again, and when no more."""

    retry: Retry
    blocking: bool
    _next: float = 0.0
    """When the next row that failed here is due, by the monotonic clock."""

    def pause_after(self, attempts: int) -> float:
        """How long a row waits that has failed so many times, in seconds."""
        pause = self.retry.pause_after(attempts)
        now = time.monotonic()
        self._next = now + pause if self._next < now else min(self._next, now + pause)
        return pause

    def seconds_to_next(self) -> float:
        """How long until a row that failed here is due; endless if none is."""
        left = self._next - time.monotonic()
        return left if left > 0 else math.inf


@dataclass(slots=True)
class Batch:
    """Claimed rows on their way to the publisher."""

    entries: Sequence[OutboxEntry]
    claims: Claims
    publisher: Publisher
    retries: Retries
    room: asyncio.Semaphore
    """For how many streams may be published at a time."""
    publish_seconds: float | None
    stats: FollowerStats
    _published: list[OutboxEntry] = field(default_factory=list)
    _confirmed: int = 0
    _confirming: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_stopped: bool = False
    _is_begun: bool = False

    async def publish(self) -> None:
        """Send them; whatever happens, record what was sent and let go of the rest."""
        self._is_begun = True
        try:
            async with Keeper(self._renew, self.claims.seconds):
                await self._send()
        finally:
            await uninterrupted(self._settle())

    async def leave(self) -> None:
        """Let go of the rows if the task of `publish` was cancelled before its first step: then nothing of it ran."""
        if not self._is_begun:
            await self._settle()

    def stop(self) -> None:
        """Begin with no further message."""
        self._is_stopped = True

    async def _send(self) -> None:
        if isinstance(self.publisher, BatchPublisher) and all(entry.event_data for entry in self.entries):
            try:
                await self._call(answer_of(self.publisher.publish_many, self.entries), "publish_many()")
            except Exception as error:
                logger.warning(
                    "relay %s: publishing %d rows at once failed, now one by one: %s",
                    self.stats.name,
                    len(self.entries),
                    error_text(error),
                    exc_info=error,
                )
            else:
                self._published += self.entries
                return
        await self._send_by_stream()

    async def _send_by_stream(self) -> None:
        """Send row by row: those of one stream one after the other, several streams side by side."""

        async def send(stream: list[OutboxEntry]) -> None:
            async with self.room:
                for number, entry in enumerate(stream, 1):
                    if not await self._is_done(entry):
                        await self.claims.release(stream[number:])
                        return

        # `wait`, not `gather`: if other code cancels one of them, the relay is not cancelled.
        tasks = [asyncio.ensure_future(send(stream)) for stream in in_streams(self.entries)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await uninterrupted(drop(tasks))
        for task in done:
            if not task.cancelled():
                task.result()

    async def _is_done(self, entry: OutboxEntry) -> bool:
        """Send one; whether what follows it in its stream may be sent."""
        if self.claims.are_running_out or self._is_stopped:
            return False
        most = self.retries.retry.attempts if entry.event_data else 1
        try:
            await self._send_one(entry)
        except Exception as error:
            self.stats.failed(error)
            attempts = entry.retry_count + 1
            self._say(entry, error, attempts, most)
            # First what went before it in its stream: no other relay is to find that free.
            await self._confirm()
            pause = self.retries.pause_after(attempts)
            again = await self.claims.fail(entry, error, delay=pause, most=most)
            return not (again or self.retries.blocking)
        self._published.append(entry)
        return True

    def _say(self, entry: OutboxEntry, error: BaseException, attempts: int, most: int) -> None:
        is_last = attempts >= most
        logger.log(
            logging.ERROR if is_last else logging.WARNING,
            "relay %s: attempt %d of %d at row %s (%s, event %s) failed: %s. %s",
            self.stats.name,
            attempts,
            most,
            entry.id,
            entry.event_type,
            entry.event_id,
            error_text(error),
            "It is given up; mend the cause, then call OutboxRepository.retry_failed()"
            if is_last
            else "It is tried again",
            exc_info=error,
        )

    async def _send_one(self, entry: OutboxEntry) -> None:
        if entry.unreadable is not None:
            place = "" if entry.global_position is None else f", global position {entry.global_position}"
            raise ValueError(f"row {entry.id} of the outbox{place}: {entry.unreadable}")
        if not entry.event_data:
            raise LookupError("the event was deleted from the log")
        await self._call(answer_of(self.publisher.publish, entry), "publish()")

    async def _call(self, work: Awaitable[None], what: str) -> None:
        await called(work, what, self.publish_seconds, "publish_seconds", self.stats.note)

    async def _renew(self) -> None:
        """While publishing takes long: record what is done, and keep the rest for another term."""
        await self._confirm()
        await self.claims.renew()

    async def _settle(self) -> None:
        await self.claims.database.persist(self._confirm)
        if self._confirmed < len(self.entries):
            await self.claims.release(self.entries)

    async def _confirm(self) -> None:
        async with self._confirming:
            done = self._published[self._confirmed :]
            await self.claims.confirm(done)
            self._confirmed += len(done)
            reached = max([self.stats.position, *(entry.global_position or 0 for entry in done)])
            self.stats.advance(reached, len(done))


def in_streams(entries: Sequence[OutboxEntry]) -> list[list[OutboxEntry]]:
    """The entries by streams, each stream's in order.

    A tenant may write a row that names another tenant's stream. Only rows of events in the log, and those of the same tenant, are
    put into one line.
    """

    def stream_of(entry: OutboxEntry) -> StreamId:
        return StreamId(entry.aggregate_id, entry.aggregate_type)

    logged = {(stream_of(entry), entry.tenant_id) for entry in entries if entry.is_in_log}
    streams: dict[Hashable, list[OutboxEntry]] = {}
    for entry in entries:
        stream = stream_of(entry)
        key = (stream, entry.tenant_id)
        streams.setdefault(stream if key in logged else key, []).append(entry)
    return list(streams.values())
