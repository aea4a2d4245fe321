"""One crew of workers for all logs of a directory: each works on its own logs only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, TypeAlias

from typing_extensions import Self

from esource.checks import check_name, check_seconds, shown
from esource.database.calls import STOP_SECONDS, outside
from esource.database.cancellation import DROP_SECONDS, drop, uninterrupted
from esource.database.supervision import Supervisor
from esource.database.wakeup import Waiter
from esource.directory.directory import Directory
from esource.directory.records import MOVING, OPEN
from esource.directory.upkeep import ANSWER_SECONDS
from esource.errors import DatabaseUnavailableError, EventSourceError, InvalidOptionError, error_text
from esource.projections.runner import ProjectionRunner
from esource.publishing.relay import OutboxRelay
from esource.repositories.lease import LEASE_SECONDS, new_owner
from esource.store.store import EventStore
from esource.telemetry import FollowerStats, Health

logger = logging.getLogger("esource")

LOOKS = 4
"""So many times within the length of a lease a worker says that it is alive, and looks who else is."""

Follow: TypeAlias = (
    Callable[[EventStore], ProjectionRunner | OutboxRelay] | Callable[[EventStore], Awaitable[None]]
)
"""What works on one log, from its store: a function that makes a projection runner or a relay, or a coroutine function
that follows the log itself."""


def shares(logs: Collection[str], workers: Collection[str]) -> dict[str, set[str]]:
    """Which worker works on which logs: each has as many as the others, or one more.

    All that know the same logs and workers come to the same answer. When a worker comes or goes, most logs stay
    where they are.
    """
    least, more = divmod(len(logs), len(workers))
    rooms = {worker: least + (number < more) for number, worker in enumerate(sorted(workers))}
    found: dict[str, set[str]] = {worker: set() for worker in rooms}
    for log in sorted(logs):
        free = [worker for worker, room in rooms.items() if len(found[worker]) < room]
        found[max(free, key=lambda worker: blake2b(f"{worker}\0{log}".encode()).digest())].add(log)
    return found


class Crew:
    """A worker of a crew: keeps what follows the logs of a directory at work, for its share of the logs.

    Every worker of a crew runs one of these, under the same name. They share all logs of the directory, those that come later,
    too: each worker reads its own logs only. If one ends or dies, the others take its logs over. Two never handle an
    event of one log at once where each log has its lease, as a projection has, or its claims, as a relay has; a
    coroutine takes a `esource.Lease` itself.

    What fails in one log is begun again after a growing pause, and holds up no other. Making it does no I/O.

    Example:
        >>> async with Crew(directory, "totals", lambda store: ProjectionRunner(store, Totals())):
        ...     await serve()

    Args:
        directory: An open directory.
        name: What the crew does; its workers find each other by it.
        follow: Called with the store of each log: a function that makes a `esource.ProjectionRunner` or a
            `esource.OutboxRelay`, or a coroutine function that follows the log itself, and is cancelled at the end.
        lease_seconds: How long the others wait for a worker that died, at least.
        owner: This worker's name, unlike any other's; made up if left out.

    Raises:
        InvalidOptionError: an option that makes no sense.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        follow: Follow,
        *,
        lease_seconds: float = LEASE_SECONDS,
        owner: str | None = None,
    ) -> None:
        if not callable(follow):
            raise InvalidOptionError(f"follow must be a function of a store, not {shown(follow)}")
        self.name = check_name("name", name)
        self.owner = check_name("owner", owner or new_owner())
        self._directory = directory
        self._follow = follow
        self._seconds = check_seconds("lease_seconds", lease_seconds)
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        """Those of them that were told to end. A log whose database does not answer takes long to."""
        self._followers: dict[str, ProjectionRunner | OutboxRelay | _Following] = {}
        self._stores: dict[str, EventStore] = {}
        self._late: set[asyncio.Task[None]] = set()
        """Those that go on to end after the worker has ended."""
        self._is_running = False
        self._stopping = asyncio.Event()
        self._pause = Waiter()
        self._task: asyncio.Task[None] | None = None

    @property
    def logs(self) -> list[str]:
        """The logs that this worker works on now."""
        return sorted(self._at_work.keys() - self._ending)

    def health_now(self) -> dict[str, Health]:
        """How each of its logs is doing, by what this worker has noted itself. No I/O."""
        return {name: follower.health_now() for name, follower in sorted(self._followers.items())}

    async def health(self) -> dict[str, Health]:
        """How each of its logs is doing, as their databases say. A log that cannot be asked holds up no other: its
        `Health.unreachable` says why."""
        followers = dict(sorted(self._followers.items()))
        return dict(zip(followers, await asyncio.gather(*map(_asked, followers.values())), strict=True))

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            InvalidOptionError: it runs already.
        """
        if self._is_running or (self._task is not None and self._task is not asyncio.current_task()):
            raise InvalidOptionError(f"the worker {self.owner} of the crew {self.name} is at work already")
        self._is_running = True
        try:
            while not self._stopping.is_set():
                self._pause.clear()
                try:
                    await self._balance_unless_stopped()
                except Exception as error:
                    # Whatever it is, the logs that are at work have nothing to do with it. They go on; the leases and
                    # claims in the logs keep others away from them.
                    logger.warning(
                        "crew %s: the directory cannot be asked, and is asked again: %s",
                        self.name,
                        error_text(error),
                    )
                if not self._stopping.is_set():
                    await self._pause.wait(self._seconds / LOOKS)
        finally:
            await uninterrupted(self._leave())
            self._is_running = False

    def stop(self) -> None:
        """End `run` after what is at hand, from any task of the loop. It stays ended. What has not ended 10 seconds later
        is cancelled; `run` then waits no longer for a log whose database does not answer."""
        self._stopping.set()
        self._pause.call()

    async def __aenter__(self) -> Self:
        """Work in the background until the block ends."""
        self._task = asyncio.get_running_loop().create_task(self.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def _balance_unless_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        tasks = loop.create_task(self._balance()), loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                tasks, timeout=max(self._seconds, ANSWER_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
            if tasks[0].done():
                tasks[0].result()
            elif not self._stopping.is_set():
                raise DatabaseUnavailableError(f"{self._directory.name} does not answer")
        finally:
            await uninterrupted(drop(tasks))

    async def _balance(self) -> None:
        """Say that this worker is alive, and begin and end work so that it has its share of the logs."""
        records = self._directory.records
        workers = await records.present(self.name, self.owner, self._seconds)
        logs = [entry.name for entry in await records.logs() if entry.state in (OPEN, MOVING)]
        mine = shares(logs, {*workers, self.owner})[self.owner]
        for name in mine & self._stores.keys():
            if await self._is_elsewhere(name):
                self._end(name)
        for name, task in list(self._at_work.items()):
            if task.done():
                del self._at_work[name]
                self._ending.discard(name)
            elif name not in mine:
                self._end(name)
        for name in sorted(mine - self._at_work.keys()):
            task = self._at_work[name] = asyncio.get_running_loop().create_task(self._work_on(name))
            task.add_done_callback(lambda _: self._pause.call())

    async def _is_elsewhere(self, name: str) -> bool:
        """Whether a log has moved to another kind of database, where it has another store; or is gone."""
        try:
            return await self._directory.log(name) is not self._stores.get(name)
        except EventSourceError:
            return True

    def _end(self, name: str) -> None:
        """Tell the work on a log to end. Nobody waits for it: other logs have nothing to do with how long it takes."""
        if name not in self._ending:
            self._ending.add(name)
            self._at_work[name].cancel()

    async def _work_on(self, name: str) -> None:
        """Keep what follows a log at work, until this task is cancelled."""
        try:
            store = self._stores[name] = await self._directory.log(name)
            made = await self._made(name, store)
            self._followers[name] = made
            async with _background(made):
                await asyncio.Event().wait()
        except Exception as error:
            logger.error(  # noqa: TRY400 - the traceback is there
                "crew %s: the work on the log %s could not be begun, and is tried again: %s",
                self.name,
                name,
                error_text(error),
                exc_info=error,
            )
            await asyncio.sleep(self._seconds)
        finally:
            self._followers.pop(name, None)
            self._stores.pop(name, None)

    async def _made(self, name: str, store: EventStore) -> ProjectionRunner | OutboxRelay | _Following:
        if iscoroutinefunction(self._follow):
            return _Following(f"{self.name} on {name}", partial(self._follow, store))
        call = outside.get()
        made = self._follow(store) if call is None else await call(self._follow, (store,))
        if not isinstance(made, (ProjectionRunner, OutboxRelay)):
            raise InvalidOptionError(
                "follow must make a ProjectionRunner or an OutboxRelay, or be a coroutine function, and what it returned is "
                f"{shown(made)}"
            )
        return made

    async def _leave(self) -> None:
        for name in self._at_work:
            self._end(name)
        _, late = await _waited_for(self._at_work.values(), STOP_SECONDS)
        for task in late:
            task.cancel()
        _, late = await _waited_for(late, DROP_SECONDS)
        if late:
            logger.warning(
                "crew %s: the work on the logs %s has not ended within %g s; it ends when their databases answer, or are given "
                "up. Leases that are left there run out by themselves",
                self.name,
                ", ".join(sorted(name for name, task in self._at_work.items() if task in late)),
                STOP_SECONDS,
            )
        self._late |= late
        for task in late:
            task.add_done_callback(self._late.discard)
        self._at_work.clear()
        self._ending.clear()
        try:
            leaving = self._directory.records.leave(self.name, self.owner)
            await asyncio.wait_for(leaving, ANSWER_SECONDS)
        except (EventSourceError, asyncio.TimeoutError) as error:
            logger.warning(
                "crew %s: the others notice later that this worker has ended: %s",
                self.name,
                error_text(error),
            )


class _Following:
    """A coroutine function that follows a log, begun again after it has failed."""

    def __init__(self, title: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._stats = FollowerStats("subscription", title)
        self._begin = begin
        self._supervisor = Supervisor(self._stats, self._run, self._cancel)
        self._running: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        with self._stats.running(metrics=False):
            self._running = asyncio.get_running_loop().create_task(self._begin())
            try:
                await asyncio.wait([self._running])
            finally:
                if not self._running.done():
                    await uninterrupted(drop([self._running]))
            if not self._running.cancelled():
                self._running.result()

    def _cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def health_now(self) -> Health:
        return self._stats.noted()

    async def health(self) -> Health:
        return self._stats.noted()

    async def __aenter__(self) -> Self:
        self._supervisor.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._supervisor.end()


async def _waited_for(
    tasks: Collection[asyncio.Task[None]], seconds: float
) -> tuple[set[asyncio.Task[None]], set[asyncio.Task[None]]]:
    return await asyncio.wait(tasks, timeout=seconds) if tasks else (set(), set())


def _background(follower: ProjectionRunner | OutboxRelay | _Following) -> AbstractAsyncContextManager[object]:
    return follower.supervised() if isinstance(follower, OutboxRelay) else follower


async def _asked(follower: ProjectionRunner | OutboxRelay | _Following) -> Health:
    try:
        return await follower.health()
    except Exception as error:  # its tables are not as they should be, or whatever it is
        return replace(follower.health_now(), unreachable=error_text(error))
