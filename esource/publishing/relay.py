"""Publishing what the outbox holds: at least once, each stream in its order, by any number of relays."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType

from sqlalchemy.engine import URL
from typing_extensions import Self

from esource.checks import LARGEST_AGE_DAYS, check_name, check_seconds, check_whole
from esource.database.calls import wait_after_stop
from esource.database.cancellation import drop, uninterrupted
from esource.database.patience import Retry
from esource.database.sources import Source, database_of, require_whole
from esource.database.supervision import MAX_RESTART_SECONDS, RESTART_SECONDS, Supervisor, logging_its_end
from esource.database.wakeup import POLL_SECONDS
from esource.errors import DatabaseError, error_text
from esource.moments import utc_now
from esource.publishing.claims import Claims, Fairness
from esource.publishing.publishers import BatchPublisher, Publisher
from esource.publishing.sending import Batch, Retries
from esource.repositories.lease import LEASE_SECONDS, new_owner
from esource.repositories.outbox import OutboxRepository
from esource.telemetry import FollowerStats, Health

logger = logging.getLogger("esource")

PUBLISH_SECONDS = 60.0
"""How long a publish may take unless it is said otherwise, in seconds."""

GO_ON_SECONDS = 1.0
"""After so many seconds a running relay takes further rows beside a batch that is not done."""

LONGEST_OWNER = 240
"""Characters of a relay's name: the number of a batch is written behind it."""

CLEANING_SECONDS = 3600.0
"""How often a running relay deletes what was published long ago, in seconds."""


class OutboxRelay:
    """Publishes the rows of an outbox.

    A row is published at least once: a relay that dies after publishing and before recording it leaves the
    row to another, after its claim has run out. Rows of one stream are published in order, one after the
    other; those of different streams side by side. Any number of relays may work on one outbox, and in
    normal running no row is published by two of them. A failed row is tried again with growing pauses, and
    the rest of its stream waits for it; after ``max_attempts`` it is given up, with the status ``failed``. A
    publish that takes longer than ``publish_seconds`` is cancelled, and has failed; a running relay goes on with
    other streams meanwhile, unless its publisher is a `BatchPublisher`, which gets one batch at a time.

    Example:
        >>> relay = OutboxRelay(store, FastStreamPublisher(broker, "shop.{event_type}", source="/shop"))
        >>> await relay.drain()  # all that waits now
        >>> await relay.run()  # and on, until stop()
        >>> async with relay.supervised():  # in the background of a service
        ...     await serve()

    Args:
        database: Where the outbox is: a store, an engine, a session factory, a URL.
        publisher: What sends a message; see `Publisher` and `BatchPublisher`.
        batch_size: Rows that are claimed together at most.
        concurrency: Streams that are published at a time.
        publish_seconds: How long one call of the publisher may take, in seconds, ``publish_many`` included; None for no
            limit.
        max_attempts: How often a row is tried before it is given up.
        retry_seconds: The pause after a first failure; it doubles with each further one, and is then drawn
            between a half and the whole of that, so that many rows do not come back at once.
        max_retry_seconds: The longest pause.
        block_failed_streams: Whether a row that was given up holds up the rest of its stream, until
            `OutboxRepository.retry_failed`, or until it is marked as published by hand.
        lease_seconds: How long the others wait for the rows of a relay that died.
        poll_seconds: How long to wait for a wake-up before looking again.
        keep_published_days: Delete rows published so many days ago or longer, now and then while running; None keeps them.
        name: For health and metrics.
        owner: This relay's name, unlike any other's, of at most 240 characters; made up if left out.
        enable_metrics: OpenTelemetry metrics, if it is installed.

    Raises:
        InvalidOptionError: an option that makes no sense.
        InvalidEventError: a name that cannot be stored.
    """

    def __init__(
        self,
        database: Source,
        publisher: Publisher,
        *,
        batch_size: int = 100,
        concurrency: int = 8,
        publish_seconds: float | None = PUBLISH_SECONDS,
        max_attempts: int = 10,
        retry_seconds: float = 1.0,
        max_retry_seconds: float = 300.0,
        block_failed_streams: bool = False,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        keep_published_days: int | None = None,
        name: str = "outbox",
        owner: str | None = None,
        enable_metrics: bool = True,
    ) -> None:
        require_whole(database, "a relay")
        self._database = database_of(database)
        self._owns_database = isinstance(database, (str, URL))
        self._outbox = OutboxRepository(self._database)
        self._publisher = publisher
        self._batch_size = check_whole("batch_size", batch_size, least=1)
        self._concurrency = check_whole("concurrency", concurrency, least=1)
        if publish_seconds is not None:
            check_seconds("publish_seconds", publish_seconds)
        self._publish_seconds = publish_seconds
        # A producer that sends many messages in one transaction has one transaction at a time.
        self._most_batches = 1 if isinstance(publisher, BatchPublisher) else self._concurrency
        self._retries = Retries(
            Retry(
                attempts=check_whole("max_attempts", max_attempts, least=1),
                first_seconds=check_seconds("retry_seconds", retry_seconds),
                longest_seconds=check_seconds("max_retry_seconds", max_retry_seconds),
            ),
            block_failed_streams,
        )
        self._poll_seconds = check_seconds("poll_seconds", poll_seconds)
        self._keep_days = keep_published_days
        if keep_published_days is not None:
            check_whole("keep_published_days", keep_published_days, most=LARGEST_AGE_DAYS)
        self.owner = new_owner() if owner is None else check_name("owner", owner, LONGEST_OWNER)
        """This relay's name in the rows that it has claimed, followed by the number of the batch."""
        self._lease_seconds = check_seconds("lease_seconds", lease_seconds)
        self._batches = count(1)
        self._fairness = Fairness()
        self._enable_metrics = enable_metrics
        self._stats = FollowerStats("relay", check_name("name", name), lambda: self._database.outage.reason)
        self._stops = 0
        """How often it was told to stop."""
        self._supervisor: Supervisor | None = None
        self._next_cleaning = 0.0

    async def run_once(self) -> int:
        """Claim the next rows and publish them; how many were dealt with, published or not.

        Raises:
            DatabaseError: the database failed; what was claimed is free again when the lease is over.
        """
        batch = await self._next_batch(asyncio.Semaphore(self._concurrency))
        if batch is None:
            return 0
        await batch.publish()
        return len(batch.entries)

    async def _next_batch(self, room: asyncio.Semaphore) -> Batch | None:
        claims = Claims(
            self._database,
            f"{self.owner}#{next(self._batches)}",  # the relay may be asked for several at once
            self._lease_seconds,
            blocking=self._retries.blocking,
        )
        try:
            entries = await self._fairness.take(claims, self._batch_size)
        except asyncio.CancelledError:
            await uninterrupted(claims.release_all())
            raise
        if not entries:
            return None
        return Batch(
            entries, claims, self._publisher, self._retries, room, self._publish_seconds, self._stats
        )

    async def drain(self) -> int:
        """Publish until nothing is left that may be published now; how many rows were published.

        Rows that failed and wait for their next attempt are left. While a publish hangs, until ``publish_seconds`` are
        over, the other streams go on; `stop` ends this as it ends `run`.

        Raises:
            DatabaseError: the database failed; what was claimed is free again when the lease is over.
        """
        before = self._stats.events
        await self._keep_publishing(live=False, stops=self._stops)
        return self._stats.events - before

    async def run(self) -> None:
        """Publish what there is, then whatever comes, until `stop` or cancellation. A relay that was stopped
        stays stopped.

        While the database is away it is tried again, with every poll.
        """
        with logging_its_end(self._stats):
            await self._run()

    async def _run(self) -> None:
        try:
            with self._stats.running(metrics=self._enable_metrics):
                await self._keep_publishing(live=True, stops=0)
        finally:
            await uninterrupted(self._database.wake_up.settle())

    @asynccontextmanager
    async def supervised(
        self, *, restart_seconds: float = RESTART_SECONDS, max_restart_seconds: float = MAX_RESTART_SECONDS
    ) -> AsyncIterator[Self]:
        """Run in the background until the block ends. What ends the run is logged, and it is begun again.

        Args:
            restart_seconds: The pause before it is begun again, in seconds; it doubles with each further failure, and
                is drawn between a half and the whole of that.
            max_restart_seconds: The longest pause. A run that lasted for longer begins with the shortest again.

        Raises:
            InvalidOptionError: it runs already, or an option makes no sense.
        """
        supervisor = Supervisor(self._stats, self._run, self.stop, restart_seconds, max_restart_seconds)
        supervisor.begin()
        self._supervisor = supervisor
        try:
            yield self
        finally:
            await supervisor.end()

    async def wait(self) -> None:
        """Inside ``async with relay.supervised():``, wait until it was stopped."""
        if self._supervisor is not None:
            await self._supervisor.wait()

    async def _keep_publishing(self, *, live: bool, stops: int) -> None:
        """Publish until there is one `stop` more than so many; if not live, also until nothing is left."""
        under_way: dict[asyncio.Task[None], Batch] = {}
        room = asyncio.Semaphore(self._concurrency)
        try:
            with self._database.wake_up.listening() as waiter:
                while self._stops == stops:
                    waiter.clear()
                    try:
                        busy = await self._begin_next(under_way, room)
                        if live:
                            await self._clean()
                    except DatabaseError as error:
                        if not live:
                            raise
                        self._stats.failed(error)
                        logger.warning(
                            "relay %s: %s. It is tried again with the next poll",
                            self._stats.name,
                            error_text(error),
                        )
                        busy = False
                    if not (busy or live or under_way):
                        break
                    if not busy and self._stops == stops:
                        await waiter.wait(min(self._poll_seconds, self._retries.seconds_to_next()))
            await self._end(under_way)
        finally:
            await uninterrupted(self._drop(under_way))

    async def _drop(self, under_way: dict[asyncio.Task[None], Batch]) -> None:
        """End what is under way, at once."""
        await drop(under_way)
        for batch in under_way.values():
            await batch.leave()

    async def _begin_next(self, under_way: dict[asyncio.Task[None], Batch], room: asyncio.Semaphore) -> bool:
        """Publish the next rows; whether there were any, or earlier ones have ended. What hangs is left to itself, and
        hinders other streams only when it takes up all the room there is."""
        batch = await self._next_batch(room) if len(under_way) < self._most_batches else None
        if batch is not None:
            task = asyncio.create_task(batch.publish())
            under_way[task] = batch
            await asyncio.wait([task], timeout=GO_ON_SECONDS)
            if not task.done():
                task.add_done_callback(lambda _: self._database.wake_up.set())
        ended = [task for task in under_way if task.done()]
        for task in ended:
            await uninterrupted(under_way.pop(task).leave())
            if not task.cancelled():
                task.result()
        return batch is not None or bool(ended)

    async def _end(self, under_way: dict[asyncio.Task[None], Batch]) -> None:
        """After `stop`: let the messages at hand come to their end, for a while."""
        if not under_way:
            return
        for batch in under_way.values():
            batch.stop()
        await wait_after_stop(
            under_way,
            self._stats.title,
            "its publisher",
            "what it was about to publish is published by the next run",
        )

    def stop(self) -> None:
        """End `run` after the messages at hand, from any task of the loop. A publish that takes 10 more seconds is
        cancelled; its row is published again by the next run."""
        self._stops += 1
        if self._supervisor is not None:
            self._supervisor.stop()
        self._database.wake_up.set()

    async def _clean(self) -> None:
        if self._keep_days is not None and time.monotonic() >= self._next_cleaning:
            self._next_cleaning = time.monotonic() + CLEANING_SECONDS
            await self._outbox.cleanup_published(self._keep_days)

    async def health(self) -> Health:
        """How this relay and its outbox are doing. One query; if the database cannot be reached within 5 seconds,
        what this relay has seen last."""
        return await self._stats.ask(self._lag())

    def health_now(self) -> Health:
        """How this relay is doing, by what it has noted itself. No I/O: the rows that wait are not in it."""
        return self._stats.noted()

    async def _lag(self) -> tuple[int, int, float]:
        stats = await self._outbox.get_stats()
        oldest = stats.oldest_pending
        age = 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())
        return self._stats.position, stats.pending_count, age

    async def close(self) -> None:
        """End `run`; close the database if it was opened here, from a URL."""
        self.stop()
        if self._owns_database:
            await self._database.close()
        else:
            await self._database.wake_up.settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
