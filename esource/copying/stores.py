"""Copying a store, following it while it is written to, and cutting over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, literal_column, select

from esource import schema
from esource.copying.log import LogCopy
from esource.copying.mirror import Change, counters, mirror, raise_counters
from esource.copying.progress import OnProgress, Progress
from esource.copying.restarts import Reset, Restarts
from esource.copying.rows import EVENTS, MIRRORED, TABLES, require_empty
from esource.copying.verification import Verification, verify_log, verify_mirrored
from esource.database.database import Database
from esource.database.sources import Source
from esource.dialect.urls import inspection_of, moving_of
from esource.errors import CopyRefusedError, InvalidOptionError, StoreMovedError
from esource.log.pages import last_position
from esource.tables.model import projection_checkpoints
from esource.tables.statement import Statement

POLL_SECONDS = 1.0
"""How long a copy that follows sleeps at most before it looks again, in seconds."""

MIRROR_SECONDS = 10.0
"""How often a copy that follows compares the tables beside the log, in seconds."""


_CHECKPOINTS = Statement(
    select(
        projection_checkpoints.c.projection_name,
        func.coalesce(projection_checkpoints.c.global_position, literal_column("0")),
    ).order_by(projection_checkpoints.c.projection_name)
)


@dataclass(slots=True)
class CopyResult:
    """What a copy has done."""

    source: str
    target: str
    events: int = 0
    """Events that were copied by this run."""
    position: int = 0
    """Global position up to which the target holds the source's events."""
    tables: dict[str, Change] = field(default_factory=dict)
    """By table beside the log: how many rows were added and removed."""
    seconds: float = 0.0
    verification: Verification | None = None
    """What comparing the two has found; None if it was not asked for."""
    checkpoints: dict[str, int] = field(default_factory=dict)
    """The checkpoints that came along, with their positions. What their projections, or subscriptions, have made of
    the events did not."""
    reset: list[str] = field(default_factory=list)
    """The checkpoints that stayed behind, because their projections are to begin anew."""
    not_copied: list[str] = field(default_factory=list)
    """The other tables in the source's database: they are the application's, and read models may be among them."""

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.events) or any(change != (0, 0) for change in self.tables.values())


async def copy(
    source: Source,
    target: Source,
    *,
    follow: bool = False,
    verify: bool = False,
    resume: bool = True,
    reset: Reset = (),
    on_progress: OnProgress | None = None,
) -> CopyResult:
    """Copy all five tables from one store to another, in any direction.

    Global positions, their holes, and the moments at which events were stored stay what they are; nothing is
    decoded. A copy that was ended at any moment, even by SIGKILL, goes on where it was. The source may be
    written to meanwhile. Leases and claims are not copied: they belong to processes.

    What a projection has written is not copied either, but its checkpoint is: unless you bring its read model along,
    it would show what came after the move alone. The result lists the checkpoints, and the tables of the source's
    database that are not ours; with ``reset`` a projection begins anew in the target.

    Args:
        source: a store, an engine or a URL, at the newest schema.
        target: the same, empty or the beginning of a copy of that source; its tables are made if there are none.
        follow: keep copying what is appended, until this is cancelled or `cut_over` has moved the store.
        verify: compare every row of both afterwards. Not together with ``follow``: `cut_over` does it.
        resume: go on with a target that holds the beginning of a copy. If not, the target must be empty.
        reset: the names of projections whose checkpoints, of all versions and partitions, and dead letters stay
            behind; or "all". Handlers with effects elsewhere, such as mails, repeat them.
        on_progress: called now and then.

    Raises:
        InvalidOptionError: there is no checkpoint of a name in ``reset``.
        CopyRefusedError: the target holds something else; anything, if it must be empty; events without the tags of now.
        InvalidEventError: a row that another program wrote to the source cannot be stored in the target.
        TagsIncompleteError: events of the source are still being given tags; see `fill_tags`.
        SchemaError: the source's tables are missing, older or newer.
    """
    if follow and verify:
        raise InvalidOptionError("follow and verify exclude each other: cut_over verifies at the end")
    async with _both(source, target) as (here, there):
        if not resume:
            await require_empty(there)
        move = await _Move.begin(here, there, Restarts(reset), on_progress)
        await move.catch_up()
        if follow:
            await move.follow()
        if verify:
            await move.verify()
        return await move.finish()


async def cut_over(
    source: Source,
    target: Source,
    *,
    verify: bool = True,
    reset: Reset = (),
    on_progress: OnProgress | None = None,
) -> CopyResult:
    """Finish a copy and move the store to the target: afterwards the source refuses every write.

    First everything is copied and compared while writers go on. Then they are made to wait, for as long as
    it takes to copy and compare what came meanwhile; the source is fenced off in the same transaction, and
    the writers that waited get a `StoreMovedError`. If this fails or is killed at any moment before that, the source
    is as it was. Readers of the source go on.

    Args:
        source: a store, an engine or a URL.
        target: the same; it need not have been copied to before.
        verify: compare every event before writers are stopped. What is copied while they wait is always
            compared, and so are the tables beside the log.
        reset: projections that begin anew in the target, as for `copy`: their read models do not move.

    Raises:
        InvalidOptionError: there is no checkpoint of a name in ``reset``.
        CopyRefusedError: the two are not equal in the end; the source is not fenced off.
        StoreMovedError: the source has moved before.
        DatabaseBusyError: a transaction of the source was open for too long.
    """
    async with _both(source, target) as (here, there):
        move = await _Move.begin(here, there, Restarts(reset), on_progress)
        await move.refuse_moved()
        await move.catch_up()
        verified = move.log.position
        if verify:
            await move.verify_log(0, verified)
        async with here.transaction() as unit:
            moving = moving_of(here.backend)
            with here.backend.errors(here.name):
                await moving.lock_tables(unit.driver, TABLES)
            await move.refuse_moved()
            await move.catch_up()
            await move.verify_log(verified, move.log.position)
            await verify_mirrored(here, there, move.verification, move.restarts)
            if not move.verification.is_identical:
                raise CopyRefusedError(there.name, "; ".join(move.verification.differences), is_cut_over=True)
            with here.backend.errors(here.name):
                await moving.fence(unit.driver, TABLES, there.name)
        result = await move.finish()
        result.verification = move.verification
        return result


async def reopen(store: Source) -> str | None:
    """Take the fence away that `cut_over` has put around a store; where the store had moved to, if it had.

    What was appended in the other database meanwhile is not here: `copy` it back, or lose it.
    """
    async with schema.whole_store(store, "reopening", any_schema=True) as database:
        moving = moving_of(database.backend)
        moved_to = await database.moved_to()
        async with database.transaction() as unit:
            with database.backend.errors(database.name):
                await moving.unfence(unit.driver, TABLES)
        return moved_to


async def verify_copy(
    source: Source, target: Source, *, reset: Reset = (), on_progress: OnProgress | None = None
) -> Verification:
    """Compare two stores row by row, all five tables, whatever kinds of databases they are in.

    Use it while no program writes to the source. Leases and claims are not compared: they belong to processes.
    Nor are the checkpoints of projections that begin anew in the target, if ``reset`` names them as for `copy`.
    """
    async with _both(source, target, prepare=False) as (here, there):
        move = _Move(here, there, Restarts(reset), on_progress)
        await move.verify(complete=True)
        return move.verification


class _Move:
    """One copy of one store."""

    def __init__(
        self, source: Database, target: Database, restarts: Restarts, on_progress: OnProgress | None
    ) -> None:
        self.source = source
        self.target = target
        self.restarts = restarts
        self.verification = Verification()
        self.log = LogCopy(source, target, self._copied)
        self._on_progress = on_progress or (lambda _: None)
        self._total = 0
        self._result = CopyResult(source.name, target.name)
        self._started = time.monotonic()

    @classmethod
    async def begin(
        cls, source: Database, target: Database, restarts: Restarts, on_progress: OnProgress | None
    ) -> _Move:
        move = cls(source, target, restarts, on_progress)
        restarts.require_known(await move.checkpoints(), source.name)
        await move.log.begin()
        if move.log.position == 0:
            await move._refuse_strangers()
        return move

    async def _refuse_strangers(self) -> None:
        """A target without events may hold the rest of a copy, but nothing else."""
        found = Verification()
        await verify_mirrored(self.source, self.target, found, self.restarts)
        strange = [table for table in found.tables if table.extra]
        if strange:
            listed = ", ".join(f"{table.extra} rows in {table.table}" for table in strange)
            raise CopyRefusedError(self.target.name, f"it holds {listed} that the source does not")

    async def refuse_moved(self) -> None:
        moved_to = await self.source.moved_to()
        if moved_to is not None:
            raise StoreMovedError(self.source.name, moved_to)

    def _copied(self, events: int) -> None:
        self._on_progress(Progress("copy", events, max(events, self._total)))

    async def catch_up(self) -> None:
        """Bring the target up to what the source has now."""
        [(left,)] = await self.source.rows(EVENTS.count_past, {"past": self.log.position})
        self._total = self.log.copied + left
        try:
            await self.log.catch_up(left)
        except CopyRefusedError:  # another program writes to the target
            await self._build_indexes()
            raise
        await self._build_indexes()
        await self.mirror()

    async def _build_indexes(self) -> None:
        await self.log.build_indexes(lambda done, total: self._on_progress(Progress("index", done, total)))

    async def mirror(self) -> None:
        for relation in MIRRORED:
            change = await mirror(self.source, self.target, relation, self.restarts)
            before = self._result.tables.get(relation.name, Change(0, 0))
            self._result.tables[relation.name] = Change(
                before.added + change.added, before.removed + change.removed
            )
            if change != (0, 0):
                self._on_progress(Progress(relation.name, change.added + change.removed, 0))
        relations = EVENTS, *MIRRORED
        await raise_counters(self.target, relations, await counters(self.source, relations))

    async def follow(self) -> None:
        """Copy what is appended until the store has moved."""
        mirrored = time.monotonic()
        with self.source.wake_up.listening() as heard:
            while True:
                heard.clear()
                try:
                    copied = await self.log.catch_up()
                    if time.monotonic() - mirrored > MIRROR_SECONDS:
                        await self.mirror()
                        mirrored = time.monotonic()
                except CopyRefusedError:
                    # The application is at work in the target already.
                    if await self.source.moved_to() is None:
                        raise
                    return
                if not copied:
                    if await self.source.moved_to() is not None:
                        return
                    await heard.wait(POLL_SECONDS)

    async def verify_log(self, after: int, upto: int) -> None:
        past = {"past": after}
        [(total,)] = await self.source.rows(EVENTS.count_past, past)
        done = 0

        def tell(events: int) -> None:
            nonlocal done
            done += events
            self._on_progress(Progress("verify", done, max(done, total)))

        await verify_log(self.source, self.target, self.verification, after=after, upto=upto, tell=tell)

    async def verify(self, *, complete: bool = False) -> None:
        """Compare everything: up to the end of what was copied, or up to the end of both."""
        upto = self.log.position
        if complete:
            upto = max(await last_position(self.source), await last_position(self.target))
        await self.verify_log(0, upto)
        await verify_mirrored(self.source, self.target, self.verification, self.restarts)
        self._result.verification = self.verification

    async def checkpoints(self) -> dict[str, int]:
        """The source's, with their positions; one that only names the version in use has none."""
        return dict(await self.source.rows(_CHECKPOINTS, {}))

    async def finish(self) -> CopyResult:
        for name, position in (await self.checkpoints()).items():
            if self.restarts.concern(name):
                self._result.reset.append(name)
            elif position:
                self._result.checkpoints[name] = position
        self._result.not_copied = await self.source.inspect(inspection_of(self.source.backend).other_tables)
        self._result.events = self.log.copied
        self._result.position = self.log.position
        self._result.seconds = time.monotonic() - self._started
        return self._result


@asynccontextmanager
async def _both(
    source: Source, target: Source, *, prepare: bool = True
) -> AsyncIterator[tuple[Database, Database]]:
    """Both databases at the newest schema, and two different ones."""
    async with (
        schema.whole_store(source, "a copy") as here,
        schema.whole_store(target, "a copy", any_schema=prepare) as there,
    ):
        if prepare:
            await schema.initialize(there, like=here)
        if here is there or await _identity(here) == await _identity(there):
            raise InvalidOptionError(f"source and target are the same database: {here.name}")
        yield here, there


async def _identity(database: Database) -> Any:
    return database.backend.name, await database.inspect(moving_of(database.backend).identity)
