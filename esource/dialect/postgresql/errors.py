"""What the errors of asyncpg mean, for a retry and in our words."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError

from esource.dialect.backend import Failure
from esource.dialect.errors import driver_error, pool_exhausted, unavailable
from esource.dialect.moving import MOVED, MOVED_FENCE
from esource.dialect.postgresql.positions import REMEDY, other_append_lock
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    EventSourceError,
    SchemaMissingError,
    StoreMovedError,
    TenantMismatchError,
)
from esource.tables.model import metadata
from esource.tables.names import LOCK_TABLE, PARTITION_PREFIX

_POSITION = "global_position"
_QUOTED = re.compile(r'"([a-z_]+_[0-9]{5,})"')
_OF_PART = re.compile("_[0-9]{5,}$")


def classify(error: BaseException) -> Failure:
    """What asyncpg's error means for a retry."""
    cause = driver_error(error)
    if isinstance(cause, asyncpg.UniqueViolationError):
        # Another attempt would draw another number: in a hole of the log it would be stored before what others have read.
        return "other" if _counted_key(cause) else "unique"
    if isinstance(cause, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)):
        return "again"
    if isinstance(cause, _LOST) or (isinstance(cause, asyncpg.InterfaceError) and "clos" in str(cause)):
        return "lost"
    return "other"


def explain(error: BaseException, database: str, append_lock: str) -> EventSourceError | None:
    """Our error for asyncpg's, or for the pool's; None for what is no error of these."""
    cause = driver_error(error)
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        return _refused(cause, database, append_lock)
    if _lacks_row(cause):
        return _without_row(database, cause)
    if isinstance(cause, (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)) or lacks_append(cause):
        return SchemaMissingError(database, str(cause))
    if isinstance(cause, (asyncpg.ReadOnlySQLTransactionError, asyncpg.InsufficientPrivilegeError)):
        return _unwritable(cause, database)
    if isinstance(cause, (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)):
        return DatabaseFullError(
            f"{database}: {str(cause).rstrip('.')}. Free some space; nothing was written."
        )
    if isinstance(cause, (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)):
        return DatabaseBusyError(f"{database}: {cause}. Raise lock_timeout, or find the long transaction.")
    if isinstance(cause, (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)):
        return DatabaseBusyError(f"{database}: {cause}. Other writers kept winning; try again.")
    if isinstance(cause, _UNREACHABLE) or classify(error) == "lost":
        return unavailable(
            database,
            cause if str(cause) else type(cause).__name__,
            "Check that the server runs and the URL is right",
        )
    if isinstance(cause, (asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError, InterfaceError)):
        return _other(cause, database)
    return pool_exhausted(cause, database)


def _refused(cause: Any, database: str, append_lock: str) -> EventSourceError:
    if isinstance(cause, asyncpg.NotNullViolationError) and cause.column_name == _POSITION:
        return other_append_lock(database, append_lock)
    if isinstance(cause, asyncpg.CheckViolationError) and cause.constraint_name is None:
        return ConstraintError(
            "events",
            f"{database}: {cause}. The part of the log that takes this position was detached. Attach it again (ALTER TABLE "
            "events ATTACH PARTITION), and repeat this; nothing of it was written.",
        )
    name = _constraint(cause) or cause.column_name or "a constraint"
    behind = _counted_key(cause)
    if behind is not None:
        return _counter_behind(name, *behind, database, append_lock)
    return ConstraintError(name, f"{database}: {name} refused the row ({cause})")


def _other(error: Any, database: str) -> EventSourceError:
    if getattr(error, "sqlstate", None) == MOVED:
        return StoreMovedError(database, str(error).removeprefix(f"{MOVED_FENCE}: "))
    return DatabaseError(f"{database}: {error}{_REMEDIES.get(type(error), '')}")


def _constraint(error: Any) -> str | None:
    """The name of the constraint that refused a row. Citus says that of the part in which the row would be, and says it in the
    text only: ours, with a number at its end."""
    found = error.constraint_name or next(iter(_QUOTED.findall(str(error))), None)
    return None if found is None else _OF_PART.sub("", found)


def _counted_key(error: Any) -> tuple[str, str] | None:
    """Table and column of the primary key that refused a row, if a sequence counts it; a part of the log counts with the log."""
    name = _constraint(error) or ""
    table = error.table_name or name.removesuffix("_pkey")
    if name != f"{table}_pkey":
        return None
    declared = metadata.tables.get("events" if table.startswith(PARTITION_PREFIX) else table)
    counted = None if declared is None else declared.autoincrement_column
    return None if declared is None or counted is None else (declared.name, counted.name)


def _counter_behind(name: str, table: str, column: str, database: str, append_lock: str) -> ConstraintError:
    by_row = column == _POSITION and append_lock == "row"
    counter = f"row of {LOCK_TABLE}" if by_row else "sequence"
    remedy = REMEDY if by_row else set_counter(table, column)
    return ConstraintError(
        name,
        f"{database}: the {counter} that counts {table}.{column} is behind the rows of the table: its next number is taken. "
        f"That happens when rows are restored or inserted without their {counter.split(maxsplit=1)[0]}. Nothing was written. Set it as "
        f"the owner of the table, while no program writes: {remedy}",
    )


def set_counter(table: str, column: str) -> str:
    """The statement that sets the sequence of a key to its last row."""
    return f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}"  # noqa: S608 - our own names


def lacks_append(error: BaseException) -> bool:
    """Whether the function is not there that appends."""
    return isinstance(error, asyncpg.UndefinedFunctionError) and "esource_append" in str(error)


def _lacks_row(error: Any) -> bool:
    """Whether ``append_lock="row"`` finds no row that it could lock, or no function that locks it."""
    if isinstance(error, (asyncpg.UndefinedFunctionError, asyncpg.UndefinedTableError)):
        return "esource_lock_positions" in str(error) or LOCK_TABLE in str(error)
    return isinstance(error, asyncpg.NoDataFoundError)


def _without_row(database: str, problem: object) -> DatabaseError:
    return DatabaseError(
        f"{database}: {problem}. append_lock='row' needs a row in {LOCK_TABLE} that holds the last position: {REMEDY}. Or open "
        "the store without that option: then it draws from the sequence."
    )


def _unwritable(error: Any, database: str) -> EventSourceError:
    # The text may be in any language and the code is that of every missing privilege; the server's own
    # function that checks rows against policies has one name in every version.
    if error.server_source_function == "ExecWithCheckOptions":
        return TenantMismatchError(None, f"{database}: {error}")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseReadOnlyError(
            f"{database}: {error}. This is a read-only replica, or a session that was made read-only: write on "
            "the primary."
        )
    return DatabaseReadOnlyError(
        f"{database}: {error}. Connect as a role that may write; for reading the reader's rights are enough, "
        "for deleting events and moving a store the owner's are needed."
    )


_SHARED_CONNECTIONS = (
    ". A pooler shares the server's connections between transactions: open the store with "
    "transaction_pooling=True, or connect to the server itself."
)
_REMEDIES = {
    asyncpg.InvalidSchemaNameError: (
        ". The schema of the store is not there, or its role may not use it: name another one in the URL (?schema=...), or "
        "GRANT USAGE ON SCHEMA."
    ),
    asyncpg.InFailedSQLTransactionError: (
        ". An error before it was caught inside the transaction, which ended it: let such errors leave the block, or "
        "put what may fail into a savepoint, a transaction() inside this one."
    ),
    asyncpg.DuplicatePreparedStatementError: _SHARED_CONNECTIONS,
    asyncpg.InvalidSQLStatementNameError: _SHARED_CONNECTIONS,
}


_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InternalClientError,  # a connection that is cut off in the middle of its protocol
    asyncio.TimeoutError,
    OSError,
)
_UNREACHABLE = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TooManyConnectionsError,
)
