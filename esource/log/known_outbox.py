"""Whether the events of a store get outbox rows: what it was told, or what the database shows."""

from __future__ import annotations

from time import monotonic

ASK_SECONDS = 10.0
"""After how many seconds a database is asked again that had no outbox: another program may have opened one since."""


class KnownOutbox:
    """Whether a store writes outbox rows with its events. Where some are found, an event without one would never be
    published, and it stays so."""

    __slots__ = ("_asked_until", "_has", "told")

    def __init__(self, told: bool | None) -> None:
        self._has = self.told = told
        self._asked_until: float | None = None

    @property
    def has(self) -> bool | None:
        """Whether; None where the database has still to be asked."""
        if self._asked_until is not None and monotonic() > self._asked_until:
            self._has = self._asked_until = None
        return self._has

    def found(self, rows: object) -> bool:
        """Take note of what the database was found to have; whether it has outbox rows."""
        self._has = bool(rows)
        self._asked_until = None if rows else monotonic() + ASK_SECONDS
        return self._has
