"""Several logs in one database, each in a schema of its own: what finds one, and what lies in it."""

from __future__ import annotations

from esource.dialect.postgresql.quoting import identifier, literal
from esource.tables.append_function import LOG_LOCK_CLASS
from esource.tables.names import (
    KEYS_TABLE,
    LOCK_TABLE,
    OUR_TABLES,
    PARTITION_PREFIX,
    ROLES_TABLE,
    SEQUENCES,
    VERSION_TABLE,
)

LOGS = f"""
    SELECT nspname::text FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid
    WHERE relname = '{VERSION_TABLE}' AND has_schema_privilege(pg_namespace.oid, 'USAGE')
    AND has_table_privilege(pg_class.oid, 'SELECT') AND EXISTS (SELECT FROM pg_class AS log
        WHERE log.relnamespace = pg_namespace.oid AND log.relname = 'events' AND has_table_privilege(log.oid, 'SELECT'))
    ORDER BY 1"""  # noqa: S608
"""The schemas in which our migrations have run, of those that the role may read."""

LOCK_MIGRATIONS = f"SELECT pg_advisory_xact_lock({LOG_LOCK_CLASS + 1}, hashtext(coalesce(CAST($1 AS text), current_schema())))"
"""Takes the lock that one migration at a time holds: that of a schema, or of the first one of the search path."""

IS_THERE = "SELECT to_regnamespace(quote_ident($1)) IS NOT NULL"
HAS_LOG = f"SELECT to_regclass(quote_ident($1) || '.{VERSION_TABLE}') IS NOT NULL"
HAS_EVENTS = "SELECT to_regclass(quote_ident($1) || '.events') IS NOT NULL"

_IN_SCHEMA = (
    "refclassid = 'pg_namespace'::regclass AND refobjid = to_regnamespace(quote_ident($1)) AND deptype = 'n'"
)
IS_EMPTY = f"SELECT NOT EXISTS (SELECT FROM pg_depend WHERE {_IN_SCHEMA})"  # noqa: S608 - our own text

_OUR_RELATIONS = (*OUR_TABLES, *SEQUENCES, VERSION_TABLE, LOCK_TABLE, ROLES_TABLE, KEYS_TABLE)
OTHER_OBJECTS = f"""
    SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
    WHERE {_IN_SCHEMA}
    AND NOT EXISTS (SELECT FROM pg_class WHERE classid = 'pg_class'::regclass AND oid = objid AND
        (relname IN ({", ".join(map(literal, _OUR_RELATIONS))}) OR starts_with(relname, '{PARTITION_PREFIX}')))
    AND NOT EXISTS (SELECT FROM pg_proc WHERE classid = 'pg_proc'::regclass AND oid = objid AND
        starts_with(proname, 'esource_'))
    ORDER BY 1"""  # noqa: S608 - our own names
"""What lies in the schema of a log and is not ours, in the server's words."""


def about(schema: str) -> str:
    """Revision, last position and size (bytes) of the log in a schema."""
    name = identifier(schema)
    return f"""
        SELECT (SELECT version_num FROM {name}.{VERSION_TABLE}),
            (SELECT coalesce(max(global_position), 0) FROM {name}.events),
            (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
                WHERE relnamespace = to_regnamespace({literal(name)}) AND relkind = 'r')"""  # noqa: S608 - quoted


def lock(schema: str) -> str:
    """Let nobody read or write the log of a schema until the transaction ends."""
    return f"LOCK TABLE {identifier(schema)}.events IN ACCESS EXCLUSIVE MODE"


def last_position(schema: str) -> str:
    """The last position of the log in a schema; 0 if it is empty."""
    return f"SELECT coalesce(max(global_position), 0) FROM {identifier(schema)}.events"  # noqa: S608 - quoted


def make(schema: str) -> str:
    """Make a schema, in which only the connected role may do anything."""
    return f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}"


def drop(schema: str) -> str:
    """Drop a schema with what lies in it."""
    return f"DROP SCHEMA {identifier(schema)} CASCADE"


def sets_path(schema: str) -> str:
    """For a script: its other statements work in this schema."""
    return f"SET LOCAL search_path = {identifier(schema)}"
