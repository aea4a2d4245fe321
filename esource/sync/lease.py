"""`esource.repositories.lease` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from types import TracebackType

from typing_extensions import Self

from esource.repositories import lease as asynchronous
from esource.repositories.lease import LEASE_SECONDS
from esource.sync.driven import Driven, Source


class Lease(Driven):
    """One name, held for as long as the block runs; waits until it is free.

    For a worker of which several run for safety, such as the reader of a subscription::

        with Lease(store, "mailer"), store.subscribe(checkpoint="mailer") as events:
            for event in events:
                ...

    Args:
        database: What holds the lease: a store, an engine, a URL.
        name: The name of the checkpoint, at most 255 characters.
        seconds: How long the others wait for a worker that died.
        owner: This worker's name; made up if left out.
    """

    _target: asynchronous.Lease

    def __init__(
        self, database: Source, name: str, *, seconds: float = LEASE_SECONDS, owner: str | None = None
    ) -> None:
        self._hold(asynchronous.Lease, (database), name, seconds=seconds, owner=owner)

    @property
    def owner(self) -> str:
        return self._target.owner

    @property
    def is_held(self) -> bool:
        """Whether it is ours: False as soon as another worker may have it. That is so once it has not been
        renewed for its whole length, whatever the reason."""
        return self._target.is_held

    def acquire(self) -> bool:
        """Hold it if it is free; whether it is ours now. One query."""
        return self._call(self._target.acquire())

    def renew(self) -> bool:
        """Keep it for another term; whether it was still ours. One query."""
        return self._call(self._target.renew())

    def release(self) -> None:
        """Let others have it at once. One query."""
        self._call(self._target.release())

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)
