"""PostgreSQL: a batch as one statement, the advisory lock that keeps the log in order, and its errors."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.ext.asyncio import create_async_engine

from esource.dialect.backend import STANDARD, Backend, Call, Failure, Switches, Watched
from esource.dialect.errors import unavailable, without_password
from esource.dialect.plan import Plan, Written
from esource.dialect.postgresql.append import APPEND, arguments, lock_statement
from esource.dialect.postgresql.conditions import refusals
from esource.dialect.postgresql.connection import Connection
from esource.dialect.postgresql.distribution import ALLOW_TRIGGERS
from esource.dialect.postgresql.errors import classify, explain, lacks_append
from esource.dialect.postgresql.joined import JoinedConnection
from esource.dialect.postgresql.positions import APPENDERS, IS_FROM_ROW, LOCK, TO_ROW, TO_SEQUENCE
from esource.dialect.postgresql.quoting import identifier
from esource.dialect.postgresql.row_level_security import AFTER_SWITCH, HAS_PROGRESS, PROGRESS, owners_only
from esource.dialect.postgresql.schemas import IS_THERE, LOCK_MIGRATIONS, make
from esource.dialect.postgresql.session import only_read, require_path, require_same
from esource.dialect.postgresql.url import for_asyncpg, schema_of
from esource.dialect.postgresql.watch import SETTLE_SECONDS, SharedWatcher, watch
from esource.errors import (
    EventSourceError,
    InvalidOptionError,
)
from esource.tables.names import LOCK_TABLE
from esource.tables.statement import Statement, checked_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

_Connection = Any
"""An `asyncpg.Connection`, which carries no types."""

POOLED_CONNECT_ARGS = {
    # asyncpg's: since 0.29 a statement outside a transaction is then parsed and run without a pause in which
    # a pooler could lend the server connection to another client (MagicStack/asyncpg pull request 1065).
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,  # SQLAlchemy's
    # A name would be taken, or unknown, on the next server connection, and be left behind on this one.
    "prepared_statement_name_func": lambda: "",
}
"""For engines behind a pooler that lends a server connection for one transaction: nothing stays in a session.
Our advisory locks are the transaction's, and need no session either."""

_SCHEMA = "SELECT current_schema()"
_MISSING_TABLES = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NULL"
_HAS_EVENTS = "SELECT 'events'::regclass"
_END_WAIT = """
SELECT pg_cancel_backend($1) FROM pg_stat_activity
WHERE pid = $2 AND pid = ANY (pg_blocking_pids($1))
AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - make_interval(secs => $3)
"""


class _Quiet(asyncpg_dialect):
    """Where no statement tells anybody anything: Citus refuses what could tell, also where it does not."""

    tells = False


class PostgreSQLBackend(Backend):
    """PostgreSQL through asyncpg: every call is one round trip of a prepared statement."""

    name: ClassVar[str] = "postgresql"
    concurrent_writers: ClassVar[bool] = True
    held_connections: ClassVar[int] = 8
    reads_ahead: ClassVar[bool] = True
    migrates_unasked: ClassVar[bool] = False
    supports_row_level_security: ClassVar[bool] = True
    supports_schemas: ClassVar[bool] = True
    supports_partitions: ClassVar[bool] = True
    append_lock_scripts: ClassVar[Mapping[str, Sequence[str]]] = {
        "row": (*TO_ROW, *owners_only(LOCK_TABLE), APPENDERS, *AFTER_SWITCH),
        "advisory": (*TO_SEQUENCE, *AFTER_SWITCH),
    }
    default_options: ClassVar[Mapping[str, Any]] = {"read_only": False}

    def __init__(self, switches: Switches = STANDARD) -> None:
        # Behind a pooler the session that would hear is not ours.
        self.listens = switches.notify and not switches.transaction_pooling
        self.tells = switches.notify and switches.append_lock == "advisory"
        self.sqlalchemy_dialect = asyncpg_dialect() if self.tells else _Quiet()  # type: ignore[no-untyped-call]
        self._pooled = switches.transaction_pooling
        self._entered: WeakKeyDictionary[_Connection, tuple[str | None]] = WeakKeyDictionary()
        """The schemas that connections which several logs share have entered."""
        self._switches = switches
        self.append_lock = switches.append_lock
        self._lock = self.compiled(Statement(lock_statement(switches))).text

    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        read_only = options.pop("read_only")
        if self._pooled:
            options["connect_args"] = {**POOLED_CONNECT_ARGS, **options.get("connect_args", {})}
        schema = schema_of(url)
        url, arguments = for_asyncpg(url, options.get("connect_args", {}))
        options["connect_args"] = {"connection_class": Connection, **arguments}
        engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), **options)
        if schema is not None:
            event.listen(engine.sync_engine, "connect", partial(require_path, schema))
        if read_only:
            event.listen(engine.sync_engine, "connect", only_read)
        return engine

    def describe(self, url: URL) -> str:
        return f"PostgreSQL database {without_password(url.set(drivername='postgresql'))}"

    def schema_of(self, url: URL) -> str | None:
        return schema_of(url)

    async def enter(self, driver: _Connection, schema: str | None, *, for_application: bool = False) -> None:
        if not for_application and self.has_entered(driver, schema):
            return
        self._entered.pop(driver, None)  # if this is cancelled, it is not known where the connection works
        await driver.execute(f"SET search_path TO {'DEFAULT' if schema is None else identifier(schema)}")
        if not for_application:
            self._entered[driver] = (schema,)

    def has_entered(self, driver: _Connection, schema: str | None) -> bool:
        return self._entered.get(driver) == (schema,)

    def shared_watcher(self, driver: _Connection, lock: asyncio.Lock, schema: str | None) -> SharedWatcher:
        return SharedWatcher(driver, lock, partial(self.enter, driver, schema))

    async def fetch(self, driver: _Connection, text: str, arguments: Sequence[Any]) -> list[Any]:
        return await driver.fetch(text, *arguments)  # type: ignore[no-any-return]

    async def write(
        self, driver: _Connection, text: str, arguments: Sequence[Any], *, commit: bool
    ) -> list[Any]:
        return await driver.fetch(text, *arguments)  # type: ignore[no-any-return]

    async def append(self, driver: _Connection, plan: Plan, *, commit: bool) -> Written:
        try:
            record = await driver.fetchrow(APPEND, *arguments(plan, self._switches))
        except asyncpg.UndefinedFunctionError:
            if not driver.is_in_transaction():
                await driver.fetchval(_HAS_EVENTS)  # which says so if there are no tables at all
            raise
        if not plan.conditional:
            return Written(record[0], record[1], record[2], record[3] or ())
        return Written(record[0], record[1], record[2], record[3] or (), refusals(plan, record[4]))

    def require_usable(self, driver: _Connection, database: str) -> None:
        encoding = getattr(driver.get_settings(), "server_encoding", "UTF8")  # a pooler may not tell
        if encoding != "UTF8":
            raise unavailable(
                database,
                f"its encoding is {encoding}, which lacks characters that events may hold",
                "Make a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and use that",
            )

    async def begin(self, connection: AsyncConnection, driver: _Connection) -> AsyncTransaction:
        # Said here, because role, database or engine may have a default of their own. In a stricter level an append
        # would see the log as it was before the lock, and fail where another has come before it.
        return await _begin(connection, driver, "BEGIN ISOLATION LEVEL READ COMMITTED")

    async def begin_reading(self, connection: AsyncConnection, driver: _Connection) -> AsyncTransaction:
        return await _begin(connection, driver, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    async def join(self, connection: AsyncConnection, database: str, schema: str | None) -> _Connection:
        # SQLAlchemy starts the transaction with the first statement that it runs itself.
        found = (await connection.exec_driver_sql(_SCHEMA)).scalar()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if not driver.is_in_transaction():
            raise InvalidOptionError(
                f"{database}: the connection is in AUTOCOMMIT: each statement would be stored by itself, and no rollback "
                "takes it back. Give a connection whose isolation_level is READ COMMITTED."
            )
        require_same(schema, found, database)
        return driver

    synchronous_driver = "psycopg 3"

    def is_of_driver(self, connection: object) -> bool:
        psycopg = sys.modules.get("psycopg")  # loaded by the application, if this is one of its connections
        return psycopg is not None and isinstance(connection, psycopg.Connection)

    async def join_synchronous(
        self, connection: Any, call: Call, database: str, schema: str | None
    ) -> JoinedConnection:
        opened = connection
        if isinstance(connection, SyncConnection):
            if connection.dialect.driver != "psycopg":
                raise InvalidOptionError(
                    f"{database}: connection must be one of psycopg 3 (postgresql+psycopg://...), not of "
                    f"{connection.dialect.name}+{connection.dialect.driver}"
                )
            await call(connection.exec_driver_sql, ("SELECT 1",))
            opened = (await call(lambda: connection.connection, ())).driver_connection
        joined = JoinedConnection(opened, call)
        if joined.is_in_pipeline():
            raise InvalidOptionError(
                f"{database}: the connection is in the pipeline mode of psycopg. Append outside of its pipeline() block."
            )
        has_begun = joined.is_in_transaction()
        if not has_begun and opened.autocommit:
            raise InvalidOptionError(
                f"{database}: the connection is in AUTOCOMMIT. Give one inside a transaction."
            )
        if schema is not None or not has_begun:
            require_same(schema, await joined.fetchval(_SCHEMA), database)
        return joined

    async def commit(self, transaction: AsyncTransaction, driver: _Connection) -> bool:
        await transaction.commit()  # SQLAlchemy's events, and its record: it sends nothing
        # The server answers ROLLBACK, and no error, when it has aborted the transaction before.
        return await driver.execute("COMMIT") == "COMMIT"  # type: ignore[no-any-return]

    async def roll_back(self, transaction: AsyncTransaction, driver: _Connection) -> None:
        if transaction.is_active:
            await transaction.rollback()
        if not driver.is_closed() and driver.is_in_transaction():
            await driver.execute("ROLLBACK")

    async def run(self, driver: _Connection, text: str) -> None:
        await driver.execute(text)

    def is_in_transaction(self, driver: _Connection) -> bool:
        return driver.is_in_transaction()  # type: ignore[no-any-return]

    async def abandon(self, driver: _Connection) -> None:
        try:
            await asyncio.wait_for(driver.execute("ROLLBACK"), SETTLE_SECONDS)
        except Exception:  # nothing comes through it any more, or every statement on it is cancelled
            driver.terminate()

    async def missing_tables(self, names: Sequence[str], driver: _Connection) -> list[str]:
        return [name for (name,) in await driver.fetch(_MISSING_TABLES, list(names))]

    async def hidden_checkpoints(self, driver: _Connection, name: str) -> list[tuple[Any, ...]]:
        if not await driver.fetchval(HAS_PROGRESS):
            return []
        return [tuple(row) for row in await driver.fetch(PROGRESS, name)]

    async def lock_schema(self, connection: AsyncConnection, schema: str | None) -> None:
        await connection.exec_driver_sql(LOCK_MIGRATIONS, (schema,))
        await connection.exec_driver_sql(ALLOW_TRIGGERS)
        # IF NOT EXISTS would ask for the right to make one all the same.
        if schema and not (await connection.exec_driver_sql(IS_THERE, (schema,))).scalar():
            await connection.exec_driver_sql(make(schema))

    async def lock_log(self, driver: _Connection, schema: str | None = None) -> None:
        granted, found, *_ = await driver.fetchrow(self._lock)  # psycopg's row has no names
        require_same(schema, found, "PostgreSQL")
        if granted is True:  # whoever reads or copies the log, with the standard lock
            await driver.fetchrow(LOCK)

    async def take_back(self, driver: _Connection, schema: str | None) -> None:
        # From PostgreSQL 18 on the server tells what the path is; before, it is set in any case.
        if schema is not None and getattr(driver.get_settings(), "search_path", None) != identifier(schema):
            await driver.execute("RESET search_path")

    async def append_lock_of(self, driver: _Connection) -> str:
        return "row" if await driver.fetchval(IS_FROM_ROW) else "advisory"

    async def watch(self, driver: _Connection, watched: Watched) -> None:
        await watch(driver, watched, with_locks=self.tells)

    def names(self, values: Sequence[Any]) -> Any:
        return checked_names(values)

    def is_alive(self, driver: _Connection) -> bool:
        return not driver.is_closed()

    async def settle(self, driver: _Connection) -> None:
        # asyncpg has asked the server to cancel, and lets the next statement wait for the answer to that: for
        # ever, if the network swallows everything.
        try:
            await asyncio.wait_for(driver.execute("SELECT 1"), SETTLE_SECONDS)
        except asyncpg.PostgresError:
            return  # an answer, too: the transaction that is open has failed
        except (Exception, asyncio.CancelledError):
            # Before Python 3.12 the statement is a task of its own, which a program that stops may cancel. The task
            # that settles the connection goes on all the same, and gives the connection back.
            driver.terminate()

    async def end_wait(
        self, driver: _Connection, waiting: _Connection, holder: _Connection, seconds: float
    ) -> bool:
        pids = waiting.get_server_pid(), holder.get_server_pid()
        return bool(await driver.fetchval(_END_WAIT, *pids, seconds))

    def break_off(self, driver: _Connection) -> None:
        driver.terminate()

    def classify(self, error: BaseException) -> Failure:
        return classify(error)

    def lacks_column(self, error: BaseException) -> bool:
        return isinstance(error, asyncpg.UndefinedColumnError) or lacks_append(error)

    def explain(self, error: BaseException, database: str) -> EventSourceError | None:
        return explain(error, database, self.append_lock)


async def _begin(connection: AsyncConnection, driver: _Connection, statement: str) -> AsyncTransaction:
    # SQLAlchemy keeps away from BEGIN and COMMIT: it would not say what the server has answered to a COMMIT.
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await driver.execute(statement)
    return await connection.begin()
