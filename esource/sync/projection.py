"""Projections whose methods are plain functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from esource.log.streams import StoredEvent
from esource.projections import context as asynchronous
from esource.projections import projection
from esource.sync.connection import Connection
from esource.sync.driven import Driven
from esource.sync.inbox import as_seen


class ProjectionContext(Driven):
    """What a projection's handler is told besides the event; see `esource.ProjectionContext`."""

    _target: asynchronous.ProjectionContext

    @property
    def stored(self) -> StoredEvent:
        """The event's envelope: stream, version, position, times."""
        return self._target.stored

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, inside the transaction that also saves the checkpoint.

        Raises:
            InvalidOptionError: the projection saves its progress outside a transaction of its handlers.
        """
        return Connection._around(self._target.connection, self)

    def write(self, statement: Executable, values: Mapping[str, Any]) -> None:
        """Have a statement executed with these values by the end of the transaction. No I/O.

        Raises:
            InvalidOptionError: as `connection` does.
        """
        self._target.write(statement, values)

    def flush(self) -> None:
        """Execute what `write` has gathered, of earlier events, too."""
        self._call(self._target.flush())

    @property
    def position(self) -> int:
        """The event's global position."""
        return self._target.position

    @property
    def tenant_id(self) -> UUID | None:
        return self._target.tenant_id


class Projection(projection.Projection):
    """A read model's update rules: one plain method per event, marked with `handles`; see `esource.Projection`."""

    def reset(self, connection: Connection) -> None:  # type: ignore[override]
        """Make this version's read model empty: create its tables, or clear them."""

    def take_over(self, connection: Connection) -> None:  # type: ignore[override]
        """Make this version the one that readers see, by renaming tables for instance."""


as_seen[asynchronous.ProjectionContext] = ProjectionContext._of
as_seen[AsyncConnection] = Connection._of
