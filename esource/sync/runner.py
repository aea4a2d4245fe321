"""`esource.projections.runner` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Callable, Collection
from types import TracebackType

from typing_extensions import Self

from esource.database.supervision import MAX_RESTART_SECONDS, RESTART_SECONDS
from esource.database.wakeup import POLL_SECONDS
from esource.projections import runner as asynchronous
from esource.projections.dead_letters import Retried
from esource.projections.projection import Projection
from esource.projections.runner import RunProgress
from esource.repositories.lease import LEASE_SECONDS
from esource.sync.driven import Driven
from esource.sync.event_store import EventStore
from esource.telemetry import Health


class ProjectionRunner(Driven):
    """Keeps a projection's read model up to date with a store.

    Any number of runners of one projection may work at once, in this process or in others: each
    partition is held by one of them under a lease, the others stand by and take over from one that
    ended or died. Making one does no I/O.

    Example:
        >>> runner = ProjectionRunner(store, OrderTotals())
        >>> runner.run(live=False)  # up to the end of the log
        >>> runner.run()  # and on, until stop()
        >>> with ProjectionRunner(store, OrderTotals()):  # in the background of a service
        ...     serve()

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

    _target: asynchronous.ProjectionRunner
    _waits = True

    def __init__(
        self,
        store: EventStore,
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
        self._hold(
            asynchronous.ProjectionRunner,
            (store),
            projection,
            partitions=partitions,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
            handler_seconds=handler_seconds,
            restart_seconds=restart_seconds,
            max_restart_seconds=max_restart_seconds,
            owner=owner,
        )

    @property
    def owner(self) -> str:
        """This worker's name, as its leases show it."""
        return self._target.owner

    def run(self, *, live: bool = True, on_progress: Callable[[RunProgress], None] | None = None) -> None:
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
        self._call(self._target.run(live=live, on_progress=on_progress))

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)

    def wait(self) -> None:
        """Inside ``with runner:``, wait until it has come to its end: it was stopped, or a newer version of the
        projection has taken over."""
        self._call(self._target.wait())

    def rebuild(
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
        self._call(
            self._target.rebuild(
                from_position=from_position, without_reset=without_reset, on_progress=on_progress
            )
        )

    def stop(self) -> None:
        """End `run` after the batch at hand, from any thread; progress is saved, leases are let
        go. A batch that takes 10 more seconds is cancelled, and handled again by the next run. A stopped
        runner stays stopped: a `run` that begins later returns at once."""
        self._tell(self._target.stop)

    def retry_dead_letters(self, ids: Collection[int] | None = None) -> Retried:
        """Try dead letters again, all of this projection or those with these ids, in the order of the
        log. What succeeds is resolved, with ``in_transaction`` together with the read model; an event
        that fails again holds back the later ones of its stream. May be called while workers run.

        Raises:
            DatabaseError: the database was away for longer than the store waits for it.
        """
        return self._call(self._target.retry_dead_letters(ids))

    def health(self) -> Health:
        """How the projection is doing, by whichever worker, and this one in particular. Three queries; if the
        database cannot be reached within 5 seconds, what this worker has seen last."""
        return self._call(self._target.health())

    def health_now(self) -> Health:
        """How this worker is doing, by what it has noted itself. No I/O: what others do is not in it."""
        return self._target.health_now()
