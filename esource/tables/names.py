"""What our tables and their sequences are called in a database."""

from __future__ import annotations

from esource.tables.model import metadata

OUR_TABLES = tuple(metadata.tables)
"""The seven tables of the model, `events` first."""

VERSION_TABLE = "esource_alembic_version"
"""Alembic's version table for our scripts: an application's own ``alembic_version`` stays its own."""

SEQUENCES = tuple(
    f"{name}_{key}_seq"
    for name, key in (("events", "global_position"), ("dead_letter_queue", "id"), ("snapshots", "id"))
)
"""PostgreSQL's sequences behind the generated keys."""

LOCK_TABLE = "esource_append_lock"
"""On PostgreSQL, with ``append_lock="row"``: its one row is what an append locks."""

ROLES_TABLE = "esource_tenant_roles"
"""On PostgreSQL: which tenant a role is for; its existence says that row-level security is on."""

KEYS_TABLE = "esource_event_keys"
"""On PostgreSQL, beside a partitioned log: what is unique over all of its parts."""

PARTITION_PREFIX = "events_from_"
"""On PostgreSQL: how the names of the log's parts begin. They end in the first position that the part takes."""

_OTHERS = frozenset({VERSION_TABLE, LOCK_TABLE, ROLES_TABLE, KEYS_TABLE})


def is_ours(table: str) -> bool:
    """Whether a table of this name is ours, in a schema of a database that has our tables."""
    return table in metadata.tables or is_only_ours(table)


def is_only_ours(table: str) -> bool:
    """Whether no application has a table of this name by chance."""
    return table in _OTHERS or table.startswith(PARTITION_PREFIX)
