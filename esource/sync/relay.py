"""`esource.publishing.relay` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from typing_extensions import Self

from esource.database.supervision import MAX_RESTART_SECONDS, RESTART_SECONDS
from esource.database.wakeup import POLL_SECONDS
from esource.publishing import relay as asynchronous
from esource.publishing.publishers import Publisher
from esource.publishing.relay import PUBLISH_SECONDS
from esource.repositories.lease import LEASE_SECONDS
from esource.sync.driven import Driven, Source
from esource.telemetry import Health


class OutboxRelay(Driven):
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
        >>> relay.drain()  # all that waits now
        >>> relay.run()  # and on, until stop()
        >>> with relay.supervised():  # in the background of a service
        ...     serve()

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

    _target: asynchronous.OutboxRelay
    _waits = True

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
        self._hold(
            asynchronous.OutboxRelay,
            (database),
            publisher,
            batch_size=batch_size,
            concurrency=concurrency,
            publish_seconds=publish_seconds,
            max_attempts=max_attempts,
            retry_seconds=retry_seconds,
            max_retry_seconds=max_retry_seconds,
            block_failed_streams=block_failed_streams,
            lease_seconds=lease_seconds,
            poll_seconds=poll_seconds,
            keep_published_days=keep_published_days,
            name=name,
            owner=owner,
            enable_metrics=enable_metrics,
        )

    def run_once(self) -> int:
        """Claim the next rows and publish them; how many were dealt with, published or not.

        Raises:
            DatabaseError: the database failed; what was claimed is free again when the lease is over.
        """
        return self._call(self._target.run_once())

    def drain(self) -> int:
        """Publish until nothing is left that may be published now; how many rows were published.

        Rows that failed and wait for their next attempt are left. While a publish hangs, until ``publish_seconds`` are
        over, the other streams go on; `stop` ends this as it ends `run`.

        Raises:
            DatabaseError: the database failed; what was claimed is free again when the lease is over.
        """
        return self._call(self._target.drain())

    def run(self) -> None:
        """Publish what there is, then whatever comes, until `stop` or cancellation. A relay that was stopped
        stays stopped.

        While the database is away it is tried again, with every poll.
        """
        self._call(self._target.run())

    def supervised(
        self, *, restart_seconds: float = RESTART_SECONDS, max_restart_seconds: float = MAX_RESTART_SECONDS
    ) -> AbstractContextManager[Self]:
        """Run in the background until the block ends. What ends the run is logged, and it is begun again.

        Args:
            restart_seconds: The pause before it is begun again, in seconds; it doubles with each further failure, and
                is drawn between a half and the whole of that.
            max_restart_seconds: The longest pause. A run that lasted for longer begins with the shortest again.

        Raises:
            InvalidOptionError: it runs already, or an option makes no sense.
        """
        return self._background(
            self._target.supervised(restart_seconds=restart_seconds, max_restart_seconds=max_restart_seconds)
        )

    def wait(self) -> None:
        """Inside ``with relay.supervised():``, wait until it was stopped."""
        self._call(self._target.wait())

    def stop(self) -> None:
        """End `run` after the messages at hand, from any thread. A publish that takes 10 more seconds is
        cancelled; its row is published again by the next run."""
        self._tell(self._target.stop)

    def health(self) -> Health:
        """How this relay and its outbox are doing. One query; if the database cannot be reached within 5 seconds,
        what this relay has seen last."""
        return self._call(self._target.health())

    def health_now(self) -> Health:
        """How this relay is doing, by what it has noted itself. No I/O: the rows that wait are not in it."""
        return self._target.health_now()

    def close(self) -> None:
        """End `run`; close the database if it was opened here, from a URL."""
        self._call(self._target.close())

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)
