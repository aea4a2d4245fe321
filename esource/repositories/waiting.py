"""Waiting until a checkpoint has come to a position: how one reads what one has written.

Positions become visible in their order, and a checkpoint is saved in the log's own database. So a checkpoint that is at
a position or past it stands for everything up to that position, whichever process reads it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Text, bindparam, case, func, literal_column, select

from esource.checks import check_name, check_seconds, check_whole, shown
from esource.database.cancellation import unseen
from esource.database.database import Database
from esource.database.wakeup import POLL_SECONDS
from esource.errors import CheckpointNotReachedError, InvalidOptionError
from esource.log.pages import last_position
from esource.log.reader import LogReader
from esource.log.streams import AppendResult, partition_of
from esource.moments import utc_now
from esource.tables.constructs import moment_after
from esource.tables.model import events, projection_checkpoints
from esource.tables.statement import Statement

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""The pause between two looks where nothing wakes a waiter: on a replica, behind a pooler, and until the watch begins."""

ANSWER_SECONDS = 1.0
"""How long a look may take that begins when the time is nearly over, or over."""

MOST_BETWEEN = 1024
"""Events that are looked through at most, to find that none of them is a partition's."""

NAMED = 10
"""Names that an error lists at most."""

_table = projection_checkpoints.c
_name = bindparam("name", type_=Text())
_FAMILY = Statement(
    select(
        _table.projection_name,
        _table.global_position,
        case((_table.lease_until > moment_after("seconds"), _table.lease_owner)),
        _table.active_version,
    ).where(func.substr(_table.projection_name, literal_column("1"), func.length(_name)) == _name)
)
_position = events.c.global_position
_after = bindparam("after", type_=_position.type)
_BETWEEN = Statement(
    select(_position, events.c.aggregate_id)
    .where(_position > _after, _position <= bindparam("upto", type_=_position.type))
    .order_by(_position)
    .limit(bindparam("most"))
)
_FIRST_PAST = Statement(
    select(events.c.created_at).where(_position > _after).order_by(_position).limit(literal_column("1"))
)
_NAMES = Statement(select(_table.projection_name).order_by(_table.projection_name).limit(bindparam("most")))


class Named(Protocol):
    """A projection, or the class of one."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One of the checkpoints that stand for a projection or a subscription together, as it is saved."""

    name: str
    position: int | None = None
    """None: nothing was handled yet."""
    owner: str | None = None
    """The worker that holds its lease now."""
    active_version: int | None = None
    number: int = 0
    of: int = 1
    """It is for the streams of this partition, of so many."""

    def handles(self, position: int, aggregate_id: object) -> bool:
        """Whether an event is this part's, and not dealt with yet."""
        return position > (self.position or 0) and partition_of(str(aggregate_id), self.of) == self.number


def parts_of(name: str, rows: list[tuple[Any, ...]], *, has_versions: bool) -> list[Part]:
    """The checkpoints that stand for a name: one, or one for each partition; of the version that readers use."""
    found = {row[0]: Part(*row) for row in rows}
    bare = found.get(name)
    version = (bare.active_version if bare is not None and has_versions else None) or 1
    current = name if version == 1 else f"{name}@{version}"
    pattern = re.compile(re.escape(current) + r"\[\d+/(\d+)\]")
    sizes = {int(match[1]) for match in map(pattern.fullmatch, found) if match}
    if not sizes:
        return [found[current]] if current in found else []
    parts = []
    for of in sorted(sizes):
        for number in range(of):
            share = found.get(f"{current}[{number}/{of}]", Part(f"{current}[{number}/{of}]"))
            parts.append(Part(share.name, share.position, share.owner, None, number, of))
    return parts


_reading: WeakKeyDictionary[Database, dict[str, tuple[int, asyncio.Task[list[tuple[Any, ...]]]]]] = (
    WeakKeyDictionary()
)
"""The queries that are under way, by name, each with `WakeUp.saves` from when it began."""


async def _read(database: Database, name: str) -> list[tuple[Any, ...]]:
    found = await database.read(_FAMILY, {"name": name, "seconds": 0.0})
    return found or await database.inspect(partial(database.backend.hidden_checkpoints, name=name))


async def _family(database: Database, name: str) -> list[tuple[Any, ...]]:
    """The checkpoints whose names begin with a name. One query for all who wait for them: it serves those who ask while
    it runs, unless a checkpoint may have moved since it began."""
    reading = _reading.setdefault(database, {})
    saves, query = reading.get(name, (-1, None))
    if query is None or saves != database.wake_up.saves:
        query = unseen(_read(database, name))
        entry = reading[name] = (database.wake_up.saves, query)

        def ended(query: asyncio.Task[Any]) -> None:
            if reading.get(name) is entry:
                del reading[name]
            if not query.cancelled():
                query.exception()  # seen, also where all who asked have gone

        query.add_done_callback(ended)
    await asyncio.wait([query])
    return query.result()


class Waiting:
    """One wait: for whom, how far, and what was seen of it last."""

    def __init__(self, database: Database, name: str, position: int, *, has_versions: bool) -> None:
        self.database = database
        self.name = name
        self.position = position
        self._has_versions = has_versions
        self.parts: list[Part] = []

    @property
    def checkpoints(self) -> frozenset[str]:
        """The stored names of everything that may end the wait."""
        return frozenset({self.name, *(part.name for part in self.parts)})

    @property
    def found(self) -> int | None:
        """The position up to which everything is dealt with; None if nothing is."""
        positions = [part.position for part in self.parts if part.position is not None]
        return min(positions) if len(positions) == len(self.parts) and positions else None

    async def is_over(self) -> bool:
        """Whether everything up to the position is dealt with. One query; two if partitions share the work."""
        rows = await _family(self.database, self.name)
        self.parts = parts_of(self.name, rows, has_versions=self._has_versions)
        late = [part for part in self.parts if part.position is None or part.position < self.position]
        if not late:
            return bool(self.parts)
        if len(self.parts) == 1 or self.found is None:
            return False
        # A partition whose streams have no event in between saves its checkpoint later, because it has nothing to do.
        values = {"after": self.found, "upto": self.position, "most": MOST_BETWEEN + 1}
        between = await self.database.read(_BETWEEN, values)
        return len(between) <= MOST_BETWEEN and not any(
            part.handles(position, aggregate_id) for position, aggregate_id in between for part in late
        )

    async def error(self, name: str, waited: str, *, lists_names: bool) -> CheckpointNotReachedError:
        """What to raise when the time is over. Two queries; one more if there is no such checkpoint."""
        found, database = self.found, self.database
        head = await last_position(database)
        oldest = await database.read(_FIRST_PAST, {"after": found or 0})
        late = [part for part in self.parts if (part.position or 0) < self.position]
        owners = tuple(dict.fromkeys(part.owner for part in late if part.owner))
        age = max(0.0, (utc_now() - oldest[0][0]).total_seconds()) if oldest else 0.0
        if found is None and not owners:
            known = await database.read(_NAMES, {"most": NAMED}) if lists_names and not self.parts else []
            others = f" (known are {', '.join(row[0] for row in known)})" if known else ""
            text = (
                f"{waited} has no position yet in {database.name}, and no worker holds its lease. Check the name{others}, "
                "and that its worker runs on this database"
            )
        else:
            text = (
                f"{waited} is at {'the beginning' if found is None else f'position {found}'}, not yet at {self.position}. "
                f"The log ends at {head}; the first event that is not handled was stored {age:.1f} s ago. "
            ) + (
                f"Its lease is held by {', '.join(owners)}: wait longer; if it does not move, that worker's log says why"
                if owners
                else "No worker holds its lease: see whether one runs"
            )
        error = self.silent(name, text)
        error.head, error.lag_seconds, error.owners = head, age, owners
        return error

    def silent(self, name: str, text: str) -> CheckpointNotReachedError:
        """The error as far as it can be told without asking the database."""
        error = CheckpointNotReachedError(text)
        error.checkpoint, error.position, error.found = name, self.position, self.found
        return error


async def wait_for(
    reader: LogReader,
    result: AppendResult | int,
    projection: str | Named | None,
    checkpoint: str | None,
    timeout: float,
) -> int:
    """Wait until a checkpoint has come to a position; see `EventStore.wait_for`."""
    if (projection is None) == (checkpoint is None):
        raise InvalidOptionError("say what to wait for: either projection= or checkpoint=")
    position = check_whole("result", result.global_position if isinstance(result, AppendResult) else result)
    check_seconds("timeout", timeout, least=0)
    name = check_name(*_named(projection, checkpoint))
    database = reader.database
    if database.current_unit() is not None:
        raise InvalidOptionError(
            "wait_for inside a block of transaction() or reading() would wait for ever: others see what it appends when it "
            "ends, and it sees what was there when it began. Wait outside of the block"
        )
    own = checkpoint is not None and reader.tenant_id is not None
    stored = f"{reader.tenant_id}:{name}" if own else name
    waiting = Waiting(database, stored, position, has_versions=checkpoint is None)
    clock = asyncio.get_running_loop().time
    until = clock() + timeout
    waited = f"after {timeout:g} s {name}"

    async def is_over() -> bool:
        return await _limited(waiting.is_over(), max(until - clock(), ANSWER_SECONDS))

    try:
        if position == 0 or await is_over():
            return max(position, waiting.found or 0)
        with database.wake_up.listening(waiting.checkpoints) as waiter:
            pause = FIRST_PAUSE_SECONDS
            while True:
                waiter.clear()
                if await is_over():
                    return max(position, waiting.found or 0)
                left = until - clock()
                if left <= 0:
                    break
                if waiting.checkpoints != waiter.checkpoints:
                    waiter.checkpoints = waiting.checkpoints
                    database.wake_up.look()
                is_covered = database.wake_up.covers(waiter.checkpoints)
                await waiter.wait(min(left, POLL_SECONDS if is_covered else pause))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        lists_names = reader.tenant_id is None  # those of the tenants begin with their ids
        raise await _limited(waiting.error(name, waited, lists_names=lists_names), ANSWER_SECONDS)
    except _NoAnswerError:
        raise waiting.silent(
            name,
            f"{waited} is not known to be at position {position}: {database.name} does not answer. Look at the database, "
            "and wait again",
        ) from None


def _named(projection: str | Named | None, checkpoint: str | None) -> tuple[str, str]:
    if checkpoint is not None:
        return "checkpoint", checkpoint
    if isinstance(projection, str):
        return "projection", projection
    name = getattr(projection, "name", None)
    if not isinstance(name, str):
        raise InvalidOptionError(f"projection must be a name or a Projection, not {shown(projection)}")
    return "projection", name


class _NoAnswerError(Exception):
    """The database has not answered in time."""


async def _limited(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What the work returns, if it comes to its end in time.

    Raises:
        _NoAnswerError: it does not.
    """
    task = unseen(work)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise _NoAnswerError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
