"""The versions of the schema, the scripts that lead from one to the next, and the ids by which Alembic knows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esource.tables.model import metadata
from esource.tables.names import OUR_TABLES, VERSION_TABLE, is_only_ours, is_ours

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS = ("0001", "0002", "0003", "0004")
"""Every schema this library knows, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

TABLES = frozenset(OUR_TABLES)

BRANCH = "esource"
"""The label of our scripts' branch, where an application's Alembic takes them in."""

ID_PREFIX = f"{BRANCH}_"
"""What every id of our scripts begins with."""


def script_id(revision: str) -> str:
    """Alembic's id of a schema version: ``esource_0003``, because an application may number its own revisions.
    What is no version (``head``, ``base``) stays as it is."""
    return f"{ID_PREFIX}{revision}" if revision in REVISIONS else revision


def version_of(script: str) -> str:
    """The schema version behind an id of Alembic's. Before these ids had a prefix, the version table held the
    version itself."""
    return script.removeprefix(ID_PREFIX)


def is_our_script(revision: str) -> bool:
    """Whether a revision argument of an Alembic command names our branch, or one of our scripts."""
    return revision.startswith((f"{BRANCH}@", ID_PREFIX))


def scripts() -> Path:
    """The folder of the Alembic environment: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("esource")))
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def alembic_config(url: str | None = None) -> Config:
    """An Alembic configuration of our scripts, for ``alembic.command``. No ini file is needed."""
    from alembic.config import Config

    # Alembic would write to what was the output when its module was imported.
    config = Config(stdout=sys.stdout)
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if url is not None:
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def steps(command: str, revision: str) -> Callable[[Any, Any], Any]:
    """The scripts that a command has to run, for Alembic's option ``fn``: to ``upgrade``, ``downgrade`` or ``stamp``."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(alembic_config())
    # What `alembic.command` does, less the globals in which it keeps what it works on. There is no public name for it.
    ways = {"upgrade": script._upgrade_revs, "downgrade": script._downgrade_revs, "stamp": script._stamp_revs}
    way, target = ways[command], script_id(HEAD if revision == "head" else revision)
    return lambda found, _: way(target, found)


def comparison_options() -> dict[str, Any]:
    """How Alembic is to look at a database: at our tables alone, and at our version table."""
    return {
        "target_metadata": metadata,
        "version_table": VERSION_TABLE,
        "render_as_batch": True,
        "include_name": lambda name, type_, parent_names: type_ != "table" or name in TABLES,
    }


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """For the ``include_name`` of an application's Alembic: everything except our tables.

    Ours are those in the default schema of the connection. Where they are in another, use `include_name_outside`.
    """
    return _is_foreign(name, type_, parent_names, None)


def include_name_outside(schema: str) -> Callable[[str | None, str, Mapping[str, Any]], bool]:
    """The ``include_name`` of an application whose connection does not find our tables by its search path: they are in
    a schema of their own, and the application compares with ``include_schemas=True``."""
    return lambda name, type_, parent_names: _is_foreign(name, type_, parent_names, schema)


def _is_foreign(name: str | None, type_: str, parent_names: Mapping[str, Any], ours: str | None) -> bool:
    if type_ != "table" or name is None:
        return True
    if parent_names.get("schema_name") == ours:
        return not is_ours(name)
    return not is_only_ours(name)


def record_revision(op: Any, revision: str | None) -> None:
    """Keep `VERSION_TABLE` true when our scripts run inside an application's own Alembic, whose version
    table is another: the store looks only into ours."""
    migration = op.get_context()
    if migration.version_table == VERSION_TABLE:
        return
    op.execute(
        f"CREATE TABLE IF NOT EXISTS {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    op.execute(f"DELETE FROM {VERSION_TABLE}")
    if revision is not None:
        op.execute(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES ('{revision}')")
