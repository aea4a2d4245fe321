"""Copying the log: what the source has past the end of the target, in order, position by position.

The target itself is the record of how far a copy has come: each chunk is one transaction that starts where the
target ends. A copy that was killed, however and whenever, goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

from sqlalchemy import bindparam, func, select

from esource.copying.movable import unmovable
from esource.copying.rows import EVENTS, PAGE_ROWS, Cursor, Row, next_size, page, scan
from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.dialect.urls import moving_of
from esource.errors import CopyRefusedError, DatabaseError, InvalidEventError
from esource.log.filling import TagFilling, require_all_filled, tag_fillings_of
from esource.log.pages import Fetch, ahead, last_position
from esource.tables.model import event_tags, events
from esource.tables.statement import Statement

CHUNK_EVENTS = 20_000
"""Events in one transaction of the target, at least; a page more at most."""

DEFERRED_FROM = 10_000
"""Events from which on an empty target gets the indexes that only make queries quick afterwards: sorting is less
work than keeping them sorted."""

COMPARED_EVENTS = 1000
"""How many of the target's last events are compared before a copy goes on; `verify_copy` compares all."""

FIRST_PAGE = 500

_KEY = EVENTS.key_place

_TAGS_UPTO = Statement(
    select(func.count())
    # The index still tells of a part of the log that was detached.
    .select_from(event_tags.join(events, events.c.global_position == event_tags.c.global_position))
    .where(events.c.global_position <= bindparam("upto", type_=events.c.global_position.type))
)


async def require_prefix(source: Database, target: Database) -> int:
    """The position up to which the target is a copy already.

    Raises:
        CopyRefusedError: it holds something that the source does not hold in the same place.
    """
    upto = await last_position(target)
    if upto == 0:
        return 0
    [(here, last)] = await source.rows(EVENTS.count_upto, {"upto": upto})
    [(there, _)] = await target.rows(EVENTS.count_upto, {"upto": upto})
    if here != there or last != upto:
        raise CopyRefusedError(
            target.name,
            f"it holds {there} events up to position {upto}, where the source holds {here}"
            + ("" if last in (upto, None) else f" and its last one is at {last}"),
        )
    # Positions may have holes, so that this is more than there are: enough to tell, whatever their number.
    start = max(0, upto - COMPARED_EVENTS)
    for after in dict.fromkeys((0, start)):
        ours, theirs = [
            [
                EVENTS.canonical(row)
                for row in await page(database, EVENTS, Cursor(after, after), COMPARED_EVENTS)
            ]
            for database in (source, target)
        ]
        for mine, other in zip(ours, theirs, strict=False):
            if mine != other:
                raise CopyRefusedError(target.name, _told_apart(mine, other))
    return upto


def _told_apart(mine: str, other: str) -> str:
    """How an event of the source differs from the target's. Payloads are not shown: the text may end up in a log file."""
    names = EVENTS.columns(with_key=True)
    ours, theirs = (dict(zip(names, json.loads(text), strict=True)) for text in (mine, other))
    place, key = "global_position", "event_id"
    if (ours[place], ours[key]) == (theirs[place], theirs[key]):
        columns = ", ".join(name for name in names if ours[name] != theirs[name])
        return f"its event at position {ours[place]} is not as the source holds it: {columns}"
    there, here = (f"event {event[key]} at position {event[place]}" for event in (theirs, ours))
    return f"it holds {there}, where the source holds {here}"


class _Overtaken(Exception):  # noqa: N818 - it ends a pass, and is not an error
    """The target does not end any more where this copy has left it."""


class LogCopy:
    """Brings the target's log up to the source's. Several may work on one target: they do not disturb each
    other."""

    def __init__(self, source: Database, target: Database, tell: Callable[[int], None]) -> None:
        self.source = source
        self.target = target
        self._moving = moving_of(target.backend)
        self._columns = EVENTS.columns(with_key=True)
        self._tell = tell
        self.position = 0
        """The position up to which the target is known to be a copy."""
        self.copied = 0
        """Events that this object has written."""
        self._fillings: list[TagFilling] = []

    async def begin(self) -> None:
        """Find out how far the target is a copy. Raises what `require_prefix` and `catch_up` raise."""
        self.position = await require_prefix(self.source, self.target)
        await self._require_tags()

    async def catch_up(self, left: int = 0) -> int:
        """Copy what the source has now; how many events that were.

        What is appended meanwhile may come along and may be left for the next time: writers that are as
        fast as the copy would keep it from ending.

        Args:
            left: how many events those are about. If many, they need `build_indexes` afterwards.

        Raises:
            CopyRefusedError: another program has written something else to the target; or events that were copied have been
                given tags since.
            TagsIncompleteError: events of the source are being given tags.
            InvalidEventError: another writer's row in the source holds what the target cannot.
        """
        before = self.copied
        upto = await last_position(self.source)
        if self.position == 0 and left >= DEFERRED_FROM:
            await self._drop_indexes()
        while self.position < upto:
            async with aclosing(self._pages()) as pages:
                rows: list[Row] = await anext(pages, [])
                try:
                    while rows and self.position < upto:
                        rows = await self._chunk(rows, pages, upto)
                except _Overtaken:
                    self.position = await require_prefix(self.source, self.target)
                else:
                    break
        await self._require_tags()
        return self.copied - before

    async def _require_tags(self) -> None:
        """Refuse to go on where events of the source were given tags after they were copied. They are given no other changes, and
        lose none: their number tells. One query, and more if it has come to that."""
        fillings = await tag_fillings_of(self.source)
        if fillings != self._fillings:
            await require_all_filled(self.source)
            [(ours,)], [(theirs,)] = [
                await each.rows(_TAGS_UPTO, {"upto": self.position}) for each in (self.source, self.target)
            ]
            if ours != theirs:
                raise CopyRefusedError(
                    self.target.name,
                    f"its events up to position {self.position} have {theirs} tags, and those of the source {ours}: the source's "
                    "were given tags after they had been copied",
                )
            self._fillings = fillings

    def _pages(self) -> AsyncGenerator[list[Row], None]:
        """What the source has past the position, each page fetched while the one before is written."""
        size = FIRST_PAGE

        async def past(position: int) -> list[Row]:
            return await page(self.source, EVENTS, Cursor(position, position), size)

        def follow(rows: list[Row]) -> Fetch[Row]:
            nonlocal size
            size = next_size(EVENTS, rows)
            return partial(past, rows[-1][_KEY])

        return ahead(partial(past, self.position), follow, lambda: True)

    async def _chunk(self, rows: list[Row], pages: AsyncGenerator[list[Row], None], upto: int) -> list[Row]:
        """Write one transaction's worth, this page first; the page that is to be written next.

        Only the last one waits for the disk, which then holds the others, too: if the server dies before that, the
        target ends earlier, and that is where the next copy goes on.
        """
        position, written = self.position, 0

        async def several() -> AsyncGenerator[list[Row], None]:
            nonlocal rows, position, written
            while rows and written < CHUNK_EVENTS:
                yield rows
                written, position = written + len(rows), rows[-1][_KEY]
                rows = await anext(pages, [])

        async with self.target.transaction() as unit, aclosing(several()) as chunk:
            await self.target.backend.lock_log(unit.driver)
            if await last_position(self.target, unit) != self.position:
                raise _Overtaken
            try:
                with self.target.backend.errors(self.target.name):
                    await self._moving.load(unit.driver, EVENTS.table, self._columns, chunk)
            except (DatabaseError, ValueError, TypeError, AttributeError) as error:
                await self._explain(error)
                raise
            await self._moving.set_counter(unit.driver, EVENTS.table, position)
            if rows and position < upto:
                await self._moving.commit_without_waiting(unit.driver)
        self.position, self.copied = position, self.copied + written
        self._tell(self.copied)
        return rows

    async def _drop_indexes(self) -> None:
        if not await self.target.inspect(lambda driver: self._moving.may_alter(driver, EVENTS.table)):
            return
        # Not in the first chunk's transaction: an append takes the log's lock and the table's in either order.
        async with self._table_locked() as unit:
            if await last_position(self.target, unit) == 0:
                await self._moving.drop_indexes(unit.driver, EVENTS.table)

    async def build_indexes(self, tell: Callable[[int, int], None]) -> None:
        """Make the target's indexes that are missing, as they are after a long copy, whether it ended or was killed.

        Args:
            tell: called with how many are made, and of how many.
        """
        if not await self.target.inspect(lambda driver: self._moving.missing_indexes(driver, EVENTS.table)):
            return
        async with self._table_locked() as unit:  # another copy may be about to
            indexes = await self._moving.missing_indexes(unit.driver, EVENTS.table)
            for done, index in enumerate(indexes):
                tell(done, len(indexes))
                await self._moving.build_index(unit.driver, index)
        tell(len(indexes), len(indexes))

    @asynccontextmanager
    async def _table_locked(self) -> AsyncIterator[Unit]:
        """A transaction of the target in which no other connection writes to its log."""
        async with self.target.transaction() as unit:
            with self.target.backend.errors(self.target.name):
                await self._moving.lock_tables(unit.driver, [EVENTS.table])
                yield unit

    async def _explain(self, error: Exception) -> None:
        """Look for a row of this chunk that cannot be stored anywhere."""
        looked_at = 0
        async for rows in scan(self.source, EVENTS, Cursor(self.position, self.position)):
            for row in rows:
                problem = unmovable(EVENTS, row)
                if problem is not None:
                    raise InvalidEventError(
                        *problem,
                        remedy=f"It is the event at position {row[_KEY]} of {self.source.name}: mend that row, "
                        "then copy again; what was copied so far stays",
                    ) from error
            looked_at += len(rows)
            if looked_at > CHUNK_EVENTS + PAGE_ROWS:
                return
