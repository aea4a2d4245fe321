"""What a transaction changes in memory: kept when it is stored, taken back when it is rolled back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


async def _nothing() -> None:
    """Nothing follows."""


class Effects:
    """What follows from one transaction outside of its database, in the order in which it was noted."""

    def __init__(self) -> None:
        self._noted: list[tuple[Callable[[bool], None], Callable[[], Awaitable[None]]]] = []
        self.are_stored = False
        """Whether the transaction has been committed."""

    def add(self, settle: Callable[[bool], None], follow: Callable[[], Awaitable[None]] = _nothing) -> None:
        """Note what follows.

        Args:
            settle: Called once, when it is known whether the transaction (or the savepoint) is stored. It must
                not raise.
            follow: Awaited after a commit, when the transaction is over. It must not raise either: the caller
                would take that for a rollback.
        """
        self._noted.append((settle, follow))

    @property
    def count(self) -> int:
        """How much is noted: where a savepoint begins."""
        return len(self._noted)

    def take_back(self, since: int = 0) -> None:
        """Settle, as not stored, what was noted since a savepoint began; the latest first."""
        while len(self._noted) > since:
            settle, _ = self._noted.pop()
            settle(False)

    def settle(self) -> None:
        """Settle everything, at the end of the transaction."""
        if self.are_stored:
            for settle, _ in self._noted:
                settle(True)
        else:
            self.take_back()

    async def follow(self) -> None:
        """Do what follows from a commit."""
        noted, self._noted = self._noted, []
        for _, follow in noted:
            await follow()
