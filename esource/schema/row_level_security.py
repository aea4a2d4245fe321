"""Row-level security on PostgreSQL: database roles that see and write one tenant's rows, whatever SQL they send.

Opt-in: ``alembic -x row_level_security=on upgrade head``, or `enable`; then `bind_role` for each role. Both may
be repeated, and is after an upgrade of esource: the policies and the rights of the bound roles become those of the
release. A store opened as such a role works as ever on what is its tenant's; bind it with
`EventStore.for_tenant` as well, which fills in the tenant and keeps its checkpoints under its own names.

What a bound role may do:

- events: read its tenant's, append its tenant's; no row is changed or deleted, no position is chosen, and
  nothing is added to a stream of another tenant's. A version other than 1 needs the one before it, of its own; the payload
  is an object, and the moment is one that Python has;
- outbox rows of its tenant: read them, add them for its own events or for streams that are no other tenant's, change what is
  about attempts, and delete them, but for the newest row of an append, by which stores know that there is an outbox;
- snapshots of its tenant's streams, dead letters of its tenant's events, and checkpoints named ``<tenant id>:…``: read,
  write, delete;
- how far a projection of the whole log is, and which worker has it: ask, for `EventStore.wait_for`;
- the schema version: read. Which role is for which tenant: neither read nor write.

What it learns of others nonetheless: that an id is taken, that positions have holes, and that there was an
append (``NOTIFY`` carries no content), and how large the tables are. A session that keeps a transaction open after an append keeps all
appends waiting: give such roles an ``idle_in_transaction_session_timeout``. Before PostgreSQL 15 every role may
create objects in the schema ``public``: ``REVOKE CREATE ON SCHEMA public FROM PUBLIC`` belongs to this.

The owner of the tables, superusers and roles with BYPASSRLS are not restricted: migrations, relays and
projections over all tenants run as the owner, or as a role bound to no tenant in particular (None).
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from esource.checks import check_id
from esource.database.database import Database
from esource.database.sources import Source, opened_database
from esource.dialect.postgresql.positions import IS_FROM_ROW
from esource.dialect.postgresql.quoting import identifier
from esource.dialect.postgresql.row_level_security import (
    BIND,
    IS_ENABLED,
    UNBIND,
    UNFIT_ROLE,
    revocations,
    rights,
)
from esource.errors import InvalidOptionError, SchemaMissingError
from esource.schema.migrating import migrate
from esource.schema.versions import current


async def enable(database: Source) -> None:
    """Switch row-level security on, in a database (a store, an engine, a URL) that has our tables.

    From then on a role other than the tables' owner sees nothing until it is bound: bind the roles that
    your services connect as in the same deployment step. An application's own role for all tenants is
    bound to None.

    Raises:
        InvalidOptionError: the database has no row-level security.
        SchemaMissingError: it has none of our tables.
    """
    await _switch(database, "on")


async def disable(database: Source) -> None:
    """Switch it off again. The bound roles lose their rights, for nothing would restrict them any more.

    Raises:
        InvalidOptionError: the database has no row-level security.
        SchemaMissingError: it has none of our tables.
    """
    await _switch(database, "off")


async def is_enabled(database: Source) -> bool:
    """Whether row-level security is on."""
    async with opened_database(database) as opened:
        if not opened.backend.supports_row_level_security:
            return False
        async with opened.transaction() as unit:
            return await _is_enabled(unit.connection)


async def bind_role(database: Source, role: str, tenant_id: UUID | None) -> None:
    """Let a role that exists see and write this tenant's rows, and grant it what that takes. A role has one
    tenant: binding it again moves it. None: the rows of all tenants, and the rights it has already.

    Raises:
        InvalidOptionError: there is no such role; no policy would restrict it (a superuser, BYPASSRLS, a
            member of the tables' owner); or row-level security is not on.
    """
    if tenant_id is not None:
        check_id("tenant_id", tenant_id)
    async with opened_database(database) as opened:
        _require_support(opened)
        async with opened.transaction() as unit:
            connection = unit.connection
            with opened.backend.errors(opened.name):
                if not await _is_enabled(connection):
                    raise InvalidOptionError(
                        f"{opened.name}: row-level security is not on. Run `alembic -x row_level_security=on "
                        "upgrade head`, or esource.schema.row_level_security.enable()."
                    )
                unfit = (await connection.exec_driver_sql(UNFIT_ROLE, (role,))).scalar()
                if unfit is None:
                    raise InvalidOptionError(f"{opened.name} has no role {role!r}: create it first")
                if unfit:
                    raise InvalidOptionError(
                        f"no policy restricts the role {role!r}: it is a superuser, has BYPASSRLS, or is a "
                        "member of the role that owns the tables"
                    )
                await connection.exec_driver_sql(BIND, (role, tenant_id))
                if tenant_id is None:
                    return
                await _run(connection, rights, role)


async def unbind_role(database: Source, role: str) -> None:
    """Take a role's rights away again, before it is dropped; does nothing to a role that is not bound.

    Raises:
        InvalidOptionError: the database has no row-level security.
    """
    async with opened_database(database) as opened:
        _require_support(opened)
        async with opened.transaction() as unit:
            connection = unit.connection
            with opened.backend.errors(opened.name):
                if not await _is_enabled(connection):
                    return
                tenant_id = (await connection.exec_driver_sql(UNBIND, (role,))).scalar()
                exists = (await connection.exec_driver_sql(UNFIT_ROLE, (role,))).scalar() is not None
                if tenant_id is not None and exists:
                    await _run(connection, revocations, role)


async def _switch(database: Source, setting: str) -> None:
    async with opened_database(database) as opened:
        _require_support(opened)
        revision = await current(opened)
        if revision is None:
            raise SchemaMissingError(opened.name)
        await migrate(opened, "upgrade", revision, setting)


def _require_support(database: Database) -> None:
    if not database.backend.supports_row_level_security:
        raise InvalidOptionError(f"row-level security is PostgreSQL's, and this is {database.name}")


async def _is_enabled(connection: AsyncConnection) -> bool:
    return bool((await connection.exec_driver_sql(IS_ENABLED)).scalar())


async def _run(connection: AsyncConnection, statements: Callable[..., list[str]], role: str) -> None:
    schema = identifier(str((await connection.exec_driver_sql("SELECT current_schema()")).scalar()))
    from_row = bool((await connection.exec_driver_sql(IS_FROM_ROW)).scalar())
    for statement in statements(identifier(role), schema, from_row=from_row):
        await connection.exec_driver_sql(statement)
