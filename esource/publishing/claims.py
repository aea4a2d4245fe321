"""Claiming rows of the outbox: which relay publishes what, in the order of each stream.

A row can be claimed together with what follows it in its stream, but only while every pending row before it in
that stream is free: not claimed by another relay, and not waiting for its next attempt. The first row is
locked while it is being claimed (``FOR UPDATE SKIP LOCKED``; SQLite has one writer anyway), so that of two
relays one gets the whole stream, and the other goes on to other streams without waiting. Rows that may not be claimed
are left out where the next ones are looked for, so that no number of them stands in the way of other streams.

Rows that were added by hand have no place in the log. They are claimed by themselves, in the order of
their making.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    ScalarSelect,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from esource.checks import storable_text
from esource.database.database import Database
from esource.errors import error_text
from esource.repositories.outbox_entries import ENTRIES, OutboxEntry, entry_of, event_of, free_of_locks
from esource.tables.constructs import member_of, moment_after
from esource.tables.model import event_outbox, events
from esource.tables.statement import Statement

_table = event_outbox.c
_NULL: ColumnElement[Any] = literal_column("NULL")
_PENDING: ColumnElement[str] = literal_column("'pending'")
_now = moment_after("no_seconds")
_owner = bindparam("owner", type_=_table.claimed_by.type)
_mine = and_(_table.claimed_by == _owner, _table.status == _PENDING)


def _is_free(row: Any) -> ColumnElement[bool]:
    return and_(
        row.status == _PENDING,
        or_(row.claimed_until.is_(None), row.claimed_until < _now),
        or_(row.available_at.is_(None), row.available_at <= _now),
    )


def _is_left_out(row: Any) -> ColumnElement[bool]:
    """Whether it is one of those whose turn it is not: see `Fairness`."""
    return member_of(func.coalesce(row.tenant_id, row.aggregate_id), "left_out")


def _same_stream(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(one.aggregate_id == other.aggregate_id, one.aggregate_type == other.aggregate_type)


def _in_log(row: Any) -> ColumnElement[bool]:
    return exists(select(literal_column("1")).select_from(events).where(event_of(row)))


def _concerns(one: Any, other: Any) -> ColumnElement[bool]:
    """Whether ``other`` has to keep its place behind ``one``, a row that names the same stream.

    A tenant may write a row that names another tenant's stream. Such a row holds up rows of the same tenant only; a row whose
    event is in the log belongs to the stream, and holds up all of it.
    """
    return and_(
        _same_stream(one, other), or_(one.tenant_id.is_not_distinct_from(other.tenant_id), _in_log(one))
    )


def _stuck(row: Any) -> ColumnElement[bool]:
    """Whether a row that was given up holds up this one. The failed rows are read once for the whole statement."""
    failed = event_outbox.alias("failed")
    is_failed = failed.c.status == literal_column("'failed'")

    def named_by(of: Any, *, tenant: bool) -> list[ColumnElement[Any]]:
        names = [of.aggregate_id, of.aggregate_type]
        # What stands for no tenant need only be unlike the tenants' ids: the stream is compared beside it.
        return [*names, func.coalesce(of.tenant_id, of.aggregate_id)] if tenant else names

    return or_(
        tuple_(*named_by(row, tenant=False)).in_(
            select(*named_by(failed.c, tenant=False)).where(is_failed, _in_log(failed.c))
        ),
        tuple_(*named_by(row, tenant=True)).in_(select(*named_by(failed.c, tenant=True)).where(is_failed)),
    )


def _claim(*, logged: bool, blocking: bool) -> Statement:
    """Claim the next rows: those of the log, or those added by hand."""

    def of_kind(row: Any) -> ColumnElement[bool]:
        position: ColumnElement[Any] = row.global_position
        return position.is_not(None) if logged else position.is_(None)

    def order(row: Any) -> list[ColumnElement[Any]]:
        return [row.global_position] if logged else [row.created_at, row.id]

    candidate = event_outbox.alias("candidate")

    def first_before(row: Any, *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
        """The first pending row that the candidate has to stay behind. Not an EXISTS, which PostgreSQL may turn into a
        join with the whole table."""
        return (
            select(row.id)
            .where(_concerns(row, candidate.c), row.status == _PENDING, of_kind(row), *conditions)
            .order_by(*order(row))
            .limit(literal_column("1"))
            .scalar_subquery()
        )

    # The window holds only what may be claimed, however many rows wait behind one that is not free.
    obstacle, head = event_outbox.alias("obstacle"), event_outbox.alias("head")
    obstacles = first_before(
        obstacle.c,
        or_(~_is_free(obstacle.c), _is_left_out(obstacle.c)),
        tuple_(*order(obstacle.c)) < tuple_(*order(candidate.c)),
    )
    conditions = [_is_free(candidate.c), of_kind(candidate.c), ~_is_left_out(candidate.c)]
    if blocking:
        conditions.append(~_stuck(candidate.c))  # costs less than what follows, and is asked first
    conditions.append(obstacles.is_(None))
    window = (
        select(candidate.c.id, first_before(head.c).label("head"))
        .where(*conditions)
        .order_by(*order(candidate.c))
        .limit(bindparam("page"))
        .cte("window_")
    )
    first = event_outbox.alias("first")
    heads = (
        select(first.c.id)
        .where(first.c.id.in_(select(window.c.head)), _is_free(first.c))
        .with_for_update(skip_locked=True)
        .cte("heads")
    )
    claimed = free_of_locks(
        _table.id.in_(select(window.c.id).where(window.c.head.in_(select(heads.c.id)))), "claimed"
    )
    return Statement(
        update(event_outbox)
        .where(claimed)
        .values(claimed_by=_owner, claimed_until=moment_after("seconds"))
        .returning(_table.id)
    )


_CLAIM = {
    (logged, blocking): _claim(logged=logged, blocking=blocking)
    for logged in (True, False)
    for blocking in (True, False)
}
_of_ids = member_of(_table.id, "ids")
_CLAIMED = Statement(
    ENTRIES.where(_of_ids, _mine).order_by(
        case((_table.global_position.is_(None), literal_column("1")), else_=literal_column("0")),
        _table.global_position,
        _table.created_at,
        _table.id,
    )
)
_CONFIRM = Statement(
    update(event_outbox)
    .where(free_of_locks(and_(_of_ids, _table.status == _PENDING)))
    .values(status=literal_column("'published'"), published_at=_now, claimed_by=_NULL, claimed_until=_NULL)
    .returning(_table.id)
)
_own = free_of_locks(and_(_of_ids, _mine))
_error = bindparam("error", type_=Text())
_attempts = _table.retry_count + literal_column("1")
_FAIL = Statement(
    update(event_outbox)
    .where(_own)
    .values(
        retry_count=_attempts,
        last_error=_error,
        status=case(
            (_attempts >= bindparam("most", type_=Integer()), literal_column("'failed'")), else_=_PENDING
        ),
        available_at=moment_after("delay"),
        claimed_by=_NULL,
        claimed_until=_NULL,
    )
    .returning(_table.status)
)
_RENEW = Statement(
    update(event_outbox).where(_own).values(claimed_until=moment_after("seconds")).returning(_table.id)
)
_unclaimed = update(event_outbox).values(claimed_by=_NULL, claimed_until=_NULL).returning(_table.id)
_RELEASE = Statement(_unclaimed.where(_own))
_RELEASE_ALL = Statement(_unclaimed.where(free_of_locks(_mine)))


LARGE_SHARE = 4
"""Whoever has so large a part of a full claim, a fourth, is left out of the next one."""

LONGEST_SKIP = 63
"""After so many full claims at most it is asked again whether others wait."""


class Fairness:
    """Whose turn it is: a tenant with many rows holds up no other, nor does a stream of no tenant.

    A claim takes what is first in the log. After a full one of which somebody has a large share the next is for the others,
    whose rows may lie far behind. It has to look at all rows before them, so while there are none it is asked less and less.
    """

    def __init__(self) -> None:
        self._large: list[str] = []
        self._skip = self._skipped = 0

    async def take(self, claims: Claims, limit: int) -> list[OutboxEntry]:
        """The next rows to publish, as `Claims.take` claims them."""
        large, self._large = self._large, []
        if large and self._skipped >= self._skip:
            entries = await claims.take(limit, large)
            self._skip, self._skipped = 0 if entries else min(2 * self._skip + 1, LONGEST_SKIP), 0
            if entries:
                return entries
        elif large:
            self._skipped += 1
        entries = await claims.take(limit)
        if len(entries) == limit:
            shares = Counter(str(entry.tenant_id or entry.aggregate_id) for entry in entries)
            self._large = [owner for owner, rows in shares.items() if LARGE_SHARE * rows >= limit]
        return entries


class Claims:
    """The rows that one relay has claimed in one database."""

    def __init__(self, database: Database, owner: str, seconds: float, *, blocking: bool) -> None:
        self.database = database
        self.owner = owner
        self.seconds = seconds
        self._blocking = blocking
        self._until = 0.0
        self._taken: list[Any] = []
        self._writing = asyncio.Lock()
        """One statement at a time: what one of them has locked, another would leave out."""

    @property
    def are_running_out(self) -> bool:
        """Whether others may take these rows by now: after a pause of the whole process."""
        return time.monotonic() >= self._until

    async def take(self, limit: int, left_out: Sequence[str] = ()) -> list[OutboxEntry]:
        """The next rows to publish, at most so many, each stream's in order; ours until the claim ends.

        Three statements at most.

        Args:
            limit: So many rows at most.
            left_out: Tenants whose rows are left out, and streams (their ids) whose rows have no tenant.
        """
        self._until = time.monotonic() + self.seconds
        for logged in (True, False):
            if len(self._taken) < limit:
                rows = await self._write(
                    _CLAIM[logged, self._blocking],
                    page=limit - len(self._taken),
                    left_out=self._names(left_out),
                    seconds=self.seconds,
                    no_seconds=0.0,
                )
                self._taken += [row[0] for row in rows]
        if not self._taken:
            return []
        values = {"owner": self.owner, "ids": self._names(self._taken)}
        return [entry_of(row) for row in await self.database.read(_CLAIMED, values)]

    async def confirm(self, entries: Collection[OutboxEntry]) -> None:
        """Record that these are published. One statement."""
        if entries:
            await self._write(_CONFIRM, ids=self._ids(entries), no_seconds=0.0)

    async def fail(self, entry: OutboxEntry, error: BaseException, *, delay: float, most: int) -> bool:
        """Record a failed attempt; whether there will be another, after the given seconds.
        Does nothing for a row that another relay has taken over."""
        text = storable_text(error_text(error))
        rows = await self._write(_FAIL, ids=self._ids([entry]), error=text, delay=delay, most=most)
        return bool(rows) and rows[0][0] == "pending"

    async def renew(self) -> None:
        """Keep what is claimed for another term."""
        until = time.monotonic() + self.seconds
        await self._write(_RENEW, ids=self._names(self._taken), seconds=self.seconds)
        self._until = until

    async def release(self, entries: Collection[OutboxEntry]) -> None:
        """Let other relays have these, as far as they are claimed and not published."""
        if entries:
            await self._write(_RELEASE, ids=self._ids(entries))

    async def release_all(self) -> None:
        """Let other relays have all that this one has claimed. For a claim that was cancelled half-way, so that its rows
        are not known. Looks at every row that waits."""
        await self._write(_RELEASE_ALL)

    async def _write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        async with self._writing:
            return await self.database.write(statement, {"owner": self.owner, **values})

    def _ids(self, entries: Collection[OutboxEntry]) -> Any:
        return self._names([entry.id for entry in entries])

    def _names(self, ids: Sequence[Any]) -> Any:
        return self.database.backend.names(ids)
