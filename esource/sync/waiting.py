"""`esource.store.waiting` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from esource.log.streams import AppendResult
from esource.repositories.waiting import Named
from esource.store import waiting as asynchronous
from esource.sync.driven import Driven


class Waits(Driven):
    """The part of `EventStore` that waits."""

    _target: asynchronous.Waits

    def wait_for(
        self,
        result: AppendResult | int,
        *,
        projection: str | Named | None = None,
        checkpoint: str | None = None,
        timeout: float = 5.0,
    ) -> int:
        """Wait until a projection or a subscription has dealt with what you appended; the position it has come to.

        After that everybody who reads sees its effect, in any process, if the projection saves its progress in the
        transaction of its read model (``in_transaction``). Woken by whatever moves the checkpoint, in this process or in
        another. If partitions share the work, all that may hold an event up to the position are waited for. Where the
        store is bound to a tenant, a projection is that of the whole log, and a checkpoint the tenant's own.

        Call it after the commit, outside of `transaction`. One query if it is there already.

        Args:
            result: What the append returned; or a global position, which stands for all events up to it.
            projection: The projection, its class, or `Projection.name`; waits for the version that readers use.
            checkpoint: Or the name of a subscription's checkpoint, or of one that you save yourself.
            timeout: The longest wait, in seconds. 0: only look.

        Raises:
            CheckpointNotReachedError: the time is over; says how far it is, and who works on it. Also a
                ``TimeoutError``.
            InvalidOptionError: neither or both names; a transaction is open in this task; what is no position.
            StoreClosedError: the store was closed meanwhile.
        """
        return self._call(
            self._target.wait_for(result, projection=projection, checkpoint=checkpoint, timeout=timeout)
        )

    def wait_for_position(self, position: int, *, timeout_seconds: float = 5.0) -> int:
        """Wait until this database shows the log up to a position; the position that it has come to.

        On a read replica this is how one reads what one has written: append on the primary, wait here for
        `AppendResult.global_position`, read. Positions become visible in their order on a replica, too.
        On the primary a position is visible as soon as its append returns. Asks again every 5 to 100 ms;
        where the store is bound to a tenant, about the whole log.

        Raises:
            PositionNotReachedError: the time is over.
        """
        return self._call(self._target.wait_for_position(position, timeout_seconds=timeout_seconds))
