"""Leases: of several workers, one holds a name at a time; the others stand by.

A lease lives in the checkpoint of its name and runs out by itself unless it is renewed, so that a worker
that died is replaced. Its times are the database's. A lease says who should work; that a worker who was
paused beyond its lease does no harm is the matter of whoever saves: see `esource.projections`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Any
from uuid import uuid4

from sqlalchemy import bindparam, literal_column, or_, update
from typing_extensions import Self

from esource.checks import check_name, check_seconds, storable_text
from esource.database.cancellation import uninterrupted
from esource.database.database import Database
from esource.database.sources import Source, database_of, require_whole
from esource.errors import DatabaseError
from esource.moments import utc_now
from esource.tables.constructs import member_of, moment_after, upsert
from esource.tables.model import projection_checkpoints
from esource.tables.statement import Statement
from esource.tables.types import Timestamp

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
    updated_at=_now,
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
            _table.lease_until < moment_after("no_seconds"),
        ),
    ).returning(_table.global_position)
)
_mine = (_table.lease_owner == _owner, member_of(_table.projection_name, "names"))
_RENEW = Statement(
    update(projection_checkpoints)
    .where(*_mine)
    .values(lease_until=moment_after("seconds"))
    .returning(_table.projection_name)
)
_RELEASE = Statement(
    update(projection_checkpoints)
    .where(*_mine)
    .values(lease_owner=literal_column("NULL"), lease_until=literal_column("NULL"))
    .returning(_table.projection_name)
)


def new_owner() -> str:
    """A worker's name, unlike any other's; a person can tell machine and process by it."""
    return storable_text(f"{socket.gethostname()[:100]}:{os.getpid()}:{uuid4().hex[:12]}")


class Leases:
    """What one worker holds in one database."""

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self.database = database
        self.owner = check_name("owner", owner)
        self.seconds = check_seconds("lease_seconds", seconds)

    async def acquire(self, name: str) -> int | None:
        """Hold a name if nobody else does: its checkpoint's position (0 if it has none); None if it is
        held by somebody else. Asking again for what one holds renews it."""
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
        self.is_held = False
        """Whether it is ours, as far as we know: False once somebody else has taken it over."""
        self._keeper: asyncio.Task[None] | None = None

    @property
    def owner(self) -> str:
        return self._leases.owner

    async def acquire(self) -> bool:
        """Hold it if it is free; whether it is ours now. One query."""
        self.is_held = await self._leases.acquire(self.name) is not None
        return self.is_held

    async def renew(self) -> bool:
        """Keep it for another term; whether it was still ours. One query."""
        self.is_held = bool(await self._leases.renew([self.name]))
        return self.is_held

    async def release(self) -> None:
        """Let others have it at once. One query."""
        self.is_held = False
        await self._leases.release([self.name])

    async def __aenter__(self) -> Self:
        while not await self.acquire():  # noqa: ASYNC110 - only the database knows when it is free
            await asyncio.sleep(min(STANDBY_SECONDS, self._leases.seconds / RENEWALS))
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        await uninterrupted(self.release())

    async def _keep(self) -> None:
        while self.is_held:
            await asyncio.sleep(self._leases.seconds / RENEWALS)
            try:
                await self.renew()
            except DatabaseError:  # while the database is away nobody else can take it either
                continue
