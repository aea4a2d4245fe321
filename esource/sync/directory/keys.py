"""`esource.directory.keys` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from uuid import UUID

from esource.directory import keys as asynchronous
from esource.directory.records import LogEntry
from esource.sync.directory.moving import Moves
from esource.sync.event_store import EventStore
from esource.sync.opening import opened


class Keys(Moves):
    """The part of `Directory` that says where keys live."""

    _target: asynchronous.Keys

    @property
    def name(self) -> str:
        """What messages call the directory."""
        return self._target.name

    def logs(self) -> list[LogEntry]:
        """All logs, by name, as they are noted now. One query."""
        return self._call(self._target.logs())

    def log(self, name: str) -> EventStore:
        """The store of a log."""
        return opened(self._call(self._target.log(name)))

    def store(self, key: str | UUID) -> EventStore:
        """The store of the log that a key, or a tenant, lives in.

        That is the log that it was assigned to; or else the log of this name; or else one of the logs that take keys,
        drawn by a hash and noted: a key stays where it is, whatever logs come later. One query for a key that this
        directory has not met.

        Raises:
            InvalidOptionError: it lives nowhere, and no log takes keys.
        """
        return opened(self._call(self._target.store(key)))

    def where(self, key: str | UUID, *, note: bool = False) -> str:
        """The name of the log that a key lives in, or would live in; see `store`.

        Args:
            key: A text or a UUID.
            note: Assign it where it would live, if it was drawn.
        """
        return self._call(self._target.where(key, note=note))

    def assign(self, key: str | UUID, log: str) -> None:
        """Let a key, or a tenant, live in a log. A key that lives somewhere stays there, because its events do.

        Raises:
            InvalidOptionError: there is no such log, or the key lives in another one.
        """
        self._call(self._target.assign(key, log))
