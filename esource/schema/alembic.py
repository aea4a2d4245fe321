"""What the scripts in ``migrations/`` call: how Alembic reaches a database, and looks at our tables alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from esource.checks import check_choice
from esource.database.database import Database
from esource.dialect.postgresql.schemas import make, sets_path
from esource.dialect.urls import backend_for_url, parse_url
from esource.errors import DatabaseError, DatabaseUnavailableError, EventSourceError, InvalidOptionError
from esource.schema.migrating import ROW_LEVEL_SECURITY, rename_old_ids
from esource.schema.revisions import ID_PREFIX, REVISIONS, comparison_options
from esource.schema.versions import current_of
from esource.tables.names import VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection


def run_migrations(context: Any) -> None:
    """What ``migrations/env.py`` does, however Alembic was started."""
    from alembic.util import CommandError

    connection = context.config.attributes.get("connection")
    if connection is not None:
        _run_on(connection, context)
        return
    try:
        _run_on_chosen_database(context)
    except (EventSourceError, ArgumentError) as error:
        # What Alembic's command line shows as one line; anything else as a traceback.
        raise CommandError(str(error)) from error


def _run_on_chosen_database(context: Any) -> None:
    config = context.config
    arguments = context.get_x_argument(as_dictionary=True)
    url = arguments.get("url") or os.environ.get("ESOURCE_URL") or config.get_main_option("sqlalchemy.url")
    if not url:
        raise InvalidOptionError(
            "no database: pass `alembic -x url=sqlite:///events.db …`, set ESOURCE_URL, or set "
            "sqlalchemy.url in alembic.ini"
        )
    if context.is_offline_mode():
        parsed = parse_url(url)
        backend = backend_for_url(parsed)
        context.configure(dialect_name=backend.name, literal_binds=True, **comparison_options())
        _run_in(context, before=first_of_script(parsed, context.get_starting_revision_argument()))
        return
    asyncio.run(_run_on_url(url, context))


async def _run_on_url(url: str, context: Any) -> None:
    database = Database.from_url(url)
    try:
        async with database.transaction(changes_schema=True) as unit:
            with database.backend.errors(database.name):
                await database.backend.lock_schema(unit.connection, database.schema)
                await unit.connection.run_sync(_run_on, context)
    except DatabaseUnavailableError:
        raise
    except DatabaseError:
        await current_of(
            database
        )  # tables that were there before us: `current_of` raises the error that says so
        raise
    finally:
        await database.close()


def _run_on(connection: Connection, context: Any) -> None:
    rename_old_ids(connection)
    context.configure(connection=connection, **comparison_options())
    _run_in(context)


def first_of_script(url: URL, starting_revision: str | None) -> list[str]:
    """What a script that begins at a revision does first: it goes to the schema that the URL names, and does what
    `rename_old_ids` does where the database can be asked."""
    schema = backend_for_url(url).schema_of(url)
    begins_anew = starting_revision in (None, "base")
    there = [] if schema is None else [*([make(schema)] if begins_anew else []), sets_path(schema)]
    if begins_anew:
        return there
    listed = ", ".join(f"'{revision}'" for revision in REVISIONS)
    change = f"UPDATE {VERSION_TABLE} SET version_num = '{ID_PREFIX}' || version_num"
    return [*there, f"{change} WHERE version_num IN ({listed})"]


def _run_in(context: Any, before: Sequence[str] = ()) -> None:
    with context.begin_transaction():
        for statement in before:  # as it is: a name may have a % or a colon
            context.get_context().impl.static_output(f"{statement};")
        context.run_migrations()
        _switch_row_level_security(context)


def _switch_row_level_security(context: Any) -> None:
    """The step that ``-x row_level_security=on`` (or ``off``) adds to an upgrade. Not a revision: a database
    has it or not, at any revision."""
    setting = context.config.attributes.get("row_level_security")
    setting = setting or context.get_x_argument(as_dictionary=True).get("row_level_security")
    if setting is None:
        return
    check_choice("row_level_security", setting, ROW_LEVEL_SECURITY)
    try:
        context.get_revision_argument()
    except KeyError:
        return  # a command that only looks: current, history, check
    dialect = context.get_context().dialect.name
    if not backend_for_url(URL.create(dialect)).supports_row_level_security:
        raise InvalidOptionError("row-level security is PostgreSQL's: SQLite has no roles")
    for statement in ROW_LEVEL_SECURITY[setting]:
        context.execute(statement)
