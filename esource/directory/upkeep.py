"""Work on all logs of a directory, or on some: how they are, upgrading and verifying them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import URL

from esource import schema
from esource.copying.integrity import verify_store
from esource.database.cancellation import drop, uninterrupted
from esource.database.database import Database
from esource.dialect.urls import inspection_of
from esource.directory.places import Places
from esource.directory.records import CREATING, OPEN, LogEntry, Records
from esource.errors import DatabaseUnavailableError, EventSourceError, InvalidOptionError, error_text
from esource.repositories.checkpoint import CheckpointRepository
from esource.schema import distribution
from esource.store.store import EventStore

T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""So long a log may take to answer before its database counts as unreachable."""

AT_ONCE = 4
"""So many logs of one server, and so many files, are worked on at the same time."""


@dataclass(frozen=True, slots=True)
class LogReport:
    """A log, and how it is doing."""

    name: str
    place: str
    state: str
    keys: int
    """Keys that were assigned to it."""
    revision: str | None = None
    """The revision of its tables."""
    position: int | None = None
    """The global position of its last event."""
    size: int | None = None
    """How many bytes its database takes; on PostgreSQL the tables and indexes of its schema."""
    behind: int | None = None
    """By how many positions the checkpoint that is farthest behind is behind; None without checkpoints."""
    error: str | None = None
    """Why it cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one log in a round over many."""

    name: str
    done: str
    """What was done or found; empty if it failed."""
    error: str | None = None
    """Why it failed, or what was found wrong."""


OnOutcome = Callable[[Outcome], None]
"""Called when a round is done with a log."""

OnReport = Callable[[LogReport], None]
"""Called with what was found out about a log."""


class _Servers:
    """The servers of one round, each of which is asked once whether it answers at all."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._free: dict[object, asyncio.Semaphore] = {}
        self._asked: dict[object, asyncio.Task[None]] = {}

    def free(self, url: URL) -> asyncio.Semaphore:
        """Of what few logs of a server can have at a time. Files share it: they are on disks of this machine."""
        server = self._places.server(url)
        return self._free.setdefault(None if server.backend.in_files else server, asyncio.Semaphore(AT_ONCE))

    async def require_answer(self, url: URL) -> None:
        """Raises:
        DatabaseUnavailableError: the server cannot be reached, or does not answer within `ANSWER_SECONDS`.
        """
        server = self._places.server(url)
        if server not in self._asked:
            database = self._places.database(url.difference_update_query(["schema"]))
            self._asked[server] = asyncio.create_task(_answer(database))
        await asyncio.shield(self._asked[server])

    async def close(self) -> None:
        await drop(self._asked.values())


async def _answer(database: Database) -> None:
    """Ask a short question, which no lock on a log holds up."""
    database.retry_seconds = 0.0
    await _in_time(database.inspect(partial(database.backend.missing_tables, [])), database.name)


async def _in_time(answer: Awaitable[T], name: str) -> T:
    try:
        return await asyncio.wait_for(answer, ANSWER_SECONDS)
    except asyncio.TimeoutError as error:
        raise DatabaseUnavailableError(f"{name} has not answered within {ANSWER_SECONDS:g} s") from error


class Upkeep:
    """The part of `Directory` that works on whole logs."""

    places: Places
    records: Records

    @asynccontextmanager
    async def _whole(self, entry: LogEntry, servers: _Servers | None = None) -> AsyncIterator[EventStore]:
        """A store of its own at the place of a log, for work on the whole of it. It does not wait for a server.

        Raises:
            DatabaseUnavailableError: it cannot be reached, or does not answer a short question within `ANSWER_SECONDS`.
        """
        url = self.places.resolve(entry.place)
        store = self.places.store(url)
        database = store.reader.database
        database.retry_seconds = 0.0
        if database.backend.in_files and not Path(str(url.database)).exists():  # noqa: ASYNC240 - a look at a disk
            raise DatabaseUnavailableError(f"{store.name}: there is no such file")
        try:
            if servers is not None:
                await servers.require_answer(url)
            await _in_time(database.moved_to(), store.name)
            yield store
        finally:
            await store.close()

    async def _chosen(self, names: Collection[str] | None) -> list[LogEntry]:
        entries = await self.records.logs()
        if names is None:
            return entries
        for name in sorted(set(names) - {entry.name for entry in entries}):
            raise self.records.unknown(name)
        return [entry for entry in entries if entry.name in set(names)]

    async def report(
        self, names: Collection[str] | None = None, *, on_report: OnReport | None = None
    ) -> list[LogReport]:
        """How the logs are doing, all or those of these names: schema, last position, size, lag. A log that cannot be
        reached holds up no other, and a server that does not answer is waited for once.

        Args:
            names: Which logs.
            on_report: Called with the report of each log as soon as it is there.

        Raises:
            InvalidOptionError: there is no log of a name.
        """
        counts = await self.records.counts()

        async def look(entry: LogEntry, servers: _Servers) -> LogReport:
            report = await found(entry, servers)
            if on_report is not None:
                on_report(report)
            return report

        async def found(entry: LogEntry, servers: _Servers) -> LogReport:
            known = entry.name, entry.place, entry.state, counts.get(entry.name, 0)
            try:
                async with self._whole(entry, servers) as store:
                    database = store.reader.database
                    revision = await schema.current(store)
                    if revision is None:
                        return LogReport(
                            *known, error=None if entry.state == CREATING else "it has no tables"
                        )
                    position = await store.get_global_position()
                    checkpoints = await CheckpointRepository(database).get_all_checkpoints()
                    reached = [
                        found.global_position for found in checkpoints if found.global_position is not None
                    ]
                    sizes = await _bytes(database)
            except Exception as error:  # whatever it is, the other logs are told of
                return LogReport(*known, error=error_text(error))
            return LogReport(
                *known, revision, position, sizes, max(0, position - min(reached)) if reached else None
            )

        return await self._each(await self._chosen(names), look)

    async def upgrade(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Bring the logs to the newest schema, all or those of these names. One that fails is told of, and stops no other;
        what is upgraded already is passed over, so that a round that was broken off can be repeated.

        Raises:
            InvalidOptionError: there is no log of a name.
        """

        async def bring(store: EventStore, entry: LogEntry) -> str:
            before = await schema.current(store)
            if before != schema.HEAD:
                await schema.upgrade(store)
                if await distribution.is_distributed(store):
                    await distribution.distribute(store)
            if entry.revision != schema.HEAD:
                await self.records.set_revision(entry.name, schema.HEAD)
            return (
                f"is at {before} already" if before == schema.HEAD else f"went from {before} to {schema.HEAD}"
            )

        return await self._round(names, bring, on_outcome)

    async def distribute(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Let a node of a Citus cluster have each log, all or those of these names; see `esource.schema.distribution.distribute`.
        One that fails is told of, and stops no other; what is distributed already stays where it is.

        Raises:
            InvalidOptionError: there is no log of a name; or the stores of this directory were not opened with
                ``append_lock="row"`` and ``notify=False``, without which they could not use such a log.
        """
        self.places.require_options("a log of a Citus cluster", append_lock="row", notify=False)

        async def bring(store: EventStore, entry: LogEntry) -> str:
            before = await distribution.is_distributed(store)
            await distribution.distribute(store)
            return "is distributed already" if before else "was distributed"

        return await self._round(names, bring, on_outcome)

    async def verify(
        self, names: Collection[str] | None = None, *, on_outcome: OnOutcome | None = None
    ) -> list[Outcome]:
        """Look at every row of the logs, all or those of these names; see `esource.copying.integrity.verify_store`.

        Raises:
            InvalidOptionError: there is no log of a name.
        """

        async def look(store: EventStore, entry: LogEntry) -> str:
            found = await verify_store(store)
            if not found.is_whole:
                raise EventSourceError("; ".join(map(str, found.findings)))
            return f"is in order: {', '.join(f'{count} {table}' for table, count in found.rows.items())}"

        return await self._round(names, look, on_outcome)

    async def _round(
        self,
        names: Collection[str] | None,
        work: Callable[[EventStore, LogEntry], Awaitable[str]],
        on_outcome: OnOutcome | None,
    ) -> list[Outcome]:
        async def one(entry: LogEntry, servers: _Servers) -> Outcome:
            try:
                _require_rest(entry)
                async with self._whole(entry, servers) as store:
                    outcome = Outcome(entry.name, await work(store, entry))
            except Exception as error:  # whatever it is, the other logs are not to wait for it
                outcome = Outcome(entry.name, "", error_text(error))
            if on_outcome is not None:
                on_outcome(outcome)
            return outcome

        return await self._each(await self._chosen(names), one)

    async def _each(
        self, entries: list[LogEntry], work: Callable[[LogEntry, _Servers], Awaitable[T]]
    ) -> list[T]:
        """Do the work for each log, a few of each server at a time; the results in the order of the logs."""
        servers = _Servers(self.places)

        async def one(entry: LogEntry) -> T:
            async with servers.free(self.places.resolve(entry.place)):
                return await work(entry, servers)

        tasks = [asyncio.ensure_future(one(entry)) for entry in entries]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            await uninterrupted(drop(tasks))  # if a callback has raised
            await uninterrupted(servers.close())


async def _bytes(database: Database) -> int:
    """How much the log takes; where several lie in one database, without what belongs to all."""
    whole, *parts = await database.inspect(inspection_of(database.backend).sizes)
    return sum(part.bytes for part in parts) if database.backend.supports_schemas else whole.bytes


def _require_rest(entry: LogEntry) -> None:
    if entry.state != OPEN:
        raise InvalidOptionError(
            f"the log {entry.name!r} is not at rest: {entry.state} it was broken off, or goes on"
        )
