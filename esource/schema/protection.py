"""What keeps an application's Alembic from dropping or altering our tables, whatever its ``env.py`` says.

Alembic compares a database with the models of the application. Our tables are not among these, so autogenerate
takes them for removed and writes ``op.drop_table("events")``. The option ``include_name`` of `esource.schema` prevents
that, if the application uses it. For those that do not:

- autogenerate leaves our tables out of what it writes;
- an operation of a script that is not ours, and that would drop or change one of our tables, columns, indexes or
  constraints, is refused before it runs. What an application adds to our tables it may change and drop.

Alembic loads this module by itself, as a plugin (an entry point of the package), and our scripts load it, too. Our tables are those in a schema that has our version table: an application may
have a table named ``events`` elsewhere. SQL as text, as in ``op.execute("DROP TABLE events")``, is not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, event, inspect

from esource.schema.revisions import BRANCH, scripts
from esource.tables.model import metadata
from esource.tables.names import VERSION_TABLE, is_ours

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import Operations
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.migration import MigrationContext
    from alembic.runtime.plugins import Plugin
    from alembic.util import PriorityDispatchResult

NAME = "alembic.autogenerate.esource"
"""What the plugin is called: Alembic includes every ``alembic.autogenerate.*`` unless ``env.py`` leaves it out."""

logger = logging.getLogger(__name__)

_TEMPORARY = "_alembic_tmp_"
"""How the names of the tables begin into which Alembic's batch mode copies a table, before it drops the first."""

_INDEXES = frozenset(str(index.name) for table in metadata.tables.values() for index in table.indexes)
_CONSTRAINTS = frozenset(
    str(constraint.name) for table in metadata.tables.values() for constraint in table.constraints
)
_at_work: ContextVar[bool] = ContextVar("esource_scripts_at_work", default=False)


@contextmanager
def ours_at_work() -> Iterator[None]:
    """Let pass what one of our own scripts does."""
    before = _at_work.set(True)
    try:
        yield
    finally:
        _at_work.reset(before)


def setup(plugin: Plugin) -> None:
    """Alembic calls this for its plugin; see https://alembic.sqlalchemy.org/en/latest/api/plugins.html."""
    from alembic.util import DispatchPriority

    plugin.add_autogenerate_comparator(leave_ours_out, "autogenerate", priority=DispatchPriority.LAST)
    _check_operations()


def protect() -> None:
    """Load the plugin, where Alembic has not found the package's entry points. May be repeated."""
    from alembic.runtime.plugins import Plugin

    with suppress(ValueError):  # it is loaded
        setup(Plugin(NAME))


@cache
def _check_operations() -> None:
    from alembic.operations import Operations, ops

    for kind in (
        ops.DropTableOp,
        ops.RenameTableOp,
        ops.DropColumnOp,
        ops.AlterColumnOp,
        ops.DropIndexOp,
        ops.DropConstraintOp,
    ):
        run = Operations._to_impl.dispatch(kind)  # noqa: SLF001 - there is no other way to ask for it
        Operations.implementation_for(kind, replace=True)(_checked(run))
    event.listen(Table, "before_create", _check_batch)


def _checked(run: Callable[[Operations, Any], Any]) -> Callable[[Operations, Any], Any]:
    def check(operations: Operations, operation: Any) -> Any:
        _require_permission(operations.migration_context, operation)
        return run(operations, operation)

    return check


def _require_permission(migration: MigrationContext, operation: Any) -> None:
    if _at_work.get() or migration.version_table == VERSION_TABLE or not _touches(operation):
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


def _check_batch(table: Table, connection: Any, **kw: Any) -> None:
    """Alembic's batch mode, on SQLite, writes a table anew: it would lose what Alembic cannot read of ours."""
    name = table.name.removeprefix(_TEMPORARY)
    if name == table.name or name not in metadata.tables or _at_work.get():
        return
    if has_our_tables(connection if isinstance(connection, Connection) else None, table.schema):
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
    _require_own_branch(migration)
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


def _require_own_branch(migration: MigrationContext) -> None:
    """Refuse ``alembic revision --autogenerate`` where Alembic would let the new revision follow ours, in our folder:
    an application's first one, in one history with ours."""
    environment = migration.environment_context
    command = getattr(environment.config.cmd_opts, "cmd", None) if environment is not None else None
    if environment is None or command is None or command[0].__name__ != "revision":
        return
    given = environment.context_opts["revision_context"].command_args
    if given["version_path"] is None and any(
        head is not None and scripts().resolve() in Path(head.path).resolve().parents
        for head in environment.script.get_revisions(given["head"] or "head")
    ):
        from alembic.util import CommandError

        raise CommandError(
            "this revision would follow esource's, in the folder where esource is installed. Nothing was written. For the "
            "first revision of yours: `alembic revision --autogenerate --head base --branch-label LABEL "
            "--version-path FOLDER`; for the others: `--head LABEL@head`"
        )


def _is_modelled(context: AutogenContext, table: str, schema: str | None) -> bool:
    """Whether the application's own models have the table, as where it adds columns to it."""
    default = context.inspector.default_schema_name
    return any(
        known.name == table and (known.schema if known.schema != default else None) == schema
        for known in context.sorted_tables
    )
