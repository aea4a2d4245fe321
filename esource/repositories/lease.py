"""Leases: of several workers, one holds a name at a time; the others stand by.

A lease lives in the checkpoint of its name and runs out by itself unless it is renewed, so that a worker
that died is replaced. Its times are the database's. A lease says who should work; that a worker who was
paused beyond its lease does no harm is the matter of the code that saves: see `esource.projections`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any
from uuid import uuid4

from sqlalchemy import bindparam, literal_column, or_, update
from typing_extensions import Self

from esource.checks import check_name, check_seconds, storable_text
from esource.database.cancellation import uninterrupted, unseen
from esource.database.database import Database
from esource.database.sources import Source, database_of, require_whole
from esource.errors import EventSourceError
from esource.moments import utc_now
from esource.tables.constructs import member_of, moment_after, upsert
from esource.tables.model import projection_checkpoints
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

logger = logging.getLogger("esource")

LEASE_SECONDS = 15.0
"""How long a lease lasts unless it is renewed, in seconds: how long a dead worker is waited for."""

RENEWALS = 3
"""A lease is renewed so many times within its length."""

STANDBY_SECONDS = 1.0
"""How often those who stand by look whether a lease is free, in seconds, at the latest."""

_table = projection_checkpoints.c
_owner = bindparam("owner", type_=_table.lease_owner.type)
_now = bindparam("now", type_=Timestamp())
_row = upsert(projection_checkpoints).values(
    projection_name=bindparam("name", type_=_table.projection_name.type),
    events_processed=literal_column("0"),
    created_at=_now,
    updated_at=moment_after("no_seconds"),
    lease_owner=_owner,
    lease_until=moment_after("seconds"),
)
_ACQUIRE = Statement(
    _row.on_conflict_do_update(
        index_elements=[_table.projection_name],
        set_={"lease_owner": _row.excluded.lease_owner, "lease_until": _row.excluded.lease_until},
        where=or_(
            _table.lease_owner.is_(None),
            _table.lease_owner == _row.excluded.lease_owner,
            _table.lease_until.is_(None),
            _table.lease_until < _row.excluded.updated_at,  # now; Citus refuses functions here
        ),
    ).returning(_table.global_position)
)
_mine = (_table.lease_owner == _owner, member_of(_table.projection_name, "names"))
_RENEW = Statement(
    update(projection_checkpoints)
    .where(*_mine, _table.lease_until.is_not(None))
    .values(lease_until=moment_after("seconds"))
    .returning(_table.projection_name)
)
_RELEASE = Statement(
    update(projection_checkpoints)
    .where(*_mine)
    .values(lease_until=literal_column("NULL"))  # who held it last stays there to be seen
    .returning(_table.projection_name)
)


def new_owner(doing: str = "") -> str:
    """A worker's name, unlike any other's; a person can tell machine and process by it, and what it does if that is
    given."""
    return storable_text(f"{socket.gethostname()[:100]}:{os.getpid()}:{uuid4().hex[:12]}{doing}")


class Leases:
    """What one worker holds in one database."""

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self.database = database
        self.owner = check_name("owner", owner)
        self.seconds = check_seconds("lease_seconds", seconds)

    async def acquire(self, name: str) -> int | None:
        """Hold a name if no other owner does: its checkpoint's position (0 if it has none); None if it is
        held by another. Asking again for what one holds renews it."""
        try:
            rows = await self.database.write(
                _ACQUIRE,
                {
                    "name": check_name("name", name),
                    "owner": self.owner,
                    "seconds": self.seconds,
                    "no_seconds": 0.0,
                    "now": utc_now(),
                },
            )
        except asyncio.CancelledError:
            # It may be ours all the same. If it cannot be given back, it ends with its term.
            with suppress(EventSourceError):
                await uninterrupted(self.release([name]))
            raise
        return (rows[0][0] or 0) if rows else None

    async def renew(self, names: Iterable[str]) -> set[str]:
        """Keep names for another term; those that are still held."""
        return await self._update(_RENEW, names, seconds=self.seconds)

    async def release(self, names: Iterable[str]) -> None:
        """Let others have these names at once."""
        await self._update(_RELEASE, names)

    async def _update(self, statement: Statement, names: Iterable[str], **values: Any) -> set[str]:
        wanted = list(names)
        if not wanted:
            return set()
        values |= {"owner": self.owner, "names": self.database.backend.names(wanted)}
        return {row[0] for row in await self.database.write(statement, values)}


class Keeper:
    """Renews what is held for a term, several times within each term, for as long as the block runs.

    It lives in timers of the event loop, and a renewal in a task that a shutdown which cancels every task of the loop
    does not see. A renewal that fails is logged and tried again: while the database is
    away, no other worker can take over either.

    Args:
        renew: What keeps it for another term.
        seconds: The length of a term.
    """

    def __init__(self, renew: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._renew = renew
        self._pause = seconds / RENEWALS
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            await uninterrupted(asyncio.wait([self._renewal]))

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._begin)

    def _begin(self) -> None:
        self._renewal = unseen(self._renew_once())
        self._renewal.add_done_callback(self._ended)

    def _ended(self, renewal: asyncio.Task[None]) -> None:
        self._renewal = None
        if self._timer is not None:  # the block still runs
            self._wait()

    async def _renew_once(self) -> None:
        try:
            await self._renew()
        except Exception:
            logger.warning("a lease could not be renewed; it is tried again", exc_info=True)


class Lease:
    """One name, held for as long as the block runs; waits until it is free.

    For a worker of which several run for safety, such as the reader of a subscription::

        async with Lease(store, "mailer"), store.subscribe(checkpoint="mailer") as events:
            async for event in events:
                ...

    Args:
        database: What holds the lease: a store, an engine, a URL.
        name: The name of the checkpoint, at most 255 characters.
        seconds: How long the others wait for a worker that died.
        owner: This worker's name; made up if left out.
    """

    def __init__(
        self, database: Source, name: str, *, seconds: float = LEASE_SECONDS, owner: str | None = None
    ) -> None:
        require_whole(database, "a lease")
        self._leases = Leases(database_of(database), owner or new_owner(), seconds)
        self.name = check_name("name", name)
        self._held_until = 0.0
        self._keeper = Keeper(self.renew, self._leases.seconds)

    @property
    def owner(self) -> str:
        return self._leases.owner

    @property
    def is_held(self) -> bool:
        """Whether it is ours: False as soon as another worker may have it. That is so once it has not been
        renewed for its whole length, whatever the reason."""
        return time.monotonic() < self._held_until

    async def acquire(self) -> bool:
        """Hold it if it is free; whether it is ours now. One query."""
        began = time.monotonic()
        try:
            is_ours = await self._leases.acquire(self.name) is not None
        except asyncio.CancelledError:
            self._held_until = 0.0
            raise
        return self._holds(began, is_ours)

    async def renew(self) -> bool:
        """Keep it for another term; whether it was still ours. One query."""
        return self._holds(time.monotonic(), bool(await self._leases.renew([self.name])))

    def _holds(self, asked_at: float, is_ours: bool) -> bool:
        # The term began when the database was asked, or later: this clock never shows more than is left.
        self._held_until = asked_at + self._leases.seconds if is_ours else 0.0
        return is_ours

    async def release(self) -> None:
        """Let others have it at once. One query."""
        self._held_until = 0.0
        await self._leases.release([self.name])

    async def __aenter__(self) -> Self:
        while not await self.acquire():  # noqa: ASYNC110 - only the database knows when it is free
            await asyncio.sleep(min(STANDBY_SECONDS, self._leases.seconds / RENEWALS))
        await self._keeper.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await uninterrupted(self._end())

    async def _end(self) -> None:
        await self._keeper.__aexit__(None, None, None)
        await self.release()
