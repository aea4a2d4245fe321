"""Tags for events that were stored before their class declared them.

It goes through the log in pages while the application writes. Each page is a transaction of its own, with the record of how
far it has come: after a kill the next run goes on there. The record says, too, that the tags cannot be relied upon yet, so that
queries over them are refused until the end of the log is reached.

Events never change but for this: their tags are columns beside what they say. Only the owner of PostgreSQL's tables may do it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import bindparam, insert, select, update

from esource import schema
from esource.codec.codec import Codec
from esource.copying.progress import OnProgress, Progress
from esource.copying.rows import Row
from esource.database.database import Database
from esource.database.sources import Source
from esource.database.unit_of_work import Unit
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry, check_event_types, default_registry
from esource.domain.tags import declared_tags, stored_tags, tagged_fields, tags_to_store
from esource.errors import ConstraintError, EventDecodeError, InvalidEventError, InvalidOptionError
from esource.log.filling import filled_now, tag_fillings_of
from esource.log.pages import Selection, last_position, next_size, page_after
from esource.log.streams import ReadDirection, ReadOptions
from esource.moments import utc_now
from esource.privacy.fields import ALL_ERASED
from esource.tables.filling import UNFILLED, Declared
from esource.tables.model import events, tag_fillings
from esource.tables.rows import EVENT_ID, EVENT_TYPE, POSITION, TAGS, EventRow
from esource.tables.statement import Statement

SAMPLE = 20
"""Events of a type that are looked at to find out whether they lack tags: so many of the first, and of the last."""

PAGE = 250
"""Events in a page at most. On SQLite the application's writes wait while a page is written."""

_of_declared = (
    tag_fillings.c.event_type == bindparam("of_type", type_=tag_fillings.c.event_type.type),
    tag_fillings.c.tag_name == bindparam("of_name", type_=tag_fillings.c.tag_name.type),
)
_BEGIN = Statement(
    insert(tag_fillings).values(
        event_type=bindparam("of_type"), tag_name=bindparam("of_name"), global_position=bindparam("begin")
    )
)
_PLACE = Statement(select(tag_fillings.c.global_position).where(*_of_declared).with_for_update())
_MOVE = Statement(
    update(tag_fillings)
    .where(*_of_declared)
    .values(global_position=bindparam("upto"), completed_at=bindparam("completed_at"))
)
_TAG = Statement(
    update(events)
    .where(
        events.c.global_position == bindparam("place", type_=events.c.global_position.type),
        events.c.tags.is_not_distinct_from(bindparam("as_read", type_=events.c.tags.type)),
    )
    .values(tags=bindparam("with_tags", type_=events.c.tags.type))
    .returning(events.c.global_position)
)


@dataclass(slots=True)
class TagsFilled:
    """What `fill_tags` has done, or would do."""

    database: str
    tags: dict[str, list[str]]
    """The names of the tags that are declared, by event type."""
    looked_at: int = 0
    """Events that were looked at."""
    filled: int = 0
    """Events among them that lacked tags, and have them now."""
    position: int = 0
    """Every event up to here has its tags."""
    is_dry_run: bool = False
    """Nothing was changed."""


@dataclass(slots=True)
class _Place:
    """How far the tags of one declaration have come."""

    position: int
    completed_at: datetime | None
    is_at_end: bool = False
    """In this run."""


async def fill_tags(
    store: Source,
    *,
    registry: EventRegistry = default_registry,
    types: Iterable[str | type[DomainEvent]] | None = None,
    again: bool = False,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> TagsFilled:
    """Give stored events the tags that their classes declare by now; those that they have they keep.

    The application may write meanwhile. Queries and conditions over these tags are refused (`TagsIncompleteError`) from the
    beginning until the end of the log is reached. What was ended goes on where it was. A later run looks only at events that came
    since: those that a program with an older class has stored without the tags.

    So deploy the class to every program that appends first. Events that an older program stores after the end of the last run lack
    their tags, and no query knows.

    Args:
        store: A store, an engine or a URL, at the newest schema; on PostgreSQL with the rights of the tables' owner.
        registry: The classes that declare the tags.
        types: Only these event types; all whose class declares tags if left out.
        again: Begin at the start of the log, though it was done before: a class gives the tags of a name to more events by now.
        dry_run: Only count; nothing is changed.
        on_progress: Called after each page, with positions.

    Raises:
        InvalidOptionError: a class declares no tag, or the store is one of a tenant.
        EventDecodeError: an event does not fit its class, or its values make no tag. What was filled stays, and another run goes on
            there: mend the class, or write an upcaster.
        DatabaseReadOnlyError: the role may not change the tables.
        SchemaError: the tables are missing, older or newer.
    """
    declared = declarations(registry, types)
    async with schema.whole_store(store, "filling in tags") as database:
        filling = _Filling(database, Codec(registry), declared, dry_run=dry_run)
        await filling.begin(again=again)
        while await filling.go_on():
            if on_progress is not None:
                on_progress(Progress("tag", filling.result.position, filling.head))
        return filling.result


def declarations(
    registry: EventRegistry, types: Iterable[str | type[DomainEvent]] | None = None
) -> list[Declared]:
    """The tags that classes declare, by their stored types and in their order. No I/O.

    Raises:
        InvalidOptionError: one of the types that are asked for declares none.
    """
    wanted = check_event_types(types)
    named = registry.list_types() if wanted is None else sorted(registry.types_of(wanted))
    found: list[Declared] = []
    for event_type in named:
        event_class = registry.get_or_none(event_type)
        names = sorted({name for _, name in tagged_fields(event_class)}) if event_class else []
        if wanted is not None and not names:
            raise InvalidOptionError(
                f"{event_type} declares no tag: mark a field of its class, as in Annotated[str, Tag(...)], and register it"
            )
        found += [Declared(event_type, name) for name in names]
    return found


async def take_back(database: Database, unit: Unit, rows: Sequence[Row], filled: list[list[str]]) -> None:
    """Say in the record that events which come back may lack tags that those of their type were given meanwhile; not if no run has
    come to its end since they left, when `filled_now` said what was filled. A tag of that name shows nothing: an append or another
    field may have given it."""
    await database.backend.lock_log(unit.driver)  # no filling begins that does not see them
    there = await filled_now(database)
    for filling in await tag_fillings_of(database):
        each = Declared(filling.event_type, filling.tag_name)
        if any(known[:2] == [*each] and known in there for known in filled):
            continue
        if lacking := [row[POSITION] for row in rows if row[EVENT_TYPE] == each.event_type]:
            begin = min(filling.global_position, min(lacking) - 1)
            await database.write(_MOVE, {**_values(each), "upto": begin, "completed_at": None})


async def lacking_tags(store: Source, *, registry: EventRegistry = default_registry) -> list[Declared]:
    """Declared tags that some of the first `SAMPLE` or of the last events of their type lack. Two queries for each type.

    Those that are being filled are left out. Events that cannot be read are passed over;
    `esource.copying.integrity.verify_store` tells of them.

    Raises:
        InvalidOptionError: the store is one of a tenant.
        SchemaError: the tables are missing, older or newer.
    """
    codec = Codec(registry)
    found: set[Declared] = set()
    async with schema.whole_store(store, "looking for tags") as database:
        for event_type in {each.event_type for each in declarations(registry)}:
            for direction in ReadDirection:
                wanted = Selection(database, ReadOptions(event_types=[event_type], direction=direction))
                for row in await page_after(database, wanted, wanted.start, SAMPLE):
                    with suppress(EventDecodeError):
                        missing = _declared_in(codec, row) - stored_tags(row[TAGS])
                        found |= {Declared(event_type, tag.partition(":")[0]) for tag in missing}
        return sorted(found - {Declared(*row) for row in await database.rows(UNFILLED, {})})


def _declared_in(codec: Codec, row: EventRow) -> frozenset[str]:
    """The tags that the class of an event declares for it.

    Raises:
        EventDecodeError: it does not fit its class, its values make no tag, or its column holds no tags.
    """
    try:
        stored_tags(row[TAGS])
        return declared_tags(codec.decode(row, ALL_ERASED))
    except (ValueError, InvalidEventError) as error:
        problem = f"its tags: {error}"
        raise EventDecodeError(row[EVENT_TYPE], row[EVENT_ID], row[POSITION], problem) from error


@dataclass(slots=True)
class _Filling:
    """The work on some declarations."""

    database: Database
    codec: Codec
    declared: list[Declared]
    dry_run: bool
    result: TagsFilled = field(init=False)
    head: int = 0
    """The position of the last event in the log."""
    _goal: int = 0
    _places: dict[Declared, _Place] = field(default_factory=dict)
    _size: int = field(default_factory=lambda: PAGE)

    def __post_init__(self) -> None:
        tags: dict[str, list[str]] = defaultdict(list)
        for event_type, tag_name in self.declared:
            tags[event_type].append(tag_name)
        self.result = TagsFilled(self.database.name, dict(tags), is_dry_run=self.dry_run)

    async def begin(self, *, again: bool) -> None:
        """Say in the record what is to be filled: from here on, queries over it are refused."""
        self._goal = await last_position(self.database)
        await self._look()
        for each in self.declared:
            if each in self._places:
                if again:
                    await self._move(each, 0, None)
            elif self.dry_run:
                self._places[each] = _Place(0, None)
            else:
                with suppress(ConstraintError):  # another run has begun with it at this moment
                    async with self.database.transaction() as unit:
                        await self.database.backend.lock_log(unit.driver)  # as `take_back` does
                        await self.database.write(_BEGIN, {**_values(each), "begin": 0})
        if not self.dry_run:
            await self._look()

    async def go_on(self) -> bool:
        """Deal with the next page; whether there was one."""
        waiting = {each: place for each, place in self._places.items() if not place.is_at_end}
        if not waiting:
            return False
        start = min(place.position for place in waiting.values())
        together = [each for each, place in waiting.items() if place.position == start]
        # First the head: positions become visible in their order, so that the page lacks none up to there.
        self.head = await last_position(self.database)
        types = frozenset(each.event_type for each in together)
        wanted = Selection(self.database, ReadOptions(event_types=types, from_position=start))
        rows = await page_after(self.database, wanted, start, self._size)
        changes = [change for row in rows if (change := self._change(row))]
        upto = rows[-1][POSITION] if rows else start
        # Past where the log ended as this began, a page that lacks nothing shows that only newer programs write. To follow
        # them to the end might take for ever.
        is_last = len(rows) < self._size or (upto >= self._goal and not changes)
        if len(rows) < self._size:
            upto = max(self.head, upto)
        began = time.monotonic()
        if self.dry_run or await self.database.persist(
            lambda: self._write(together, start, upto, changes, is_last=is_last)
        ):
            self.result.looked_at += len(rows)
            self.result.filled += len(changes)
            for each in together:
                self._places[each].position = upto
                self._places[each].is_at_end = is_last
            self.result.position = min(place.position for place in self._places.values())
            if rows:
                self._size = next_size(rows, PAGE)
            if changes and not self.database.backend.concurrent_writers:
                await asyncio.sleep(time.monotonic() - began)  # others have waited for so long
        else:
            await self._look()  # another run has gone on meanwhile
        return True

    async def _write(
        self,
        together: list[Declared],
        start: int,
        upto: int,
        changes: list[dict[str, Any]],
        *,
        is_last: bool,
    ) -> bool:
        """A page and its record, unless another run was faster: with this record, or, with another class, with other tags."""
        async with self.database.transaction():
            for each in together:
                found = await self.database.rows(_PLACE, _values(each))
                if not found or found[0][0] != start:
                    return False
            for change in changes:
                if not await self.database.write(_TAG, change):
                    return False
            for each in together:
                completed_at = utc_now() if is_last else None if changes else self._places[each].completed_at
                await self._move(each, upto, completed_at)
        return True

    async def _move(self, each: Declared, upto: int, completed_at: datetime | None) -> None:
        if self.dry_run:
            self._places[each].position = upto
        else:
            values = {**_values(each), "upto": upto, "completed_at": completed_at}
            await self.database.write(_MOVE, values)
        self._places[each].completed_at = completed_at

    async def _look(self) -> None:
        """Read the record."""
        for found in await tag_fillings_of(self.database):
            each = Declared(found.event_type, found.tag_name)
            if each in self.declared:
                at_end = each in self._places and self._places[each].is_at_end
                self._places[each] = _Place(found.global_position, found.completed_at, at_end)

    def _change(self, row: EventRow) -> dict[str, Any]:
        """What writes the tags that an event is to have; nothing if it has them.

        Raises:
            EventDecodeError: it does not fit its class.
        """
        declared, stored = _declared_in(self.codec, row), stored_tags(row[TAGS])
        tags = tags_to_store(stored | declared)
        return {"place": row[POSITION], "as_read": row[TAGS], "with_tags": tags} if declared - stored else {}


def _values(each: Declared) -> dict[str, Any]:
    return cast("dict[str, Any]", {"of_type": each.event_type, "of_name": each.tag_name})
