"""Moving one log of a directory to another place, and dropping one."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sqlalchemy.engine import URL

from esource import schema
from esource.copying import CopyResult, Reset, cut_over
from esource.copying import copy as copy_store
from esource.copying.progress import OnProgress
from esource.copying.rows import TABLES
from esource.dialect.urls import moving_of
from esource.directory.records import DROPPING, MOVING, OPEN, LogEntry
from esource.directory.upkeep import Upkeep
from esource.errors import InvalidOptionError, StoreMovedError
from esource.schema.schemas import drop_schema, has_schema

DROPPED = "nowhere: it was dropped"
"""What the fence in a file says that is about to be removed."""


class Moves(Upkeep):
    """The part of `Directory` that moves and drops logs."""

    async def _noticed(self, entry: LogEntry) -> None:
        """Take note of a log that was moved, or is gone."""
        raise NotImplementedError

    async def move(
        self,
        name: str,
        to: str | URL | PathLike[str],
        *,
        reset: Reset = (),
        on_progress: OnProgress | None = None,
    ) -> CopyResult:
        """Move a log to another place while it is written to: `esource.copying.copy`, then `esource.copying.cut_over`, then
        the directory's note. What was broken off at any moment goes on with the same call.

        The stores of this directory, in any process, follow: an append that meets the fence is done in the new place, and
        a transaction that meets it raises `StoreMovedError` and can be repeated. Stores that only read look there within
        ``refresh_seconds``, and until then read what was there at the cut-over. Between SQLite and PostgreSQL open
        stores do not follow: `log` gives a new one.

        The old database stays, behind its fence. Read models are not moved: see ``reset``.

        Args:
            name: The log.
            to: The new place, as for `create`.
            reset: Projections that begin anew in the new place; see `esource.copying.copy`.
            on_progress: Called now and then.

        Raises:
            InvalidOptionError: there is no such log, it is being moved to another place, or another log is there.
            StoreMovedError: a log has moved away from the new place.
            CopyRefusedError: the new place holds something else, or the two are not equal in the end; the log stays.
            DatabaseBusyError: a transaction was open for too long; the log stays, and the call can be repeated.
        """
        entry = await self.records.log(name)
        place = self.places.place(to)
        if entry.state == MOVING and entry.target != place:
            raise InvalidOptionError(
                f"the log {name!r} is being moved to {entry.target}. Let that move come to its end first: repeat it"
            )
        for other in await self.records.logs():
            if place in (other.place, other.target) and (other.name != name or entry.state == OPEN):
                raise InvalidOptionError(f"the log {other.name!r} is at {place} already")
        if entry.state not in (OPEN, MOVING):
            raise InvalidOptionError(
                f"the log {name!r} is not ready: {entry.state} it was broken off, or goes on"
            )
        there = self.places.store(self.places.resolve(place))
        try:
            moved_to = await there.reader.database.moved_to()
            if moved_to is not None:
                raise StoreMovedError(there.name, moved_to)
            entry = await self.records.set_state(entry, MOVING, place)
            async with self._whole(entry) as here:
                try:
                    await self.places.prepare(there)
                    await copy_store(here, there, reset=reset, on_progress=on_progress)
                    result = await cut_over(here, there, reset=reset, on_progress=on_progress)
                except StoreMovedError as error:
                    if error.moved_to != there.name:
                        raise
                    result = CopyResult(here.name, there.name)  # an earlier call came as far as that
        finally:
            await there.close()
        entry = await self.records.set_place(entry, place)
        await self._noticed(entry)
        return result

    async def stay(self, name: str) -> None:
        """Give up a move that has not come to its cut-over: the log stays where it is. What was copied stays, too.

        Raises:
            InvalidOptionError: there is no such log, or it is not being moved.
            StoreMovedError: it was cut over already; repeat the move.
        """
        entry = await self.records.log(name)
        if entry.state != MOVING:
            raise InvalidOptionError(f"the log {name!r} is not being moved")
        async with self._whole(entry) as store:
            moved_to = await store.reader.database.moved_to()
        if moved_to is not None:
            raise StoreMovedError(store.name, moved_to)
        await self.records.set_state(entry, OPEN)

    async def drop(self, name: str, *, everything: bool = False) -> None:
        """Drop a log: its schema or its file, and its note. Stop what works with it before.

        Args:
            name: The log.
            everything: Also if it holds events, or objects of the application, or if keys live in it.

        Raises:
            InvalidOptionError: it holds something, and ``everything`` was not said; it lies in no schema of its own; it
                is being moved. Nothing was dropped.
        """
        entry = await self.records.log(name)
        if entry.state == MOVING:
            raise InvalidOptionError(
                f"the log {name!r} is being moved. Let the move come to its end first: repeat it"
            )
        url, before = self.places.resolve(entry.place), entry.state
        in_files = self.places.server(url).backend.in_files
        entry = await self.records.set_state(entry, DROPPING)  # from now on no key comes into it
        try:
            if not everything:
                await self._refuse_keys(name)
            if in_files:
                await self._fence_file(entry, everything=everything)
            else:
                await self._drop_schema(url, everything=everything)
        except BaseException:
            await self.records.set_state(entry, before)
            raise
        if in_files:
            await self._remove_file(url)
        await self.forget(name)

    async def _refuse_keys(self, name: str) -> None:
        count = (await self.records.counts()).get(name, 0)
        if count:
            raise InvalidOptionError(
                f"{count} keys live in the log {name!r}. Nothing was dropped. `everything` (`--everything`) drops it all the same"
            )

    async def forget(self, name: str) -> None:
        """Take a log out of the directory, and leave its database as it is. The keys that live in it are forgotten, too.

        Raises:
            InvalidOptionError: there is no such log.
        """
        entry = await self.records.log(name)
        await self.records.remove(name)
        await self._noticed(entry)

    async def _drop_schema(self, url: URL, *, everything: bool) -> None:
        store = self.places.store(url.difference_update_query(["schema"]))
        try:
            name = store.reader.database.backend.schema_of(url)
            if name is None:
                raise InvalidOptionError(
                    f"{store.name}: the log lies in no schema of its own. `esource downgrade base` drops its tables, and "
                    "Directory.forget (`esource logs drop --keep`) takes it out of the directory"
                )
            own = self.records.database
            if name == own.schema and self.places.server(url) is self.places.server(own.url):
                raise InvalidOptionError(
                    f"{store.name}: the directory's own tables are in the schema {name!r}, too. Nothing was dropped. "
                    "Directory.forget (`esource logs drop --keep`) takes the log out of the directory"
                )
            if await has_schema(store, name):  # else a call that was broken off came as far as that
                await drop_schema(store, name, everything=everything)
        finally:
            await store.close()

    async def _fence_file(self, entry: LogEntry, *, everything: bool) -> None:
        """Keep all writers out of a file that is to be removed, because who has it open would go on writing to it."""
        if not Path(str(self.places.resolve(entry.place).database)).exists():  # noqa: ASYNC240 - a look at a disk
            return
        async with self._whole(entry) as store, store.transaction():
            database = store.reader.database
            if await schema.current(store) is None or await database.moved_to() == DROPPED:
                return
            position = await store.get_global_position()
            if position and not everything:
                raise InvalidOptionError(
                    f"{store.name} holds events up to global position {position}. Nothing was dropped. `everything` "
                    "(`--everything`) drops that, too"
                )
            unit, moving = database.current_unit(), moving_of(database.backend)
            assert unit is not None
            await moving.unfence(unit.driver, TABLES)  # it may have been moved before
            await moving.fence(unit.driver, TABLES, DROPPED)

    async def _remove_file(self, url: URL) -> None:
        await self.places.let_go(url)
        file = Path(str(url.database))
        for end in ("", "-wal", "-shm", "-journal"):
            file.with_name(file.name + end).unlink(missing_ok=True)
