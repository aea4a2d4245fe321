"""What of an application's Alembic would drop or change our tables, and is refused or left out: see
`esource.schema.protection`, which alone loads this, when there is something to look at."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect

from esource.schema.revisions import BRANCH, scripts
from esource.tables.model import metadata
from esource.tables.names import VERSION_TABLE, is_ours

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util import PriorityDispatchResult

logger = logging.getLogger("esource.schema.protection")

_INDEXES = frozenset(str(index.name) for table in metadata.tables.values() for index in table.indexes)
_CONSTRAINTS = frozenset(
    str(constraint.name) for table in metadata.tables.values() for constraint in table.constraints
)


def require_permission(migration: MigrationContext, operation: Any) -> None:
    if migration.version_table == VERSION_TABLE or not _touches(operation):
        return
    if (
        _includes_us(migration)
        if migration.as_sql
        else has_our_tables(migration.connection, operation.schema)
    ):
        raise _refusal(_said(operation))


def _includes_us(migration: MigrationContext) -> bool:
    """Whether the application's Alembic runs our scripts, too. With ``--sql`` the database cannot be asked."""
    environment = migration.environment_context
    return environment is not None and any(
        BRANCH in revision.branch_labels for revision in environment.script.walk_revisions()
    )


def _touches(operation: Any) -> bool:
    """Whether an operation drops or changes something that has a name of ours."""
    from alembic.operations import ops

    table = operation.table_name
    if isinstance(operation, ops.DropIndexOp):
        return str(operation.index_name) in _INDEXES and (table is None or is_ours(table))
    if not is_ours(table):
        return False
    if isinstance(operation, ops.DropConstraintOp):
        return str(operation.constraint_name) in _CONSTRAINTS
    if isinstance(operation, (ops.DropColumnOp, ops.AlterColumnOp)):
        return table not in metadata.tables or operation.column_name in metadata.tables[table].columns
    return isinstance(operation, (ops.DropTableOp, ops.RenameTableOp))


def has_our_tables(connection: Connection | None, schema: str | None) -> bool:
    """Whether a schema of the database has our version table."""
    return connection is not None and inspect(connection).has_table(VERSION_TABLE, schema=schema)


def check_batch(name: str, schema: str | None, connection: Any) -> None:
    """Refuse Alembic's batch mode, which on SQLite writes a table anew: it would lose what Alembic cannot read of ours.

    Raises:
        CommandError: the table is one of ours.
    """
    if name in metadata.tables and has_our_tables(
        connection if isinstance(connection, Connection) else None, schema
    ):
        raise _refusal(f"op.batch_alter_table({name!r})")


def _said(operation: Any) -> str:
    name = getattr(operation, "column_name", None) or getattr(operation, "constraint_name", None)
    index = getattr(operation, "index_name", None)
    words = [word for word in (index, operation.table_name, name) if word is not None]
    return f"op.{_METHODS[type(operation).__name__]}({', '.join(repr(str(word)) for word in words)})"


_METHODS = {
    "DropTableOp": "drop_table",
    "RenameTableOp": "rename_table",
    "DropColumnOp": "drop_column",
    "AlterColumnOp": "alter_column",
    "DropIndexOp": "drop_index",
    "DropConstraintOp": "drop_constraint",
}


def _refusal(call: str) -> Exception:
    from alembic.util import CommandError

    return CommandError(
        f"{call} would drop or change what esource keeps its events in. esource's own revisions alone do that. Take the "
        "call out of the script. If autogenerate wrote it, give esource.schema.include_name to context.configure "
        "in env.py. To take esource's tables away: `esource downgrade base`"
    )


def leave_ours_out(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    """Take what is about our tables out of what autogenerate has found."""
    from alembic.operations import ops
    from alembic.util import PriorityDispatchResult

    migration = context.migration_context
    if migration.version_table == VERSION_TABLE:
        return PriorityDispatchResult.CONTINUE
    asked: dict[str | None, bool] = {}
    kept: list[Any] = []
    for operation in upgrade.ops:
        table, schema = getattr(operation, "table_name", None), getattr(operation, "schema", None)
        if table is None or not is_ours(table) or isinstance(operation, ops.CreateTableOp):
            kept.append(operation)
            continue
        if schema not in asked:
            asked[schema] = has_our_tables(context.connection, schema)
        if not asked[schema]:
            kept.append(operation)
            continue
        logger.info("left out of autogenerate: %s is esource's", table)
        if isinstance(operation, ops.ModifyTableOps) and _is_modelled(context, table, schema):
            operation.ops = [change for change in operation.ops if not _touches(change)]
            if operation.ops:
                kept.append(operation)
    upgrade.ops = kept
    return PriorityDispatchResult.CONTINUE


def _is_modelled(context: AutogenContext, table: str, schema: str | None) -> bool:
    """Whether the application's own models have the table, as where it adds columns to it."""
    default = context.inspector.default_schema_name
    return any(
        known.name == table and (known.schema if known.schema != default else None) == schema
        for known in context.sorted_tables
    )


def require_other_folder(script: ScriptDirectory, folder: Path) -> None:
    """Refuse ``alembic revision`` where the new revision would be written into our folder: an application's first one,
    in one history with ours.

    Raises:
        CommandError: it would, and Alembic's scripts are not ours.
    """
    ours = scripts().resolve()
    if ours not in folder.resolve().parents or Path(script.dir).resolve() == ours:
        return
    from alembic.util import CommandError

    raise CommandError(
        "this revision would follow esource's, in the folder where esource is installed. Nothing was written. For the "
        "first revision of yours: `alembic revision --head base --branch-label LABEL --version-path FOLDER`; for the "
        "others: `--head LABEL@head`"
    )
