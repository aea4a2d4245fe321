"""PostgreSQL behind a pooler that lends a server connection for one transaction at a time, as PgBouncer does in
its transaction mode.

Two statements of one client connection may run on two server connections. So nothing is left in a session:
statements are prepared without a name, and each that is no part of a transaction gets one of its own around
it, because even an unnamed statement is prepared and run in two steps. That costs two round trips more. Nothing
is listened to: the session that would hear is not ours. Advisory locks are the transaction's, and stay right.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from esource.dialect.backend import Plan, Switches, Written
from esource.dialect.postgresql import PostgreSQLBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

CONNECT_ARGUMENTS = {
    "statement_cache_size": 0,  # asyncpg's
    "prepared_statement_cache_size": 0,  # SQLAlchemy's
    # A name would be taken, or unknown, on the next server connection; and it would be left behind there.
    "prepared_statement_name_func": lambda: "",
}


class PooledPostgreSQLBackend(PostgreSQLBackend):
    """Every call is a transaction, or part of one."""

    def __init__(self, switches: Switches) -> None:
        super().__init__(switches)
        self.listens = False

    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        arguments = {**CONNECT_ARGUMENTS, **options.pop("connect_args", {})}
        return super().create_engine(url, connect_args=arguments, **options)

    async def fetch(self, driver: Any, text: str, arguments: Sequence[Any]) -> list[Any]:
        return await _whole(driver, partial(super().fetch, driver, text, arguments))

    async def write(self, driver: Any, text: str, arguments: Sequence[Any], *, commit: bool) -> list[Any]:
        return await _whole(driver, partial(super().write, driver, text, arguments, commit=commit))

    async def append(self, driver: Any, plan: Plan, *, commit: bool) -> Written:
        return await _whole(driver, partial(super().append, driver, plan, commit=commit))


async def _whole(driver: Any, run: Callable[[], Awaitable[T]]) -> T:
    """Run in the open transaction, or in one of its own."""
    if driver.is_in_transaction():
        return await run()
    try:
        async with driver.transaction():
            return await run()
    except asyncio.CancelledError:
        # It may be cancelled again while it rolls back. The pooler rolls back whatever a client leaves.
        driver.terminate()
        raise
