"""The directory: many logs under one name, which one a tenant or a key lives in, and stores that share connections."""

from __future__ import annotations

import asyncio
import logging
from os import PathLike
from types import TracebackType
from typing import Any

from sqlalchemy.engine import URL
from typing_extensions import Self

from esource import schema
from esource.checks import check_seconds, check_whole
from esource.database.cancellation import drop, uninterrupted
from esource.directory.keys import Keys
from esource.directory.places import MOST_FILES, Places, check_log_name
from esource.directory.records import CREATING, MOVING, OPEN, LogEntry, Records
from esource.domain.registry import EventRegistry
from esource.errors import EventSourceError, InvalidOptionError, StoreMovedError, error_text
from esource.store.store import EventStore

logger = logging.getLogger("esource")

REFRESH_SECONDS = 5.0
"""After so many seconds at most a store notices that its log has moved, if it only reads."""

FIND_SECONDS = 10.0
"""So long a writer waits for the directory to say where a log is that has just moved."""


class Directory(Keys):
    """Many logs under one name, on one or several servers, or in files.

    Logs lie beside the directory, each in a schema of its own, or wherever they were created or moved. All stores on one
    server share its connections: a thousand logs need no more of them than one. Making it does no I/O.

    Example:
        >>> async with Directory("postgresql://user@host/database") as directory:
        ...     await directory.create("tenant_7")
        ...     store = await directory.log("tenant_7")

    Args:
        url: The database with the directory's own tables: a URL, or the path of a SQLite file. It may hold a log, too.
        event_registry: The event types of all stores; the default registry if left out.
        refresh_seconds: How often to look whether logs have moved. A store that writes notices at once.
        most_files: How many SQLite files are kept open, unless more are in use.
        options: Those of the stores, as for `esource.open_store`. For PostgreSQL ``pool_size`` and ``max_overflow`` (5 and
            10 if left out) say how many connections to each server there are at most, for all its logs together.

    Raises:
        InvalidOptionError: the database is in memory, or an option that shared connections cannot have.
    """

    def __init__(
        self,
        url: str | URL | PathLike[str],
        event_registry: EventRegistry | None = None,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        most_files: int = MOST_FILES,
        **options: Any,
    ) -> None:
        self._refresh_seconds = check_seconds("refresh_seconds", refresh_seconds)
        most = check_whole("most_files", most_files, least=1)
        self.places = Places(url, event_registry, most, options)
        self.records = Records(self.places.database(self.places.url))
        self._entries: dict[str, LogEntry] = {}
        self._stores: dict[str, EventStore] = {}
        self._left: list[EventStore] = []
        """Stores that no one gets any more, because their logs are gone, or are in another kind of database."""
        self._keys: dict[str, str] = {}
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """What messages call it. It holds no password."""
        return f"the directory in {self.records.database.name}"

    async def open(self) -> None:
        """Read where the logs are, and look again now and then. ``async with`` does this.

        Raises:
            DatabaseUnavailableError: the directory's database cannot be reached.
        """
        if self._refreshing is None:
            await self.records.database.open()
            self._entries = {entry.name: entry for entry in await self.records.logs_if_any()}
            self._refreshing = asyncio.get_running_loop().create_task(self._keep_refreshing())

    async def close(self) -> None:
        """Close all stores that it has opened, and all connections."""
        task, self._refreshing = self._refreshing, None
        if task is not None:
            await drop([task])
        await uninterrupted(self._close())

    async def _close(self) -> None:
        stores, self._stores, self._left = [*self._stores.values(), *self._left], {}, []
        # One that has to be waited for holds up no other.
        await asyncio.gather(*(store.close() for store in stores))
        await self.records.database.close()
        await self.places.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create(
        self, name: str, *, at: str | URL | PathLike[str] | None = None, takes_keys: bool | None = None
    ) -> LogEntry:
        """Create a log, or take one in that is there already. May be repeated; what was broken off goes on.

        Args:
            name: Its name: small letters, digits, ``_`` and ``-``.
            at: Where; left out, beside the directory: in a schema of this name, or in a file of this name in the
                folder that is named after the directory's file. Else the URL of a database, with ``?schema=`` if it has
                several logs, without a password; ``?schema=...`` alone is one beside the directory; or a file's path.
            takes_keys: Whether keys that nobody has assigned may come into it; see `store`. Left out, they may not come into
                a new log, and for one that is there it stays as it is. The keys that live in a log stay there.

        Raises:
            InvalidOptionError: the name or the place cannot be used, or one of them is taken.
            StoreMovedError: the log that is there has moved, and takes no events.
            SchemaOutdatedError: the log that is there has an older schema; upgrade it first.
        """
        check_log_name(name)
        place = self.places.usual(name) if at is None else self.places.place(at)
        url = self.places.resolve(place)
        self._refuse_own(url)
        await self.records.create_tables()
        for other in await self.records.logs():
            if other.target == place:
                raise InvalidOptionError(
                    f"the log {other.name!r} is being moved to {place}. Nothing was created"
                )
        entry = await self.records.add(name, place, takes_keys=takes_keys)
        await self._take_note(entry)  # before its file is opened, where another one was that has been dropped
        if entry.state == CREATING:
            store = self.places.store(url)
            await self.places.prepare(store)
            moved_to = await store.reader.database.moved_to()
            if moved_to is not None:
                await self.records.remove(name)
                raise StoreMovedError(store.name, moved_to)
            await self.records.set_revision(name, schema.HEAD)
            entry = await self.records.set_state(entry, OPEN)
            await self._take_note(entry)
        return entry

    def _refuse_own(self, url: URL) -> None:
        """A file holds the directory or a log."""
        if self.places.in_files and self.places.place(url) == self.places.place(self.places.url):
            raise InvalidOptionError(f"{self.name} lies in that file: give the log another one")

    async def entry(self, name: str) -> LogEntry:
        """A log as it is noted now. One query.

        Raises:
            InvalidOptionError: there is no such log.
        """
        return await self.records.log(name)

    async def log(self, name: str) -> EventStore:
        """The store of a log. It connects on its first use, on connections that all logs of its server share, and follows
        its log when that is moved. Opening it costs no I/O if the log was there when the directory looked last.

        It is one object for each log: close the directory, and not the store.

        Raises:
            InvalidOptionError: there is no such log, or it is not ready.
        """
        store = self._stores.get(name)
        if store is None:
            entry = self._entries.get(name)
            if entry is None or entry.state not in (OPEN, MOVING):
                entry = await self.records.log(name)
            if entry.state not in (OPEN, MOVING):
                raise InvalidOptionError(
                    f"the log {name!r} is not ready: {entry.state} it was broken off, or goes on. The same call, or `esource "
                    "logs` command, takes it up again"
                )
            self._entries[name] = entry
            store = self._stores.get(name) or self._opened(entry)
        return store

    def _opened(self, entry: LogEntry) -> EventStore:
        store = self.places.store(self.places.resolve(entry.place))
        name = entry.name

        async def find() -> bool:
            try:
                return await self._find(name)
            except EventSourceError as error:
                logger.warning("nobody can say where the log %s has moved: %s", name, error_text(error))
                return False

        store.reader.database.find = find
        self._stores[name] = store
        return store

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self._refresh()
            except Exception as error:  # whatever it is, it may be over the next time
                logger.warning(
                    "%s: it cannot be read now, and is asked again: %s", self.name, error_text(error)
                )

    async def _refresh(self) -> None:
        """Read where the logs are, and lead open stores to those that have moved."""
        known = dict(self._entries)
        entries = {entry.name: entry for entry in await self.records.logs_if_any()}
        for entry in entries.values():
            await self._take_note(entry)
        for name, before in known.items():
            # Another look may have let it go by now, and a log that was created meanwhile is not among those that were read.
            if name not in entries and self._entries.get(name) is before:
                del self._entries[name]
                await self._let_go(before)

    async def _take_note(self, entry: LogEntry) -> None:
        """Remember a log as it is now. One that has moved since takes its open store along; one that was created anew in
        the same place has another."""
        before = self._entries.get(entry.name)
        self._entries[entry.name] = entry
        if before is None or not entry.is_elsewhere(before):
            return
        self._forget_keys(entry.name)  # a log that was created anew has none of them
        if entry.place == before.place:
            await self._let_go(before)
        else:
            self._lead(entry)

    async def _let_go(self, entry: LogEntry) -> None:
        """Give up what is remembered of a log that is gone."""
        self._leave(entry.name)
        self._forget_keys(entry.name)
        url = self.places.resolve(entry.place)
        if self.places.server(url).backend.in_files:
            await self.places.let_go(url)  # another file may come to its place

    def _forget_keys(self, name: str) -> None:
        self._keys = {key: log for key, log in self._keys.items() if log != name}

    def _leave(self, name: str) -> None:
        """Give the open store of a log to no one any more. Whoever has it may still use it."""
        store = self._stores.pop(name, None)
        if store is not None:
            self._left.append(store)

    def _lead(self, entry: LogEntry) -> None:
        """Lead the open store of a log to where it has moved."""
        store = self._stores.get(entry.name)
        if store is None:
            return
        url = self.places.resolve(entry.place)
        server, database = self.places.server(url), store.reader.database
        if server.backend is not database.backend:
            # Its statements are another database's. Whoever asks next gets a new store.
            self._leave(entry.name)
            return
        database.lead_to(server, url)
        logger.info("the log %s has moved to %s", entry.name, database.name)

    async def _noticed(self, entry: LogEntry) -> None:
        await self._refresh()
        if entry.name not in self._entries:
            self._forget_keys(entry.name)

    async def _find(self, name: str) -> bool:
        """Whether the store of a log that has met its fence leads to where the log is by now."""
        clock = asyncio.get_running_loop().time
        until = clock() + FIND_SECONDS
        while True:
            entry = await self.records.log(name)
            known, store = self._entries.get(name), self._stores.get(name)
            if known is None or entry.is_elsewhere(known):
                await self._take_note(entry)
                return name in self._stores
            # Another task may have found it before; or the move has come to its end, and is about to be noted.
            if store is not None and await store.reader.database.moved_to() is None:
                return True
            if entry.state != MOVING or clock() >= until:
                return False
            await asyncio.sleep(0.1)
