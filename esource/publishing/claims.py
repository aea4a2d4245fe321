"""Claiming rows of the outbox: which relay publishes what, in the order of each stream.

A row can be claimed together with what follows it in its stream, but only while the first pending row of
that stream is free: not claimed by another relay, and not waiting for its next attempt. That first row is
locked while it is being claimed (``FOR UPDATE SKIP LOCKED``; SQLite has one writer anyway), so that of two
relays one gets the whole stream, and the other goes on to other streams without waiting.

Rows that were added by hand have no place in the log. They are claimed by themselves, in the order of
their making.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from esource.checks import storable_text
from esource.database.database import Database
from esource.errors import error_text
from esource.repositories.outbox_entries import ENTRIES, OutboxEntry, entry_of
from esource.tables.constructs import member_of, moment_after
from esource.tables.model import event_outbox
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


def _same_stream(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(one.aggregate_id == other.aggregate_id, one.aggregate_type == other.aggregate_type)


def _claim(*, logged: bool, blocking: bool) -> Statement:
    """Claim the next rows: those of the log, or those added by hand."""

    def of_kind(row: Any) -> ColumnElement[bool]:
        position: ColumnElement[Any] = row.global_position
        return position.is_not(None) if logged else position.is_(None)

    def order(row: Any) -> list[ColumnElement[Any]]:
        return [row.global_position] if logged else [row.created_at, row.id]

    candidate = event_outbox.alias("candidate")
    window = (
        select(
            candidate.c.id,
            candidate.c.aggregate_id,
            candidate.c.aggregate_type,
            candidate.c.created_at,
            candidate.c.global_position,
        )
        .where(_is_free(candidate.c), of_kind(candidate.c))
        .order_by(*order(candidate.c))
        .limit(bindparam("page"))
        .cte("window_")
    )
    earlier = event_outbox.alias("earlier")
    first_of_stream = (
        select(earlier.c.id)
        .where(_same_stream(earlier.c, window.c), earlier.c.status == _PENDING, of_kind(earlier.c))
        .order_by(*order(earlier.c))
        .limit(literal_column("1"))
        .scalar_subquery()
    )
    first = event_outbox.alias("first")
    conditions = [first.c.id.in_(select(first_of_stream).select_from(window)), _is_free(first.c)]
    if blocking:
        failed = event_outbox.alias("failed")
        conditions.append(
            ~exists(
                select(literal_column("1"))
                .select_from(failed)
                .where(_same_stream(failed.c, first.c), failed.c.status == literal_column("'failed'"))
            )
        )
    streams = (
        select(first.c.aggregate_id, first.c.aggregate_type)
        .where(*conditions)
        .with_for_update(skip_locked=True)
        .cte("streams")
    )
    # A row between them that is not free (one that was given up, and requeued later) ends the rows that may be claimed.
    between = event_outbox.alias("between")
    gap = exists(
        select(literal_column("1"))
        .select_from(between)
        .where(
            _same_stream(between.c, window.c),
            between.c.status == _PENDING,
            of_kind(between.c),
            tuple_(*order(between.c)) < tuple_(*order(window.c)),
            ~_is_free(between.c),
        )
    )
    claimed = select(window.c.id).where(_same_stream(window.c, streams.c), ~gap)
    return Statement(
        update(event_outbox)
        .where(_table.id.in_(claimed))
        .values(claimed_by=_owner, claimed_until=moment_after("seconds"))
        .returning(_table.id)
    )


_CLAIM = {
    (logged, blocking): _claim(logged=logged, blocking=blocking)
    for logged in (True, False)
    for blocking in (True, False)
}
_CLAIMED = Statement(
    ENTRIES.where(_mine).order_by(
        case((_table.global_position.is_(None), literal_column("1")), else_=literal_column("0")),
        _table.global_position,
        _table.created_at,
        _table.id,
    )
)
_of_ids = member_of(_table.id, "ids")
_CONFIRM = Statement(
    update(event_outbox)
    .where(_of_ids, _table.status == _PENDING)
    .values(status=literal_column("'published'"), published_at=_now, claimed_by=_NULL, claimed_until=_NULL)
    .returning(_table.id)
)
_error = bindparam("error", type_=Text())
_attempts = _table.retry_count + literal_column("1")
_FAIL = Statement(
    update(event_outbox)
    .where(_of_ids, _mine)
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
_waiting = event_outbox.alias("waiting")
_HOLD_BACK = Statement(
    # What follows in the stream waits as long: it could not be claimed, and would stand in the way of the
    # other streams' rows when the next ones are looked for.
    update(event_outbox)
    .where(
        _table.aggregate_id == bindparam("aggregate_id", type_=_table.aggregate_id.type),
        _table.aggregate_type == bindparam("aggregate_type", type_=_table.aggregate_type.type),
        _table.status == _PENDING,
        or_(_table.claimed_by.is_(None), _table.claimed_by == _owner),
    )
    .values(available_at=moment_after("delay"), claimed_by=_NULL, claimed_until=_NULL)
    .returning(_table.id)
)
_RENEW = Statement(
    update(event_outbox).where(_mine).values(claimed_until=moment_after("seconds")).returning(_table.id)
)
_RELEASE = Statement(
    update(event_outbox).where(_mine).values(claimed_by=_NULL, claimed_until=_NULL).returning(_table.id)
)


class Claims:
    """The rows that one relay has claimed in one database."""

    def __init__(self, database: Database, owner: str, seconds: float, *, blocking: bool) -> None:
        self.database = database
        self.owner = owner
        self.seconds = seconds
        self._blocking = blocking
        self._until = 0.0

    @property
    def are_running_out(self) -> bool:
        """Whether others may take these rows by now: after a pause of the whole process."""
        return time.monotonic() >= self._until

    async def take(self, limit: int) -> list[OutboxEntry]:
        """The next rows to publish, at most so many, each stream's in order; ours until the claim ends.

        Three statements at most.
        """
        self._until = time.monotonic() + self.seconds
        taken = 0
        for logged in (True, False):
            if taken < limit:
                rows = await self._write(
                    _CLAIM[logged, self._blocking],
                    page=limit - taken,
                    seconds=self.seconds,
                    no_seconds=0.0,
                )
                taken += len(rows)
        if not taken:
            return []
        values = {"owner": self.owner}
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
        again = bool(rows) and rows[0][0] == "pending"
        if again:
            await self._write(
                _HOLD_BACK,
                aggregate_id=entry.aggregate_id,
                aggregate_type=entry.aggregate_type,
                delay=delay,
            )
        return again

    async def renew(self) -> None:
        """Keep what is claimed for another term."""
        until = time.monotonic() + self.seconds
        await self._write(_RENEW, seconds=self.seconds)
        self._until = until

    async def release(self) -> None:
        """Let other relays have what is claimed and not published."""
        await self._write(_RELEASE)

    async def _write(self, statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        return await self.database.write(statement, {"owner": self.owner, **values})

    def _ids(self, entries: Collection[OutboxEntry]) -> Any:
        ids: Sequence[Any] = [entry.id for entry in entries]
        return self.database.backend.names(ids)
