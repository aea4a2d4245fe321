"""Bringing a database to the newest schema, through the Alembic scripts in ``migrations/``.

The ways in:

- ``await store.initialize()``: a fresh database, or an older one on SQLite;
- ``alembic upgrade head``: from a checkout, or from anywhere with ``script_location = esource:migrations``;
- ``await esource.schema.upgrade(url)``: the same from a program;
- inside an application's own Alembic: add ``esource:migrations/versions`` to its ``version_locations``
  (with ``path_separator = newline``: the colon is a separator to ``os`` and to ``:``) and run ``alembic
  upgrade heads``, or call `upgrade` from a deployment step. Give `include_name` to its
  ``context.configure``, so that autogenerate leaves our tables alone.

Every way runs the whole upgrade in one transaction under a lock: any number of processes may do it at
once, and a migration that dies leaves nothing behind. On PostgreSQL, ``alembic -x row_level_security=on
upgrade head`` also switches row-level security on; see `esource.schema.row_level_security`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esource.database.sources import opened_database
    from esource.schema.alembic import run_migrations
    from esource.schema.migrating import (
        ROW_LEVEL_SECURITY,
        adopt,
        create_append_lock,
        create_script,
        downgrade,
        drop_append_lock,
        in_memory,
        initialize,
        migrate,
        settle_append_lock,
        upgrade,
    )
    from esource.schema.revisions import (
        HEAD,
        REVISIONS,
        TABLES,
        alembic_config,
        comparison_options,
        include_name,
        include_name_outside,
        record_revision,
        scripts,
    )
    from esource.schema.versions import current, require_head, whole_store
    from esource.tables.names import LOCK_TABLE, VERSION_TABLE

__all__ = [
    "HEAD",
    "LOCK_TABLE",
    "REVISIONS",
    "ROW_LEVEL_SECURITY",
    "TABLES",
    "VERSION_TABLE",
    "adopt",
    "alembic_config",
    "comparison_options",
    "create_append_lock",
    "create_script",
    "current",
    "downgrade",
    "drop_append_lock",
    "in_memory",
    "include_name",
    "include_name_outside",
    "initialize",
    "migrate",
    "opened_database",
    "record_revision",
    "require_head",
    "run_migrations",
    "scripts",
    "settle_append_lock",
    "upgrade",
    "whole_store",
]

# A name is imported when it is first asked for: Alembic loads `protection` in every program that imports it, whether
# that has anything to do with esource or not.
_HOMES = {
    "database.sources": "opened_database",
    "schema.alembic": "run_migrations",
    "schema.migrating": (
        "ROW_LEVEL_SECURITY adopt create_append_lock create_script downgrade drop_append_lock in_memory initialize migrate "
        "settle_append_lock upgrade"
    ),
    "schema.revisions": (
        "HEAD REVISIONS TABLES alembic_config comparison_options include_name include_name_outside record_revision scripts"
    ),
    "schema.versions": "current require_head whole_store",
    "tables.names": "LOCK_TABLE VERSION_TABLE",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # else every misspelt name would have a type

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_import_module(f"esource.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
