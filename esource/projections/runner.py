"""Running a projection: leases, partitions, the live tail, rebuilding, dead letters, health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import TracebackType

from typing_extensions import Self

from esource.checks import check_seconds, check_whole
from esource.database.cancellation import uninterrupted
from esource.database.sources import require_whole
from esource.database.supervision import MAX_RESTART_SECONDS, RESTART_SECONDS, Supervisor, logging_its_end
from esource.database.wakeup import POLL_SECONDS
from esource.errors import InvalidOptionError, StoreMovedError
from esource.log.pages import last_position
from esource.log.reader import Readable
from esource.projections.checkpoints import states
from esource.projections.dead_letters import Retried, retry
from esource.projections.job import Job, Stopping
from esource.projections.names import only_one_class
from esource.projections.projection import Projection
from esource.projections.shares import Shares
from esource.projections.versions import prepare, rewind
from esource.repositories.checkpoint import CheckpointRepository
from esource.repositories.lease import LEASE_SECONDS
from esource.telemetry import Health

logger = logging.getLogger("esource")


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
        >>> async with ProjectionRunner(store, OrderTotals()):  # in the background of a service
        ...     await serve()

    Args:
        store: Whose log is read, and whose database holds the checkpoint and, for ``in_transaction``,
            the read model.
        projection: What is to be kept up to date.
        partitions: Into how many parts the streams are divided, to be shared by that many workers at
            most. Each part keeps the order of its streams and reads the whole log for itself. The number
            stays the same until a rebuild.
        lease_seconds: How long the others wait for a worker that died.
        poll_seconds: How long to wait for a wake-up before looking again.
        handler_seconds: How long a handler may take with one event, in seconds; if left out, what the projection says
            (`Projection.handler_seconds`).
        restart_seconds: The pause before a run in the background that has failed is begun again, in seconds; it
            doubles with each further failure, and is drawn between a half and the whole of that.
        max_restart_seconds: The longest pause. A run that lasted for longer begins with the shortest again.
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
        handler_seconds: float | None = None,
        restart_seconds: float = RESTART_SECONDS,
        max_restart_seconds: float = MAX_RESTART_SECONDS,
        owner: str | None = None,
    ) -> None:
        require_whole(store.reader, "a projection")
        if not isinstance(projection, Projection) or not projection.has_handlers:
            raise InvalidOptionError(f"{projection!r} is no projection with a method under @handles(...)")
        self._job = Job(
            store.reader,
            projection,
            owner=owner,
            partitions=check_whole("partitions", partitions, least=1),
            lease_seconds=lease_seconds,
            poll_seconds=check_seconds("poll_seconds", poll_seconds),
            handler_seconds=None
            if handler_seconds is None
            else check_seconds("handler_seconds", handler_seconds),
        )
        self._shares = Shares(self._job, self._tell)
        self._on_progress: Callable[[RunProgress], None] | None = None
        self._supervisor = Supervisor(
            self._job.stats, self._run, self.stop, restart_seconds, max_restart_seconds
        )

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
                number of partitions; another class is at work under its name; its checkpoint is ahead of the log.
            DatabaseError: the database was away for longer than the store waits for it.
        """
        self._require_free()
        self._on_progress = on_progress
        with logging_its_end(self._job.stats):
            await self._run(live=live)

    async def _run(self, *, live: bool = True) -> None:
        job = self._job
        with (
            job.stats.running(metrics=job.reader.tracer is not None),
            only_one_class(job.database, job.projection),
        ):
            while True:
                job.place = job.database.name
                try:
                    await self._run_in_place(live=live)
                except Stopping:
                    return
                except StoreMovedError:
                    if not job.has_moved:
                        raise
                    logger.info(
                        "%s: its log has moved, and it begins anew in %s", job.stats.name, job.database.name
                    )
                else:
                    return
                finally:
                    await uninterrupted(self._shares.let_go())

    async def _run_in_place(self, *, live: bool) -> None:
        """Run where the log is now.

        Raises:
            StoreMovedError: it has moved.
        """
        job = self._job
        preparing = job.retry_outages(lambda: prepare(job))
        if not await job.unless_stopped(preparing, "its reset()", "it is called again by the next run"):
            logger.info("%s: a newer version is active", job.stats.name)
            return
        await job.retry_outages(self._shares.look_back)
        await self._shares.hold(None if live else await self._head())

    async def __aenter__(self) -> Self:
        """Run in the background, live, until the block ends.

        Whatever ends the run is logged, and it is begun again after a growing pause, for as long as the block lasts:
        see ``restart_seconds``. `health` says what it is doing.

        Raises:
            InvalidOptionError: it runs already, or this is inside a transaction.
        """
        self._require_free()
        self._supervisor.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and wait for the end of the batch at hand."""
        await self._supervisor.end()

    async def wait(self) -> None:
        """Inside ``async with runner:``, wait until it has come to its end: it was stopped, or a newer version of the
        projection has taken over."""
        await self._supervisor.wait()

    def _require_free(self) -> None:
        self._supervisor.require_idle()
        if self._job.database.current_unit() is not None:
            raise InvalidOptionError("a projection has transactions of its own: run it outside of yours")

    async def rebuild(
        self,
        *,
        from_position: int = 0,
        without_reset: bool = False,
        on_progress: Callable[[RunProgress], None] | None = None,
    ) -> None:
        """Empty the read model (`Projection.reset`) and handle everything past a position again, up to
        what is the end of the log now. Other workers of the projection go on from there, too.

        Dead letters of the events past that position are closed: they are tried again with the rest.

        Args:
            from_position: Where to begin; what is before it stays handled.
            without_reset: Do it although the projection has no `Projection.reset`: every effect is repeated.
            on_progress: Called after each batch.

        Raises:
            InvalidOptionError: the projection has no `Projection.reset`, so that everything would be counted twice.
                Further errors are those of `run`.
        """
        projection = self._job.projection
        if type(projection).reset is Projection.reset and not without_reset:
            raise InvalidOptionError(
                f"{type(projection).__name__} has no reset(), which empties its read model: a rebuild would handle "
                "every event again on top of what is there. Write reset(), or pass without_reset=True if every "
                "effect may be repeated"
            )
        self._require_free()
        if self._job.stopping.is_set():
            raise InvalidOptionError("the runner was stopped: make another one")
        await self._job.retry_outages(lambda: rewind(self._job, from_position))
        await self.run(live=False, on_progress=on_progress)

    def stop(self) -> None:
        """End `run` after the batch at hand, from any task of the loop; progress is saved, leases are let
        go. A batch that takes 10 more seconds is cancelled, and handled again by the next run. A stopped
        runner stays stopped: a `run` that begins later returns at once."""
        self._supervisor.stop()
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
        """How the projection is doing, by whichever worker, and this one in particular. Three queries; if the
        database cannot be reached within 5 seconds, what this worker has seen last."""
        return await self._job.stats.ask(self._lag())

    def health_now(self) -> Health:
        """How this worker is doing, by what it has noted itself. No I/O: what others do is not in it."""
        return self._job.stats.noted()

    async def _lag(self) -> tuple[int, int, float]:
        job = self._job
        own = job.own(await states(job.database)).values()
        position = min((state.position for state in own), default=0)
        types = job.projection.event_types(job.reader.codec.registry)
        return position, *await CheckpointRepository(job.database).get_lag(position, types)

    async def _head(self) -> int:
        return await self._job.read(lambda: last_position(self._job.database))

    def _tell(self) -> None:
        if self._on_progress is not None:
            stats = self._job.stats
            self._on_progress(RunProgress(stats.position, stats.head, stats.events, stats.events_per_second))
