"""`esource.directory.crew` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from types import TracebackType

from typing_extensions import Self

from esource.directory import crew as asynchronous
from esource.repositories.lease import LEASE_SECONDS
from esource.sync.directory.directory import Directory
from esource.sync.driven import Driven
from esource.sync.opening import Follow, following
from esource.telemetry import Health


class Crew(Driven):
    """A worker of a crew: keeps what follows the logs of a directory at work, for its share of the logs.

    Every worker of a crew runs one of these, under the same name. They share all logs of the directory, those that come later,
    too: each worker reads its own logs only. If one ends or dies, the others take its logs over. Two never handle an
    event of one log at once where each log has its lease, as a projection has, or its claims, as a relay has; a
    coroutine takes a `esource.Lease` itself.

    What fails in one log is begun again after a growing pause, and holds up no other. Making it does no I/O.

    Example:
        >>> with Crew(directory, "totals", lambda store: ProjectionRunner(store, Totals())):
        ...     serve()

    Args:
        directory: An open directory.
        name: What the crew does; its workers find each other by it.
        follow: Called with the store of each log: a function that makes a `esource.ProjectionRunner` or a
            `esource.OutboxRelay`, or a coroutine function that follows the log on the asynchronous side, from its store there, and is cancelled at the end.
        lease_seconds: How long the others wait for a worker that died, at least.
        owner: This worker's name, unlike any other's; made up if left out.

    Raises:
        InvalidOptionError: an option that makes no sense.
    """

    _target: asynchronous.Crew
    _waits = True

    def __init__(
        self,
        directory: Directory,
        name: str,
        follow: Follow,
        *,
        lease_seconds: float = LEASE_SECONDS,
        owner: str | None = None,
    ) -> None:
        self._hold(
            asynchronous.Crew, directory, name, following(follow), lease_seconds=lease_seconds, owner=owner
        )

    @property
    def logs(self) -> list[str]:
        """The logs that this worker works on now."""
        return self._target.logs

    def health_now(self) -> dict[str, Health]:
        """How each of its logs is doing, by what this worker has noted itself. No I/O."""
        return self._target.health_now()

    def health(self) -> dict[str, Health]:
        """How each of its logs is doing, as their databases say. A log that cannot be asked holds up no other: its
        `Health.unreachable` says why."""
        return self._call(self._target.health())

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            InvalidOptionError: it runs already.
        """
        self._call(self._target.run())

    def stop(self) -> None:
        """End `run` after what is at hand, from any thread. It stays ended. What has not ended 10 seconds later
        is cancelled; `run` then waits no longer for a log whose database does not answer."""
        self._tell(self._target.stop)

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)
