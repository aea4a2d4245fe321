"""Which partitions of a projection this worker holds, and the task at work for each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from esource.database.calls import wait_after_stop
from esource.database.cancellation import drop
from esource.errors import DatabaseError, InvalidOptionError, StoreMovedError
from esource.projections.checkpoints import CheckpointState, states
from esource.projections.job import Job, LostCheckpoint, Stopping
from esource.projections.missed import tell_of_missed
from esource.projections.names import Doing
from esource.projections.share import Share
from esource.projections.versions import active_in, take_over
from esource.repositories.lease import RENEWALS, STANDBY_SECONDS

logger = logging.getLogger("esource")


class Shares:
    """The leases that a worker holds, each with its task. No I/O to make it."""

    def __init__(self, job: Job, notice: Callable[[], None]) -> None:
        self.job = job
        self._notice = notice
        self.renewal_seconds = job.leases.seconds / RENEWALS
        self._parts: dict[int, Share] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._wants_share = False
        self._looked_at: dict[str, int] = {}
        """Where its checkpoints were when `look_back` looked at them."""
        self._told: set[str] = set()
        """Workers of another class that were told of."""

    async def look_back(self) -> None:
        """Before it holds anything: say so if its checkpoints lack what it would have handled. One query, and more where
        other types were handled before."""
        job = self.job
        await job.require_filled()
        own = job.own(await states(job.database))
        if await tell_of_missed(job, own):
            # Not to be known as one that has handled all of its types: the next start says it again.
            job.leases.owner = job.leases.owner.replace(str(job.doing), str(job.doing._replace(types="part")))
        self._looked_at = {name: state.position for name, state in own.items()}

    async def hold(self, goal: int | None) -> None:
        """Hold leases and keep a task at work for each, until stopped, done, or superseded."""
        job = self.job
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
                    timeout=min(self.renewal_seconds, STANDBY_SECONDS)
                    if standing_by
                    else self.renewal_seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                self._collect()
            if self._tasks:  # they end by themselves, after the batch at hand
                await wait_after_stop(
                    self._tasks.values(),
                    job.stats.title,
                    "its handler",
                    "the batch at hand is handled again by the next run",
                )
                self._collect()

    async def _balance(self, goal: int | None) -> bool:
        """Renew, give up and take up leases; whether there is nothing more to do."""
        job = self.job
        job.require_place()
        found = await states(job.database)
        if (active_in(found, job.projection.name) or 0) > job.projection.version:
            logger.info("%s: a newer version has taken over", job.stats.name)
            return True
        job.is_building = job.is_building and active_in(found, job.projection.name) != job.projection.version
        own = job.own(found)
        if goal is not None and not job.is_building and self._is_reached(own, goal):
            return True
        self._look_at_others(own)
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
            if number in self._tasks or (state and state.owner not in (None, job.leases.owner)):
                continue
            if goal is not None and not job.is_building and state and state.position >= goal:
                continue
            await self._take(number, state, goal)
        await self._ask_for_a_share()
        return False

    async def _take(self, number: int, state: CheckpointState | None, goal: int | None) -> None:
        """Hold a partition, if its lease is free, and begin to work on it."""
        job, name = self.job, self.job.checkpoint(number)
        position = await job.leases.acquire(name)
        if position is None:
            return
        if state is not None and position > self._looked_at.get(name, 0):  # another has moved it meanwhile
            await tell_of_missed(job, {name: state})
        self._start(number, position, goal)

    def _look_at_others(self, own: dict[str, CheckpointState]) -> None:
        """Say so, once for each worker, if one runs another class under this name."""
        job = self.job
        for owner in {state.owner for state in own.values() if state.owner} - self._told:
            other = Doing.in_owner(owner)
            if other is not None and other.is_of_another_class(job.doing):
                self._told.add(owner)
                error = InvalidOptionError(
                    f"{job.doing.class_name} shares its checkpoint with another class of that name, "
                    f"{other.class_name}, which is at work ({owner}): each passes over what the other handles. Give one of "
                    "them another name; if the other is the same class of an older release, let that process end"
                )
                job.stats.note(error)
                logger.error("%s: %s", job.stats.title, error)

    def _is_reached(self, own: dict[str, CheckpointState], goal: int) -> bool:
        return len(own) == self.job.partitions and all(state.position >= goal for state in own.values())

    def _quota(self, found: dict[str, CheckpointState]) -> int:
        """How many partitions are this worker's share: no more than the others of those at work."""
        job = self.job
        workers = {state.owner for state in job.own(found).values()} | {job.leases.owner}
        if job.partitions > 1 and job.projection.checkpoint_name in found:
            workers.add(found[job.projection.checkpoint_name].owner)
        return -(-job.partitions // len(workers - {None}))

    async def _ask_for_a_share(self) -> None:
        """A worker without any partition holds the lease of the bare name: the others make room for it."""
        job = self.job
        if job.partitions == 1:
            return
        if not self._tasks:
            self._wants_share = await job.leases.acquire(job.projection.checkpoint_name) is not None
        elif self._wants_share:
            self._wants_share = False
            await job.leases.release([job.projection.checkpoint_name])

    def _start(self, number: int, position: int, goal: int | None) -> None:
        part = Share(self.job, number, position, self._notice)
        self._parts[number] = part
        self._tasks[number] = asyncio.get_running_loop().create_task(part.run(goal, self._take_over))

    def _collect(self) -> None:
        """Forget the tasks that have ended; raises what one of them raised."""
        for number, task in list(self._tasks.items()):
            if task.done():
                self._forget(number)
                if task.cancelled():
                    logger.warning(
                        "projection %s: its task was cancelled by other code, and begins anew",
                        self.job.stats.name,
                    )
                    continue
                error = task.exception()
                if error is not None and not isinstance(error, (LostCheckpoint, Stopping)):
                    raise error

    async def _drop(self, number: int) -> None:
        """End a partition's task, at once: its transaction is rolled back."""
        task = self._tasks[number]
        self._forget(number)
        await drop([task])  # what it raised, the runner that has the partition now meets, too

    def _forget(self, number: int) -> None:
        del self._tasks[number], self._parts[number]
        self.job.leave(number)

    async def let_go(self) -> None:
        """End what runs, and let others have the leases at once."""
        job = self.job
        for number, part in list(self._parts.items()):
            await self._drop(number)
            with suppress(LostCheckpoint, Stopping, DatabaseError, StoreMovedError):
                await part.flush()
        self._wants_share = False
        try:
            await job.leases.release({*job.checkpoints, job.projection.checkpoint_name})
        except (DatabaseError, StoreMovedError) as error:
            logger.warning("%s: leases are left to run out: %s", job.stats.name, error)
        await job.database.wake_up.settle()

    async def _take_over(self, part: Share) -> None:
        if await self.job.retry_outages(lambda: take_over(self.job)):
            self.job.is_building = False
            raise LostCheckpoint  # the switch has moved the checkpoints
