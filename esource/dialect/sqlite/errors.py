"""What the errors of SQLite mean, in our words."""

from __future__ import annotations

import sqlite3

from esource.dialect.errors import driver_error, pool_exhausted, unavailable
from esource.dialect.moving import MOVED_FENCE
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    EventSourceError,
    SchemaMissingError,
    StoreMovedError,
)
from esource.tables.model import metadata

_WRONG_FILE = "Check the path: it must name a SQLite file that can be opened"
_UNUSABLE = {
    "unable to open": "Check the path, and the permissions of the file and its folder",
    "not a database": _WRONG_FILE,
    "malformed": "The file is damaged: restore a backup, or copy what can be read to a new one",
    "disk I/O error": _WRONG_FILE,
}
"""What SQLite says of a file that it cannot use, and what to do."""


def lacks_column(error: BaseException) -> bool:
    """Whether SQLite says that a table is there, and one of its columns is not."""
    return "no such column" in str(error) or "has no column named" in str(error)


def explain(error: BaseException, database: str) -> EventSourceError | None:
    """Our error for one of sqlite3 or aiosqlite; None for what is no error of these."""
    cause = driver_error(error)
    if isinstance(cause, ValueError) and str(cause) in ("no active connection", "Connection closed"):
        return unavailable(database, cause, "The connection was closed; open the store again")
    if not isinstance(cause, sqlite3.Error):
        return pool_exhausted(cause, database)
    text = str(cause)
    if isinstance(cause, sqlite3.IntegrityError):
        if text.startswith(MOVED_FENCE):
            return StoreMovedError(database, text.removeprefix(f"{MOVED_FENCE}: "))
        name = _constraint_name(text)
        return ConstraintError(name, f"{database}: {name} refused the row ({text})")
    if "no such table" in text or lacks_column(cause):
        return SchemaMissingError(database, text)
    if "locked" in text or "busy" in text:
        return DatabaseBusyError(
            f"{database}: {text}: another connection held the write lock longer than the busy timeout. "
            "Raise busy_timeout (milliseconds), or find the long transaction."
        )
    if "readonly" in text or "read-only" in text:
        return DatabaseReadOnlyError(
            f"{database}: {text}. It was opened to be read only; if it was not, check the permissions of the file and "
            "its folder."
        )
    if "full" in text:
        return DatabaseFullError(f"{database}: {text}. Free some space; nothing was written.")
    unusable = next((remedy for hint, remedy in _UNUSABLE.items() if hint in text), None)
    if unusable is not None:
        return unavailable(database, cause, unusable)
    return DatabaseError(f"{database}: {text}")


def _constraint_name(text: str) -> str:
    """The name of the constraint: SQLite names columns for UNIQUE and NOT NULL, the rest by name."""
    kind, _, found = text.partition(" constraint failed: ")
    if kind == "UNIQUE":
        columns = {tuple(part.split(".", 1)) for part in found.split(", ")}
        for table in metadata.tables.values():
            for constraint in table.constraints:
                names = {(table.name, column.name) for column in getattr(constraint, "columns", ())}
                if names == columns:
                    return str(constraint.name)
    return found or kind
