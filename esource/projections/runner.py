"""Running a projection: leases, partitions, the live tail, rebuilding, dead letters, health."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

from esource.checks import check_seconds, check_whole
from esource.database.cancellation import uninterrupted
from esource.database.sources import require_whole
from esource.database.wakeup import POLL_SECONDS
from esource.errors import DatabaseError, InvalidOptionError, error_text
from esource.log.pages import LAST_POSITION
from esource.log.reader import Readable
from esource.projections.checkpoints import State, states
from esource.projections.dead_letters import Retried, retry
from esource.projections.job import Job, LostCheckpoint, Stopping
from esource.projections.projection import Projection
from esource.projections.share import Share
from esource.projections.versions import active_in, prepare, rewind, take_over
from esource.repositories.checkpoint import CheckpointRepository
from esource.repositories.lease import LEASE_SECONDS, RENEWALS, STANDBY_SECONDS, new_owner
from esource.telemetry import Health

logger = logging.getLogger("esource")

DROP_SECONDS = 1.0
"""How long a task that was cancelled may take to end before it is cancelled again, in seconds."""

STOP_SECONDS = 10.0
"""How long the batch at hand may take after `ProjectionRunner.stop`, in seconds."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run has come."""

    position: int
    """The global position up to which everything is dealt with."""
    head: int
    """The end of the log, when last seen."""
    events: int
    """Events dealt with by this runner."""
    events_per_second: float
    """Over the last ten seconds."""


class ProjectionRunner:
    """Keeps a projection's read model up to date with a store.

    Any number of runners of one projection may work at once, in this process or in others: each
    partition is held by one of them under a lease, the others stand by and take over from one that
    ended or died. Making one does no I/O.

    Example:
        >>> runner = ProjectionRunner(store, OrderTotals())
        >>> await runner.run(live=False)  # up to the end of the log
        >>> await runner.run()  # and on, until stop()

    Args:
        store: Whose log is read, and whose database holds the checkpoint and, for ``in_transaction``,
            the read model.
        projection: What is to be kept up to date.
        partitions: Into how many parts the streams are divided, to be shared by that many workers at
            most. Each part keeps the order of its streams and reads the whole log for itself. The number
            stays the same until a rebuild.
        lease_seconds: How long the others wait for a worker that died.
        poll_seconds: How long to wait for a wake-up before looking again.
        owner: This worker's name, unlike any other's; made up if left out.

    Raises:
        InvalidOptionError: an option that makes no sense, or a projection without handlers.
    """

    def __init__(
        self,
        store: Readable,
        projection: Projection,
        *,
        partitions: int = 1,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        owner: str | None = None,
    ) -> None:
        require_whole(store.reader, "a projection")
        if not isinstance(projection, Projection) or not projection.has_handlers:
            raise InvalidOptionError(f"{projection!r} is no projection with a method under @handles(...)")
        self._job = Job(
            store.reader,
            projection,
            owner=owner or new_owner(),
            partitions=check_whole("partitions", partitions, least=1),
            lease_seconds=lease_seconds,
            poll_seconds=check_seconds("poll_seconds", poll_seconds),
        )
        self._renewal_seconds = self._job.leases.seconds / RENEWALS
        self._parts: dict[int, Share] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._on_progress: Callable[[RunProgress], None] | None = None
        self._wants_share = False

    @property
    def owner(self) -> str:
        """This worker's name, as its leases show it."""
        return self._job.leases.owner

    async def run(
        self, *, live: bool = True, on_progress: Callable[[RunProgress], None] | None = None
    ) -> None:
        """Handle what is past the checkpoint; then what is appended, until `stop`.

        Returns as well when a newer version of the projection has taken over.

        Args:
            live: Whether to go on at the end of the log. Otherwise it returns when the projection, by
                whichever worker, has reached the position that the log has now.
            on_progress: Called after each batch.

        Raises:
            ProjectionFailedError: an event could not be handled, and the policy is to stop.
            InvalidOptionError: it runs already, or inside a transaction, or it has run with another
                number of partitions.
            DatabaseError: the database was away for longer than the store waits for it.
        """
        job = self._job
        if job.stats.is_running:
            raise InvalidOptionError("the runner is at work already: make another one")
        if job.database.current_unit() is not None:
            raise InvalidOptionError("a projection has transactions of its own: run it outside of yours")
        self._on_progress = on_progress
        with job.stats.running(metrics=job.reader.tracer is not None):
            try:
                if not await job.retry_outages(lambda: prepare(job)):
                    logger.info("%s: a newer version is active", job.stats.name)
                    return
                await self._share(None if live else await self._head())
            except Stopping:
                return
            except Exception as error:
                logger.error(  # noqa: TRY400 - the traceback is there, and raised as well
                    "projection %s has ended, and does nothing until it is run again: %s",
                    job.stats.name,
                    error_text(error),
                    exc_info=error,
                )
                raise
            finally:
                await uninterrupted(self._let_go())

    async def rebuild(
        self, *, from_position: int = 0, on_progress: Callable[[RunProgress], None] | None = None
    ) -> None:
        """Empty the read model (`Projection.reset`) and handle everything past a position again, up to
        what is the end of the log now. Other workers of the projection go on from there, too.

        Dead letters of the events past that position are closed: they are tried again with the rest.
        The errors are those of `run`.
        """
        if self._job.stats.is_running:
            raise InvalidOptionError("the runner is at work already: make another one")
        if self._job.stopping.is_set():
            raise InvalidOptionError("the runner was stopped: make another one")
        await self._job.retry_outages(lambda: rewind(self._job, from_position))
        await self.run(live=False, on_progress=on_progress)

    def stop(self) -> None:
        """End `run` after the batch at hand, from any task of the loop; progress is saved, leases are let
        go. A batch that takes 10 more seconds is cancelled, and handled again by the next run. A stopped
        runner stays stopped: a `run` that begins later returns at once."""
        self._job.stopping.set()
        self._job.database.wake_up.set()

    async def retry_dead_letters(self, ids: Collection[int] | None = None) -> Retried:
        """Try dead letters again, all of this projection or those with these ids, in the order of the
        log. What succeeds is resolved, with ``in_transaction`` together with the read model; an event
        that fails again holds back the later ones of its stream. May be called while workers run.

        Raises:
            DatabaseError: the database was away for longer than the store waits for it.
        """
        return await retry(self._job, ids)

    async def health(self) -> Health:
        """How the projection is doing, by whichever worker, and this one in particular. Three queries."""
        job = self._job
        own = job.own(await states(job.database)).values()
        position = min((state.position for state in own), default=0)
        types = job.projection.event_types(job.reader.codec.registry)
        events, seconds = await CheckpointRepository(job.database).get_lag(position, types)
        return job.stats.health(position=position, lag_events=events, lag_seconds=seconds)

    async def _share(self, goal: int | None) -> None:
        """Hold leases and keep a task at work for each, until stopped, done, or superseded."""
        job = self._job
        with job.stopping.future() as stopped:
            while not job.stopping.is_set():
                try:
                    if await self._balance(goal):
                        return
                except DatabaseError as error:
                    # The leases run out if this lasts; a worker that takes them over is behind the fence.
                    job.failed(error, "its leases cannot be renewed; it is tried again")
                standing_by = len(self._tasks) < job.partitions or goal is not None
                await asyncio.wait(
                    {stopped, *self._tasks.values()},
                    timeout=min(self._renewal_seconds, STANDBY_SECONDS)
                    if standing_by
                    else self._renewal_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                self._collect()
            if self._tasks:  # they end by themselves, after the batch at hand
                _, late = await asyncio.wait(self._tasks.values(), timeout=STOP_SECONDS)
                if late:
                    logger.warning(
                        "projection %s: its handler has not ended %g s after stop(), and is cancelled; the batch at "
                        "hand is handled again by the next run",
                        job.stats.name,
                        STOP_SECONDS,
                    )
                self._collect()

    async def _balance(self, goal: int | None) -> bool:
        """Renew, give up and take up leases; whether there is nothing more to do."""
        job = self._job
        found = await states(job.database)
        if (active_in(found, job.projection.name) or 0) > job.projection.version:
            logger.info("%s: a newer version has taken over", job.stats.name)
            return True
        job.is_building = job.is_building and active_in(found, job.projection.name) != job.projection.version
        own = job.own(found)
        if goal is not None and not job.is_building and self._is_reached(own, goal):
            return True
        held = {job.checkpoint(number): number for number in self._tasks}
        kept = await job.leases.renew(held)
        for name in held.keys() - kept:
            await self._drop(held[name])
        quota = self._quota(found)
        for number in sorted(self._tasks)[quota:]:
            await self._drop(number)
            await job.leases.release([job.checkpoint(number)])
        for number, name in enumerate(job.checkpoints):
            state = own.get(name)
            if len(self._tasks) >= quota:
                break
            if number in self._tasks or (state and state.owner not in (None, self.owner)):
                continue
            if goal is not None and not job.is_building and state and state.position >= goal:
                continue
            position = await job.leases.acquire(name)
            if position is not None:
                self._start(number, position, goal)
        await self._ask_for_a_share()
        return False

    def _is_reached(self, own: dict[str, State], goal: int) -> bool:
        return len(own) == self._job.partitions and all(state.position >= goal for state in own.values())

    def _quota(self, found: dict[str, State]) -> int:
        """How many partitions are this worker's share: no more than the others of those at work."""
        job = self._job
        workers = {state.owner for state in job.own(found).values()} | {self.owner}
        if job.partitions > 1 and job.projection.checkpoint_name in found:
            workers.add(found[job.projection.checkpoint_name].owner)
        return -(-job.partitions // len(workers - {None}))

    async def _ask_for_a_share(self) -> None:
        """A worker without any partition holds the lease of the bare name: the others make room for it."""
        job = self._job
        if job.partitions == 1:
            return
        if not self._tasks:
            self._wants_share = await job.leases.acquire(job.projection.checkpoint_name) is not None
        elif self._wants_share:
            self._wants_share = False
            await job.leases.release([job.projection.checkpoint_name])

    def _start(self, number: int, position: int, goal: int | None) -> None:
        part = Share(self._job, number, position, self._tell)
        self._parts[number] = part
        self._tasks[number] = asyncio.get_running_loop().create_task(part.run(goal, self._take_over))

    def _collect(self) -> None:
        """Forget the tasks that have ended; raises what one of them raised."""
        for number, task in list(self._tasks.items()):
            if task.done():
                self._forget(number)
                if task.cancelled():
                    logger.warning(
                        "projection %s: its task was cancelled by somebody else, and begins anew",
                        self._job.stats.name,
                    )
                    continue
                error = task.exception()
                if error is not None and not isinstance(error, (LostCheckpoint, Stopping)):
                    raise error

    async def _drop(self, number: int) -> None:
        """End a partition's task, at once: its transaction is rolled back."""
        task = self._tasks[number]
        self._forget(number)
        while not task.done():
            task.cancel()
            # Again, if that got lost: a handler may call what swallows a cancellation (wait_for did, before
            # Python 3.12), and the lease must not wait for it.
            await asyncio.wait([task], timeout=DROP_SECONDS)
        if not task.cancelled():
            task.exception()  # seen; the runner that has the partition now meets it, too

    def _forget(self, number: int) -> None:
        del self._tasks[number], self._parts[number]
        self._job.leave(number)

    async def _let_go(self) -> None:
        """End what runs, and let others have the leases at once."""
        job = self._job
        for number, part in list(self._parts.items()):
            await self._drop(number)
            with suppress(LostCheckpoint, Stopping, DatabaseError):
                await part.flush()
        self._wants_share = False
        try:
            await job.leases.release({*job.checkpoints, job.projection.checkpoint_name})
        except DatabaseError as error:
            logger.warning("%s: leases are left to run out: %s", job.stats.name, error)
        await job.database.wake_up.settle()

    async def _take_over(self, part: Share) -> None:
        if await self._job.retry_outages(lambda: take_over(self._job)):
            self._job.is_building = False
            raise LostCheckpoint  # the switch has moved the checkpoints

    async def _head(self) -> int:
        head: int = (await self._job.database.rows(LAST_POSITION, {}))[0][0] or 0
        return head

    def _tell(self) -> None:
        if self._on_progress is not None:
            stats = self._job.stats
            self._on_progress(RunProgress(stats.position, stats.head, stats.events, stats.events_per_second))
