"""Waiting until the log, as this database shows it, has come to a position."""

from __future__ import annotations

import asyncio

from esource.checks import check_whole
from esource.database.database import Database
from esource.errors import InvalidOptionError, PositionNotReachedError
from esource.log.pages import LAST_POSITION

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1
"""Between two looks. Nothing wakes a waiter: a replica cannot LISTEN, and its log moves on without appends here."""


async def until_position(database: Database, position: int, seconds: float) -> int:
    """See `EventStore.wait_for_position`."""
    check_whole("position", position)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise InvalidOptionError(f"timeout_seconds must be 0 or more seconds, not {seconds!r}")
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        found: int = (await database.rows(LAST_POSITION, {}))[0][0] or 0
        if found >= position:
            return found
        left = until - clock()
        if left <= 0:
            raise PositionNotReachedError(database.name, position, found)
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
