"""What a directory has noted: its logs, and which log a key lives in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from secrets import randbelow
from uuid import UUID

from esource.checks import check_name, shown
from esource.database.database import Database
from esource.directory import tables
from esource.errors import ConstraintError, InvalidOptionError, SchemaMissingError

OF_A_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

MOST_GENERATIONS = 2**30
"""Numbers that a new log's generation is drawn from."""

CREATING, OPEN, MOVING, DROPPING = "creating", "open", "moving", "dropping"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A log, as its directory has noted it."""

    name: str
    place: str
    """Where it is: ``?schema=...`` beside the directory, the path of a file from the directory's folder, or a URL without
    its password."""
    state: str
    """``creating``, ``open``, ``moving`` or ``dropping``. What was broken off in another state than ``open`` goes on with
    the same call."""
    target: str | None
    """The place that it is being moved to."""
    takes_keys: bool
    """Whether keys that nobody has assigned may come into it."""
    generation: int
    """Raised by one with each move. A log that is created anew under the same name begins with another number."""
    revision: str | None
    """The revision of its tables, when the directory last created or upgraded it."""

    def is_elsewhere(self, before: LogEntry) -> bool:
        """Whether it has moved since; or was forgotten or dropped, and created anew, there or in another place."""
        return (before.generation, before.place) != (self.generation, self.place)


def key_of(key: str | UUID) -> str:
    """A key as it is noted: a UUID in small letters, however it was written.

    Raises:
        InvalidOptionError: it is neither a text nor a UUID, or no name that a database can hold.
    """
    if isinstance(key, UUID):
        return str(key)
    if isinstance(key, str) and OF_A_UUID.fullmatch(key):
        return key.lower()
    if not isinstance(key, str) or not key:
        raise InvalidOptionError(f"a key is a text or a UUID, not {shown(key)}")
    check_name("key", key)
    return key


def drawn(key: str, names: list[str]) -> str:
    """The log for a key, of those that take keys: always the same one of the same logs."""
    return max(names, key=lambda name: blake2b(f"{name}\0{key}".encode()).digest())


class Records:
    """The tables of a directory, in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def create_tables(self) -> None:
        """Make the tables, if they are not there."""
        database = self.database
        names = [table.name for table in tables.TABLES]
        if not await database.inspect(partial(database.backend.missing_tables, names)):
            return
        async with database.transaction() as unit:
            with database.backend.errors(database.name):
                await database.backend.lock_schema(unit.connection, database.schema)
                for statement in tables.creations(database.backend.sqlalchemy_dialect):
                    await database.backend.write(unit.driver, statement, (), commit=False)

    async def logs(self) -> list[LogEntry]:
        """All logs, by name. One query.

        Raises:
            InvalidOptionError: there is no directory in the database.
        """
        with self._there():
            return [_entry(row) for row in await self.database.read(tables.ALL, {})]

    async def logs_if_any(self) -> list[LogEntry]:
        """All logs; none if there is no directory yet."""
        names = [table.name for table in tables.TABLES]
        if await self.database.inspect(partial(self.database.backend.missing_tables, names)):
            return []
        return await self.logs()

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Say that the tables are not there in our words."""
        try:
            yield
        except SchemaMissingError as error:
            raise InvalidOptionError(
                f"{self.database.name} has no directory of logs. The first `esource logs create` makes it, or "
                "Directory.create()"
            ) from error

    async def log(self, name: str) -> LogEntry:
        """One log. One query.

        Raises:
            InvalidOptionError: the directory has none of this name.
        """
        with self._there():
            rows = await self.database.read(tables.ONE, {"its_name": name})
        if not rows:
            raise self.unknown(name)
        return _entry(rows[0])

    def unknown(self, name: str) -> InvalidOptionError:
        return InvalidOptionError(
            f"the directory in {self.database.name} has no log {shown(name)}. `esource logs list` shows those that it has"
        )

    async def add(self, name: str, place: str, *, takes_keys: bool | None) -> LogEntry:
        """Note a log that is to be created; the one that is there, if it has this name and this place. What was said of
        the keys that it takes is noted in both cases.

        Raises:
            InvalidOptionError: a log of this name lies elsewhere, or one of another name has this place.
        """
        values = {
            "name": name,
            "place": place,
            "state": CREATING,
            "takes_keys": int(bool(takes_keys)),
            "generation": randbelow(MOST_GENERATIONS) + 1,
        }
        try:
            await self.database.write(tables.ADD, values)
        except ConstraintError as error:
            there = [entry for entry in await self.logs() if name == entry.name or place == entry.place]
            if len(there) == 1 and (there[0].name, there[0].place) == (name, place):
                if takes_keys in (None, there[0].takes_keys):
                    return there[0]
                await self.database.write(
                    tables.SET_TAKES_KEYS, {"its_name": name, "takes_keys": int(bool(takes_keys))}
                )
                return await self.log(name)
            said = "; ".join(f"the log {entry.name!r} is at {entry.place}" for entry in there)
            raise InvalidOptionError(
                f"the log {name!r} cannot be at {place}: {said}. Nothing was created"
            ) from error
        return await self.log(name)

    async def set_state(self, entry: LogEntry, state: str, target: str | None = None) -> LogEntry:
        """Note what is done with a log.

        Raises:
            InvalidOptionError: another process moves or drops it, or has done so meanwhile.
        """
        values = {
            "its_name": entry.name,
            "its_generation": entry.generation,
            "its_state": entry.state,
            "its_target": entry.target,
            "new_state": state,
            "new_target": target,
        }
        if not await self.database.write(tables.SET_STATE, values):
            raise InvalidOptionError(
                f"another process moves or drops the log {entry.name!r}, or has done so meanwhile: look, and try again"
            )
        return await self.log(entry.name)

    async def set_place(self, entry: LogEntry, place: str) -> LogEntry:
        """Note where a log has moved to.

        Raises:
            InvalidOptionError: it was moved or dropped meanwhile.
        """
        values = {"its_name": entry.name, "its_generation": entry.generation, "place": place, "state": OPEN}
        if not await self.database.write(tables.SET_PLACE, values):
            raise InvalidOptionError(f"another process has moved or dropped the log {entry.name!r} meanwhile")
        return await self.log(entry.name)

    async def set_revision(self, name: str, revision: str) -> None:
        await self.database.write(tables.SET_REVISION, {"its_name": name, "revision": revision})

    async def remove(self, name: str) -> None:
        """Forget a log, and which keys live in it."""
        async with self.database.transaction():
            await self.database.write(tables.REMOVE, {"its_name": name})
            await self.database.write(tables.RELEASE_KEYS, {"its_log": name})

    async def assigned(self, key: str) -> str | None:
        """The log that a key was assigned to. One query."""
        with self._there():
            rows = await self.database.read(tables.LOG_OF_KEY, {"its_key": key})
        return rows[0][0] if rows else None

    async def assign(self, key: str, log: str) -> str:
        """Assign a key, if it is not assigned; the log that it lives in from now on.

        Raises:
            InvalidOptionError: there is no such log, or it is being dropped.
        """
        await self.database.write(tables.ASSIGN, {"key": key, "its_name": log})
        found = await self.assigned(key)
        if found is None:
            raise InvalidOptionError(f"the log {log!r} is being dropped, or was: no key comes to live in it")
        return found

    async def present(self, work: str, worker: str, seconds: float) -> list[str]:
        """Note that a worker is alive for so many seconds more; all that are, of its crew."""
        its = {"work": work, "its_work": work}
        await self.database.write(tables.ATTEND, {**its, "worker": worker, "seconds": seconds})
        await self.database.write(tables.SWEEP, {**its, "no_seconds": 0.0})
        return [row[0] for row in await self.database.read(tables.PRESENT, its)]

    async def leave(self, work: str, worker: str) -> None:
        """Note that a worker has ended."""
        await self.database.write(tables.LEAVE, {"its_work": work, "its_worker": worker})

    async def counts(self) -> dict[str, int]:
        """How many keys were assigned to each log. Reads all of them."""
        with self._there():
            return dict(await self.database.read(tables.COUNT_KEYS, {}))


def _entry(row: tuple[object, ...]) -> LogEntry:
    name, place, state, target, takes_keys, generation, revision = row
    return LogEntry(name, place, state, target, bool(takes_keys), generation, revision)  # type: ignore[arg-type]
