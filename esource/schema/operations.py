"""What the revision scripts in ``migrations/`` work with.

Alembic keeps the migration that runs in globals of the process (``alembic.op``, ``alembic.context``). Two migrations
at once in one process would alter each other's databases. Our scripts therefore take `op` from here: it belongs to the
migration of the running task. Where an application's own Alembic runs our scripts, it is that Alembic's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from alembic import op as _alembics
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from esource.schema.protection import ours_at_work, protect
from esource.schema.revisions import BRANCH, is_our_script, record_revision
from esource.tables.names import VERSION_TABLE

__all__ = ["op", "record_revision", "require_named_branch", "running"]


class _OurOperations(Operations):
    """Operations of our own scripts, which alone may change our tables."""

    def invoke(self, operation: MigrateOperation) -> Any:
        with ours_at_work():
            return super().invoke(operation)


_running: ContextVar[Operations | None] = ContextVar("esource_operations", default=None)


class _RunningOperations:
    """``alembic.op``, of the migration that the running task is inside of."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_running.get() or _OurOperations(_alembics.get_context()), name)


op: Any = _RunningOperations()


@contextmanager
def running(migration: MigrationContext) -> Iterator[None]:
    """Let `op` belong to a migration that esource itself runs in this task."""
    before = _running.set(_OurOperations(migration))
    try:
        yield
    finally:
        _running.reset(before)


def require_named_branch(op: Any) -> None:
    """Refuse to take our schema back in an application's own Alembic, unless the command names our branch.

    Raises:
        CommandError: the command was ``downgrade -1`` or ``downgrade base``, which may mean the application's own
            revisions as well.
    """
    migration = op.get_context()
    environment = migration.environment_context
    if migration.version_table == VERSION_TABLE or environment is None:
        return
    wanted = environment.context_opts.get("destination_rev")
    if isinstance(wanted, str) and not is_our_script(wanted):
        raise CommandError(
            f"`alembic downgrade {wanted}` would take back esource's schema, and with it the stored events. Nothing "
            f"was changed. To take back a revision of yours, name it or its branch: `alembic downgrade "
            f"LABEL@-1`. If esource's is meant: `alembic downgrade {BRANCH}@-1`"
        )


protect()
