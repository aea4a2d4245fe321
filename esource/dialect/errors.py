"""What the drivers' errors have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from esource.errors import DatabaseUnavailableError, EventSourceError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def driver_error(error: BaseException) -> BaseException:
    """The driver's own exception behind SQLAlchemy's wrappers and ours."""
    if isinstance(error, EventSourceError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error.__cause__ if type(error).__module__.startswith("sqlalchemy.") and error.__cause__ else error


_SHOWN_OPTIONS = ("host", "port", "user", "database", "schema", "target_session_attrs")


def without_password(url: URL) -> str:
    """The URL for messages: the password masked, and of the options only those that are no secret."""
    options = [name for name in url.query if name not in _SHOWN_OPTIONS]
    return url.difference_update_query(options).render_as_string(hide_password=True)


def pool_exhausted(error: BaseException, database: str) -> DatabaseUnavailableError | None:
    """The error for a wait for a pooled connection that was too long; None for what is another error."""
    if not isinstance(error, PoolTimeoutError):
        return None
    return unavailable(database, error, "All pooled connections are in use: raise pool_size")


def unavailable(database: str, error: BaseException | str, remedy: str) -> DatabaseUnavailableError:
    """The error for a database that cannot be used, in one form."""
    return DatabaseUnavailableError(f"{database}: {error}. {remedy}")
