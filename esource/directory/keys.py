"""Which log of a directory a key, or a tenant, lives in."""

from __future__ import annotations

from uuid import UUID

from esource.directory.moving import Moves
from esource.directory.records import MOVING, OPEN, LogEntry, drawn, key_of
from esource.errors import InvalidOptionError
from esource.store.store import EventStore

MOST_KEYS = 100_000
"""Of so many keys a directory remembers which log they live in."""


class Keys(Moves):
    """The part of `Directory` that says where keys live."""

    _entries: dict[str, LogEntry]
    _keys: dict[str, str]

    @property
    def name(self) -> str:
        """What messages call the directory."""
        raise NotImplementedError

    async def logs(self) -> list[LogEntry]:
        """All logs, by name, as they are noted now. One query."""
        return await self.records.logs()

    async def log(self, name: str) -> EventStore:
        """The store of a log."""
        raise NotImplementedError

    async def _refresh(self) -> None:
        """Read where the logs are."""
        raise NotImplementedError

    async def store(self, key: str | UUID) -> EventStore:
        """The store of the log that a key, or a tenant, lives in.

        That is the log that it was assigned to; or else the log of this name; or else one of the logs that take keys,
        drawn by a hash and noted: a key stays where it is, whatever logs come later. One query for a key that this
        directory has not met.

        Raises:
            InvalidOptionError: it lives nowhere, and no log takes keys.
        """
        return await self.log(await self.where(key, note=True))

    async def where(self, key: str | UUID, *, note: bool = False) -> str:
        """The name of the log that a key lives in, or would live in; see `store`.

        Args:
            key: A text or a UUID.
            note: Assign it where it would live, if it was drawn.
        """
        name = key_of(key)
        found = self._keys.get(name)
        if found is not None:
            return found
        found = await self.records.assigned(name)
        if found is None:
            found = name if await self._has(name) else None
        if found is None:
            taking = [
                entry.name
                for entry in await self.logs()
                if entry.takes_keys and entry.state in (OPEN, MOVING)
            ]
            if not taking:
                raise InvalidOptionError(
                    f"{self.name} has no log for the key {name!r}: assign it to one, create a log of this name, or one that "
                    "takes keys"
                )
            found = drawn(name, taking)
            if not note:
                return found
            found = await self.records.assign(name, found)
        if len(self._keys) >= MOST_KEYS:
            self._keys.clear()
        if found in self._entries:  # else nobody notices what becomes of that log
            self._keys[name] = found
        return found

    async def assign(self, key: str | UUID, log: str) -> None:
        """Let a key, or a tenant, live in a log. A key that lives somewhere stays there, because its events do.

        Raises:
            InvalidOptionError: there is no such log, or the key lives in another one.
        """
        name = key_of(key)
        await self.records.log(log)
        found = name if name != log and await self._has(name) else None
        if found is None:
            found = await self.records.assign(name, log)
        if found != log:
            raise InvalidOptionError(
                f"the key {name!r} lives in the log {found!r}, and its events are there: it cannot be assigned to {log!r}"
            )

    async def _has(self, name: str) -> bool:
        if name not in self._entries:
            await self._refresh()
        return name in self._entries
