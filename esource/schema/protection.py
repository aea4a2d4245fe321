"""What keeps an application's Alembic from dropping or altering our tables, whatever its ``env.py`` says.

Alembic compares a database with the models of the application. Our tables are not among these, so autogenerate
takes them for removed and writes ``op.drop_table("events")``. The option ``include_name`` of `esource.schema` prevents
that, if the application uses it. For those that do not:

- autogenerate leaves our tables out of what it writes;
- an operation of a script that is not ours, and that would drop or change one of our tables, columns, indexes or
  constraints, is refused before it runs. What an application adds to our tables it may change and drop;
- ``alembic revision`` writes no script of an application into the folder where esource is installed.

Alembic loads this module by itself, as a plugin (an entry point of the package), and our scripts load it, too. It is
light, because every program that imports Alembic loads it: what looks at the tables is `esource.schema.refusals`.

Our tables are those in a schema that has our version table: an application may have a table named ``events`` elsewhere. SQL as text, as in ``op.execute("DROP TABLE events")``, is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, event

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations import Operations
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.plugins import Plugin
    from alembic.script import ScriptDirectory
    from alembic.util import PriorityDispatchResult

NAME = "alembic.autogenerate.esource"
"""What the plugin is called: Alembic includes every ``alembic.autogenerate.*`` unless ``env.py`` leaves it out."""

_TEMPORARY = "_alembic_tmp_"
"""How the names of the tables begin into which Alembic's batch mode copies a table, before it drops the first."""

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

    plugin.add_autogenerate_comparator(_leave_ours_out, "autogenerate", priority=DispatchPriority.LAST)
    _check_operations()


def protect() -> None:
    """Load the plugin, where Alembic has not found the package's entry points. May be repeated."""
    from alembic.runtime.plugins import Plugin

    with suppress(ValueError):  # it is loaded
        setup(Plugin(NAME))


@cache
def _check_operations() -> None:
    from alembic.operations import Operations, ops
    from alembic.script import ScriptDirectory

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
    # Both ways of `alembic revision` ask this for the path of the new script, and nothing else does.
    place = ScriptDirectory._rev_path  # noqa: SLF001 - the same

    def checked_place(script: ScriptDirectory, path: Path, *others: Any) -> Path:
        from esource.schema.refusals import require_other_folder

        require_other_folder(script, Path(path, "new"))
        return place(script, path, *others)

    ScriptDirectory._rev_path = checked_place  # type: ignore[assignment,method-assign]  # noqa: SLF001


def _leave_ours_out(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    from esource.schema.refusals import leave_ours_out

    return leave_ours_out(context, upgrade)


def _checked(run: Callable[[Operations, Any], Any]) -> Callable[[Operations, Any], Any]:
    def check(operations: Operations, operation: Any) -> Any:
        if not _at_work.get():
            from esource.schema.refusals import require_permission

            require_permission(operations.migration_context, operation)
        return run(operations, operation)

    return check


def _check_batch(table: Table, connection: Any, **kw: Any) -> None:
    if table.name.startswith(_TEMPORARY) and not _at_work.get():
        from esource.schema.refusals import check_batch

        check_batch(table.name.removeprefix(_TEMPORARY), table.schema, connection)
