"""A log on one node of a Citus cluster: its schema becomes a distributed one.

For clusters of Citus 12 and later, with a log for each tenant, region or part, in a schema of its own. `distribute` puts all
tables of a log on one of the nodes; Citus says on which, and moves it to another (``citus_schema_move``,
``citus_rebalance_start``) while it is written to. Stores go on asking the coordinator, which hands each append to that node.

Positions come from the row that appends lock, because a sequence of Citus has the number of its node in it. So stores are opened
with ``append_lock="row"``, and with ``notify=False``: a transaction of several nodes cannot NOTIFY. ``docs/growth.md`` has figures.
"""

from __future__ import annotations

from functools import partial

from esource.database.database import Database
from esource.database.sources import Source, opened_database
from esource.dialect.postgresql import distribution as sql
from esource.errors import InvalidOptionError
from esource.schema.migrating import create_append_lock


async def distribute(database: Source) -> None:
    """Let one node of a Citus cluster have the whole log of a schema (a store or a URL with ``schema=``, on the coordinator).

    May be repeated. What the log holds goes along; nobody reads or writes it meanwhile. From then on its stores need
    ``append_lock="row"`` and ``notify=False``. An empty schema gets the tables.

    Raises:
        InvalidOptionError: the log is in no schema of its own, or the database has no Citus.
        SchemaError: the tables are older or newer than this library's.
        DatabaseBusyError: a transaction uses the log for more than 10 s. Nothing was changed.
        DatabaseReadOnlyError: the connected role does not own the tables.
        DatabaseError: Citus refuses what the application has in the schema, as a foreign key to another one.
    """
    async with opened_database(database) as opened:
        name = opened.schema
        if not opened.backend.supports_schemas or name is None:
            raise InvalidOptionError(
                f"{opened.name}: a log that is to be distributed lies in a schema of its own, on PostgreSQL: name it in the URL "
                "(?schema=NAME)"
            )
        if not await _holds(opened, sql.HAS_CITUS):
            raise InvalidOptionError(
                f"{opened.name}: the database has no Citus. CREATE EXTENSION citus on each node, then citus_add_node(...) on the "
                "coordinator"
            )
        statements = sql.delegate(name)
        if not await _holds(opened, sql.IS_DISTRIBUTED, name):
            await create_append_lock(opened)
            statements = sql.distribute(name) + statements
        async with opened.transaction(changes_schema=True) as unit:
            with opened.backend.errors(opened.name):
                await opened.backend.lock_schema(unit.connection, name)
                for statement in statements:
                    await unit.connection.exec_driver_sql(statement)


async def is_distributed(database: Source) -> bool:
    """Whether the log of a database (a store, an engine or a URL) lies in a distributed schema."""
    async with opened_database(database) as opened:
        if not opened.backend.supports_schemas or opened.schema is None:
            return False
        return await _holds(opened, sql.HAS_CITUS) and await _holds(opened, sql.IS_DISTRIBUTED, opened.schema)


async def _holds(database: Database, question: str, *arguments: str) -> bool:
    [(holds,)] = await database.inspect(partial(database.backend.fetch, text=question, arguments=arguments))
    return bool(holds)
