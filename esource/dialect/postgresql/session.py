"""The settings of a session: in which schema its statements work, and whether they may write."""

from __future__ import annotations

from typing import Any

from esource.dialect.postgresql.quoting import identifier
from esource.errors import InvalidOptionError


def require_same(schema: str | None, found: Any, database: str) -> None:
    """Refuse a connection that works in another schema than the one that is given, if one is."""
    if schema is not None and found != schema:
        raise InvalidOptionError(
            f"{database}: the connection works in the schema {found}, so that it would write into another log. Give one "
            "whose search_path begins with the schema of the store"
        )


def require_path(schema: str, connection: Any, record: Any) -> None:
    """Refuse a connection whose statements would go to another log: a pooler can be told to ignore what it does not know."""
    found = connection.run_async(lambda driver: driver.fetchval("SHOW search_path"))
    if found != identifier(schema):
        raise InvalidOptionError(
            f"a connection for the schema {schema!r} has the search_path {found}: a pooler before the server ignores the "
            "setting. Connect to the server itself, or set the search_path of the role (ALTER ROLE ... SET search_path) and "
            "leave the schema out"
        )


def only_read(connection: Any, record: Any) -> None:
    """Let a new connection refuse to write."""
    # Not a start-up parameter: connection poolers refuse those that they do not know.
    connection.run_async(
        lambda driver: driver.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    )
