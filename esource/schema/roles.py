"""Least privilege on PostgreSQL: three roles for one log, and the script that sets them up.

- The *migrator* owns the tables and changes the schema; a deployment step connects as it, and nothing else.
- The *writer* is what services connect as: stores, projections, subscriptions, leases, outbox and relay. It
  appends to the log and never changes or deletes an event; it creates, alters and drops nothing.
- The *reader* sees every table and writes none: dashboards, exports, support.

The script is idempotent and for an administrator: a superuser, or a role that owns the database and may create
roles. Run it before the first migration, and again after it: before, there are no tables whose rights it could
narrow, and until then the writer may do to them what it may do to any table of the schema. What a later
migration creates is usable by the writer and the reader at once.

Roles that are missing are created without a password, so that a login with a password is not possible; give them
theirs with ``ALTER ROLE ... PASSWORD``. Tables of ours that are there already go over to the migrator.

A projection whose `reset` creates its tables needs a schema of its own where the writer may do that
(``CREATE SCHEMA read_models AUTHORIZATION writer``); otherwise the migrator creates them, in our schema or
elsewhere, and `reset` deletes their rows.

With row-level security (`esource.schema.row_level_security`) switched on, the writer and the reader see nothing until
they are bound: ``bind_role(url, "writer", None)`` says that a role is for all tenants. Advisory locks and NOTIFY
need no right in PostgreSQL: every role that may connect can hold appends up.
"""

from __future__ import annotations

from esource.database.sources import Source, opened_database
from esource.dialect.postgresql.quoting import check_name
from esource.dialect.postgresql.roles import Roles, statements
from esource.errors import InvalidOptionError


def role_script(
    *,
    schema: str = "public",
    migrator: str = "esource_migrator",
    writer: str = "esource_writer",
    reader: str = "esource_reader",
) -> str:
    """The SQL that sets up the three roles, for ``psql --single-transaction``. No I/O.

    Args:
        schema: The schema of the tables; created if missing. The roles find it by their search path in
            this database.
        migrator: the role that owns the tables.
        writer: the role that appends.
        reader: the role that only reads.

    Raises:
        InvalidOptionError: a name that PostgreSQL would not take as it stands, or the same name twice.
    """
    return ";\n".join(statements(_checked(schema, migrator, writer, reader))) + ";\n"


async def create_roles(
    database: Source,
    *,
    schema: str | None = None,
    migrator: str = "esource_migrator",
    writer: str = "esource_writer",
    reader: str = "esource_reader",
) -> None:
    """Run `role_script` in one transaction, on a database (a store, an engine, a URL) of an administrator.

    If ``schema`` is left out, it is the one that the URL names, or ``public``.

    Raises:
        InvalidOptionError: as `role_script`; or the database has no roles.
        DatabaseReadOnlyError: the connected role may not do this.
    """
    async with opened_database(database) as opened:
        names = _checked(schema or opened.schema or "public", migrator, writer, reader)
        if not opened.backend.supports_row_level_security:
            raise InvalidOptionError(f"roles are PostgreSQL's, and this is {opened.name}")
        await opened.run_script(statements(names))


def _checked(schema: str, migrator: str, writer: str, reader: str) -> Roles:
    names = Roles(schema, migrator, writer, reader)
    for what, name in names._asdict().items():
        check_name(what, name)
        # Even in quotes, "public" as a role means all roles.
        if what != "schema" and name in ("public", "none"):
            raise InvalidOptionError(f"{what}: {name!r} is a name that PostgreSQL keeps for itself")
    if len(set(names[1:])) < len(names[1:]):
        raise InvalidOptionError("migrator, writer and reader must be three different roles")
    return names
