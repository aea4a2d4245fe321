"""A unit of work as one function in the thread of a SQLite connection."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

from esource.dialect.sqlite.files import place_of
from esource.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    import aiosqlite

T = TypeVar("T")


def hop(driver: aiosqlite.Connection, body: Callable[[sqlite3.Cursor], T], *, commit: bool) -> Awaitable[T]:
    """Run a unit of work as one function in the connection's thread.

    With ``commit`` it is a transaction of its own, begun IMMEDIATE; without, it joins the open one, and
    leaves nothing in it if it fails half-way: that transaction may go on and commit.
    aiosqlite has no public call for this: begin, check, insert and commit through its public methods
    are four hops of about 100 µs each, and 650 appends a second instead of 4 550. A test pins that the
    method exists.
    """

    place = place_of(driver)

    def unit(connection: sqlite3.Connection) -> T:
        # A connection that the application lent us may be inside its own transaction.
        own = commit and not connection.in_transaction
        cursor = connection.cursor()  # one for all statements: `Connection.execute` makes one for each
        cursor.row_factory = None  # a lent connection may make dicts of its rows
        execute = cursor.execute
        execute("BEGIN IMMEDIATE" if own else "SAVEPOINT esource_unit")
        try:
            result = body(cursor)
            if own and place is not None:
                place.check()
            execute("COMMIT" if own else "RELEASE esource_unit")
        except BaseException:
            if connection.in_transaction:  # some errors, such as a full disk, have rolled it back already
                for undo in ("ROLLBACK",) if own else ("ROLLBACK TO esource_unit", "RELEASE esource_unit"):
                    execute(undo)
            raise
        return result

    return driver._execute(unit, driver._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001


def fetch(
    driver: aiosqlite.Connection, connection: sqlite3.Connection, text: str, arguments: Sequence[Any]
) -> Awaitable[list[Any]]:
    """Run a reading statement; all rows. The public call of aiosqlite does the same through two more objects."""
    return driver._execute(_fetch, connection, text, arguments)  # type: ignore[no-untyped-call]  # noqa: SLF001


def _fetch(connection: sqlite3.Connection, text: str, arguments: Sequence[Any]) -> list[Any]:
    return connection.execute(text, arguments).fetchall()


async def require_commits(driver: aiosqlite.Connection, database: str) -> None:
    """Refuse a connection on which `commit` and `rollback` do nothing: what is appended on it would be lost.

    Raises:
        InvalidOptionError: it was opened with `autocommit=True` (Python 3.12 and newer).
    """
    if hasattr(driver, "esource_commits"):
        return
    # sqlite3 tells it in the connection's own thread only.
    if await driver._execute(getattr, driver._conn, "autocommit", None) is True:  # type: ignore[no-untyped-call]  # noqa: SLF001
        raise InvalidOptionError(
            f"{database}: the connection is in AUTOCOMMIT: it was opened with autocommit=True, so that its commit() does "
            "nothing. Give one that was opened without it, or with autocommit=False."
        )
    driver.esource_commits = True  # type: ignore[attr-defined]
