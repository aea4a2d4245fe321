"""The connections that stores open: asyncpg's, which know our types without asking, and end in time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import asyncpg

from esource.dialect.postgresql.watch import SETTLE_SECONDS

ARRAYS = {
    oid: {
        **dict.fromkeys(("kind", "basetype", "range_subtype", "attrtypoids")),
        "oid": oid,
        "name": f"_{name}",
        "ns": "pg_catalog",
        "elemtype": element,
        "elemdelim": ",",
    }
    for oid, name, element in (
        (1000, "bool", 16),
        (1007, "int4", 23),
        (1009, "text", 25),
        (1016, "int8", 20),
        (1185, "timestamptz", 1184),
        (2951, "uuid", 2950),
    )
}
"""What asyncpg has to know of the arrays that our statements take and give, by the number of the type."""
_ANSWERED = SimpleNamespace(name="answered")
"""Stands for the query that was not needed."""


class Connection(asyncpg.Connection):  # type: ignore[misc] # it carries no types
    """A connection whose end waits for the server no longer than `SETTLE_SECONDS`.

    SQLAlchemy closes the connections that lie in a pool without a limit: a single one that the network swallows
    would hold up the end of the program for ever.
    """

    __slots__ = ()

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:
        # asyncpg asks each server about types that have had the same number for ever: in three queries, one of which takes
        # longer than any of ours. An asyncpg that does not call this asks, and works all the same.
        if all(oid in ARRAYS for oid in typeoids):
            return [ARRAYS[oid] for oid in typeoids], _ANSWERED
        return await super()._introspect_types(typeoids, timeout)

    async def close(self, *, timeout: float | None = None) -> None:
        # asyncpg's own limit does not hold for the request to cancel a query that runs. When the time is over
        # it breaks the connection off. Before Python 3.11, asyncio.TimeoutError and TimeoutError are two classes.
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(super().close(), SETTLE_SECONDS if timeout is None else timeout)
