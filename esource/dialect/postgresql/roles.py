"""The rights of PostgreSQL roles on our tables, as statements; `esource.schema.roles` says what they are for."""

from __future__ import annotations

from typing import NamedTuple

from esource.dialect.postgresql.positions import FUNCTIONS as POSITIONS
from esource.dialect.postgresql.quoting import identifier, literal
from esource.dialect.postgresql.row_level_security import FUNCTIONS
from esource.tables.append_function import SIGNATURE as APPEND
from esource.tables.names import LOCK_TABLE, OUR_TABLES, ROLES_TABLE, SEQUENCES, VERSION_TABLE
from esource.tables.tag_index import FUNCTIONS as TAG_FUNCTIONS


class Roles(NamedTuple):
    """The roles that migrate, write and read the tables of one schema."""

    schema: str
    migrator: str
    writer: str
    reader: str


def statements(names: Roles) -> list[str]:
    """Idempotent; before the first migration as well as after any. For one transaction of an administrator."""
    schema, migrator, writer, reader = map(identifier, names)
    roles = (migrator, writer, reader)
    every_role = ", ".join(roles)
    ours = {table: f"{schema}.{table}" for table in (*OUR_TABLES, VERSION_TABLE, ROLES_TABLE, LOCK_TABLE)}
    events, version, tenant_roles = ours["events"], ours[VERSION_TABLE], ours[ROLES_TABLE]
    row = ours[LOCK_TABLE]
    default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {migrator} IN SCHEMA {schema}"
    return [
        *(
            _if(
                f"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal(name)})",
                f"CREATE ROLE {role} LOGIN",
            )
            for name, role in zip(names[1:], roles, strict=True)
        ),
        *(
            f"DO {literal(f'BEGIN EXECUTE format({literal(setting)}, current_database()); END')}"
            for role in roles
            for setting in _settings(names.schema, role)
        ),
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        # Before PostgreSQL 15 every role may create objects in the schema public.
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {writer}, {reader}",
        f"GRANT USAGE ON SCHEMA {schema} TO {every_role}",
        f"GRANT CREATE ON SCHEMA {schema} TO {migrator}",
        # What a later migration creates is usable as soon as it is there.
        f"{default} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {writer}",
        f"{default} GRANT USAGE, SELECT ON SEQUENCES TO {writer}",
        f"{default} GRANT SELECT ON TABLES TO {reader}",
        f"{default} GRANT SELECT ON SEQUENCES TO {reader}",
        # Only its owner may alter a table; a sequence goes with the table of its column.
        *(_if_there(table, f"ALTER TABLE {table} OWNER TO {migrator}") for table in ours.values()),
        *(
            _own(f"{schema}.{function}", migrator)
            for function in (*FUNCTIONS, *TAG_FUNCTIONS, *POSITIONS, APPEND)
        ),
        *(
            _if_there(
                ours[table],
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {ours[table]} TO {writer}",
                f"GRANT SELECT ON {ours[table]} TO {reader}",
            )
            for table in OUR_TABLES
        ),
        *(
            _if_there(
                sequence,
                f"GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {writer}",
                f"GRANT SELECT ON SEQUENCE {sequence} TO {reader}",
            )
            for sequence in (f"{schema}.{name}" for name in SEQUENCES)
        ),
        # The log is appended to and nothing else. Only the owner has TRUNCATE and TRIGGER.
        _if_there(events, f"REVOKE UPDATE, DELETE ON {events} FROM {writer}"),
        # Its triggers write the index of the tags, with the rights of the owner, who alone gives stored events tags.
        *(
            _if_there(ours[table], f"REVOKE INSERT, UPDATE, DELETE ON {ours[table]} FROM {writer}")
            for table in ("event_tags", "tag_fillings")
        ),
        _if_there(
            version,
            f"REVOKE INSERT, UPDATE, DELETE ON {version} FROM {writer}",
            f"GRANT SELECT ON {version} TO {writer}, {reader}",
        ),
        # Its functions lock it and move it on, with the rights of the owner.
        _if_there(
            row,
            f"REVOKE INSERT, UPDATE, DELETE ON {row} FROM {writer}",
            f"GRANT SELECT ON {row} TO {writer}, {reader}",
        ),
        *(
            _if(
                f"to_regprocedure({literal(f'{schema}.{function}')}) IS NOT NULL",
                f"GRANT EXECUTE ON FUNCTION {schema}.{function} TO {writer}",
            )
            for function in (APPEND, *TAG_FUNCTIONS[1:], *POSITIONS)  # where PUBLIC may call none
        ),
        _if_there(tenant_roles, f"REVOKE ALL ON {tenant_roles} FROM {writer}, {reader}"),
    ]


def _own(function: str, role: str) -> str:
    found = f"to_regprocedure({literal(function)})"
    change = f"ALTER FUNCTION %s OWNER TO {role.replace('%', '%%')}"
    return _if(f"{found} IS NOT NULL", f"EXECUTE format({literal(change)}, {found})")


def _settings(schema: str, role: str) -> list[str]:
    """What a role needs of the database itself, whose name only the database knows; for `format`."""
    role = role.replace("%", "%%")
    path = identifier(schema).replace("%", "%%")
    # Our statements name their tables without a schema, and find those of this one by themselves.
    found = [] if schema == "public" else [f"ALTER ROLE {role} IN DATABASE %I SET search_path TO {path}"]
    return [f"GRANT CONNECT ON DATABASE %I TO {role}", *found]


def _if_there(table: str, *then: str) -> str:
    return _if(f"to_regclass({literal(table)}) IS NOT NULL", *then)


def _if(condition: str, *then: str) -> str:
    return f"DO {literal(f'BEGIN IF {condition} THEN {chr(59).join(then)}; END IF; END')}"
