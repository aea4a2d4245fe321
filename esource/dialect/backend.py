"""The seam between the store and a database: what each database must provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from esource.dialect.errors import driver_error
from esource.dialect.plan import Plan, Written
from esource.errors import EventSourceError, SchemaMissingError, SchemaOutdatedError
from esource.tables.statement import Compiled, Statement

if TYPE_CHECKING:
    import asyncio
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg
    from sqlalchemy import Dialect
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction

Failure = Literal["unique", "lost", "again", "other"]
"""What a driver's error means for a retry: a unique constraint refused a row; the connection is gone
and the outcome unknown; the database asks to try again (serialization failure, deadlock); none of these."""


class Switches(NamedTuple):
    """What a server, or what stands before it, may lack of PostgreSQL; see `PostgreSQLEventStore`."""

    append_lock: Literal["advisory", "row"] = "advisory"
    notify: bool = True
    transaction_pooling: bool = False


STANDARD = Switches()

Call = Callable[[Callable[..., Any], tuple[Any, ...]], Awaitable[Any]]
"""Calls a plain function where the application runs."""

DriverConnection: TypeAlias = "sqlite3.Connection | psycopg.Connection[Any]"
"""A connection of the application's own to a driver, which `Backend.join_synchronous` takes."""


class Watched(Protocol):
    """What a `Backend.watch` tells of the commits of others."""

    @property
    def awaited(self) -> frozenset[str]:
        """The names of the checkpoints that are waited for now."""

    async def changes(self, seconds: float) -> None:
        """Wait until `awaited` is different, until `look` is called, or until the time is over."""

    def look(self) -> None:
        """End `changes`: something has happened to the connection."""

    def begin(self) -> None:
        """The watch has begun: from here on every append is told of."""

    def cover(self, names: frozenset[str]) -> None:
        """From here on it is told when one of these checkpoints moves."""

    def set(self) -> None:
        """Another connection has committed anything."""

    def appended(self) -> None:
        """Another connection has appended."""

    def saved(self) -> None:
        """Another connection may have moved a checkpoint that is covered."""


class Backend(ABC):
    """What a database must provide. One instance may serve many stores; it holds no connections.

    A *driver* connection is the raw one under SQLAlchemy's pool: `aiosqlite.Connection` or
    `asyncpg.Connection`.
    """

    name: ClassVar[str]
    """SQLAlchemy's name of the dialect, and OpenTelemetry's ``db.system``."""
    in_files: ClassVar[bool] = False
    """Whether a database is a file of this machine, or in memory; else a server has it."""
    concurrent_writers: ClassVar[bool]
    """Whether several connections of one process may write at the same time."""
    connects_at_once: ClassVar[bool] = False
    """Whether a connection is made without waiting for another machine. Then a task that is cancelled lets it come to its
    end: a driver with a thread forgets what its thread has opened."""
    held_connections: ClassVar[int]
    """How many connections a store keeps checked out at most, besides a single writer's (measured)."""
    reads_ahead: ClassVar[bool]
    """Whether fetching the next page while the current one is decoded is faster (measured)."""
    migrates_unasked: ClassVar[bool]
    """Whether `initialize()` may upgrade a database that holds data without being asked to."""
    creates_at_once: ClassVar[bool] = False
    """Whether the statements of the tables make the newest schema. PostgreSQL has functions beside them, which its scripts make."""
    supports_row_level_security: ClassVar[bool] = False
    """Whether the database has roles, and policies that restrict them to rows."""
    listens: bool = True
    """Whether `watch` notices the appends of other processes."""
    tells: bool = False
    """Whether a statement that moves a checkpoint tells those of other processes who wait for it; see
    `esource.tables.constructs.tell_waiters`."""
    supports_schemas: ClassVar[bool] = False
    """Whether a database can have several logs, each in a schema of its own."""
    supports_partitions: ClassVar[bool] = False
    """Whether a table can be made of parts."""
    append_lock_scripts: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Brings a log to each way of drawing its positions, by the value of ``append_lock``, where there is such a choice."""
    append_lock: str = "advisory"
    """The way in which the store wants its log to draw them."""
    tag_triggers: ClassVar[Sequence[str]] = ()
    """Makes the triggers that keep the index of the tags, in a schema that is made at once."""
    default_options: ClassVar[Mapping[str, Any]]
    """`create_engine` options for a database that is known only by its URL."""
    forgetful_options: ClassVar[Mapping[str, Any]] = {}
    """Options with which what was overwritten or deleted does not linger in files, as far as that goes."""
    sqlalchemy_dialect: Dialect

    def compiled(self, statement: Statement) -> Compiled:
        """A statement as this database's driver takes it."""
        return statement.on(self.sqlalchemy_dialect)

    @abstractmethod
    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        """An engine of our own on this database. No I/O."""

    @abstractmethod
    async def join_synchronous(self, connection: Any, call: Call, database: str, schema: str | None) -> Any:
        """`join` for a synchronous connection of the application's, SQLAlchemy's or the driver's own: a driver
        connection that works through it."""

    synchronous_driver: ClassVar[str]
    """The driver of the connections that `join_synchronous` takes, for messages."""

    @abstractmethod
    def is_of_driver(self, connection: object) -> bool:
        """Whether it is an open connection of that driver."""

    def works_in_caller(self, url: URL, options: Mapping[str, Any]) -> bool:
        """Whether the connections of such an engine work in the thread of their caller, and never wait for another."""
        return False

    def prepare(self, url: URL, *, read_only: bool) -> None:  # noqa: B027 - most databases need nothing
        """What must exist before a first connection to our own engine: a database file's folder, unless it is
        only for reading."""

    @abstractmethod
    def describe(self, url: URL) -> str:
        """The database's name for messages, without a password."""

    def schema_of(self, url: URL) -> str | None:
        """The schema that a URL names."""
        return None

    async def enter(  # noqa: B027 - most databases have no schemas
        self, driver: Any, schema: str | None, *, for_application: bool = False
    ) -> None:
        """Let a connection that several logs share work in the schema of one; None for where it began. Not inside a
        transaction.

        Args:
            driver: The connection.
            schema: The log's.
            for_application: Its code gets the connection, and may change the schema: ask nothing of what was noted.
        """

    def has_entered(self, driver: Any, schema: str | None) -> bool:
        """Whether a connection is known to work in the schema already. No I/O."""
        return True

    def shared_watcher(self, driver: Any, lock: asyncio.Lock, schema: str | None) -> Any:
        """A connection for `watch` that watches over other logs use, too: one at a time, each in its log's schema."""
        return driver

    @abstractmethod
    def fetch(self, driver: Any, text: str, arguments: Sequence[Any]) -> Awaitable[list[Any]]:
        """Run one reading statement in one hop or round trip; all rows."""

    @abstractmethod
    def write(
        self, driver: Any, text: str, arguments: Sequence[Any], *, commit: bool
    ) -> Awaitable[list[Any]]:
        """Run one writing statement in one hop or round trip; all rows it returns.

        With ``commit`` the statement is a transaction of its own; without, it belongs to the one that
        `begin` has opened on this connection.
        """

    @abstractmethod
    def append(self, driver: Any, plan: Plan, *, commit: bool) -> Awaitable[Written]:
        """Write a batch under the append lock: one hop or round trip, one transaction."""

    def busy_seconds(self, options: Mapping[str, Any]) -> float | None:
        """How long an engine with these options promises to wait for another writer; None if it promises nothing."""
        return None

    def require_usable(self, driver: Any, database: str) -> None:  # noqa: B027 - most databases are
        """Refuse a database that could not hold every event. Asked of each new connection. No I/O.

        Raises:
            DatabaseUnavailableError: it could not.
        """

    @abstractmethod
    async def begin(self, connection: AsyncConnection, driver: Any) -> AsyncTransaction:
        """Begin a write transaction on a connection of ours, whatever the engine's isolation level is: each statement
        in it sees what was committed before. SQLAlchemy's record of it, for `commit` and `roll_back`."""

    @abstractmethod
    async def begin_reading(self, connection: AsyncConnection, driver: Any) -> AsyncTransaction:
        """Begin a transaction in which everything that is read is of one moment, that of the first statement. It takes
        no lock that holds up a writer, as far as the database has such transactions."""

    @abstractmethod
    async def join(self, connection: AsyncConnection, database: str, schema: str | None) -> Any:
        """The driver's connection, inside the transaction of the application's own on SQLAlchemy's connection.

        Raises:
            InvalidOptionError: the connection is in AUTOCOMMIT, so that it can have none; or it works in another schema
                than the one that is given.
        """

    @abstractmethod
    async def commit(self, transaction: AsyncTransaction, driver: Any) -> bool:
        """End a transaction that `begin` has begun; whether it is stored. It is not if the database has given it up
        after an error in it, even if that was caught.

        Raises what refuses a commit that could not be kept.
        """

    @abstractmethod
    async def roll_back(self, transaction: AsyncTransaction, driver: Any) -> None:
        """End a transaction of ours, also after a commit that failed, so that nothing of it is stored."""

    @abstractmethod
    async def run(self, driver: Any, text: str) -> None:
        """Run a statement that has no parameters and returns nothing, in the open transaction."""

    @abstractmethod
    def is_in_transaction(self, driver: Any) -> bool:
        """Whether the connection is inside a transaction, even in one that was aborted. No I/O."""

    @abstractmethod
    async def abandon(self, driver: Any) -> None:
        """Leave whatever transaction the connection is inside of, before it goes back to its pool."""

    async def before_schema_change(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """What a connection needs before the transaction of a migration begins on it."""

    async def after_schema_change(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """Undo, after that transaction, what `before_schema_change` did."""

    async def take_back(self, driver: Any, schema: str | None) -> None:  # noqa: B027 - most databases need nothing
        """Undo what the application may have set on a connection that it was lent, so that the connection works in the schema
        again that is given, if one is."""

    async def before_reading(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """What lets a connection refuse to write, where `begin_reading` does not."""

    async def after_reading(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """Undo, after that transaction, what `before_reading` did."""

    @abstractmethod
    async def missing_tables(self, names: Sequence[str], driver: Any) -> list[str]:
        """Those of the tables that a connection does not find, whatever its role may do with them."""

    async def hidden_checkpoints(self, driver: Any, name: str) -> list[tuple[Any, ...]]:
        """The checkpoints of a projection of all tenants that the role of one tenant does not see: name, position, the
        worker that holds the lease now, and active version."""
        return []

    @abstractmethod
    async def lock_schema(self, connection: AsyncConnection, schema: str | None) -> None:
        """Let no other process migrate until the open transaction ends. A schema that the URL names is made."""

    @abstractmethod
    async def lock_log(self, driver: Any, schema: str | None = None) -> None:
        """Take the append lock until the open transaction ends, and see what was committed before.

        Raises:
            InvalidOptionError: the connection works in another schema than the one that is given, if one is.
        """

    async def append_lock_of(self, driver: Any) -> str:
        """In which way the log draws its positions."""
        return self.append_lock

    @abstractmethod
    async def watch(self, driver: Any, watched: Watched) -> None:
        """Tell of what other connections commit, until the connection is lost."""

    @abstractmethod
    def names(self, values: Sequence[Any]) -> Any:
        """The parameter value of `constructs.member_of`."""

    @abstractmethod
    def is_alive(self, driver: Any) -> bool:
        """Whether the connection can still be used. No I/O."""

    async def settle(self, driver: Any) -> None:  # noqa: B027 - SQLite has nothing to do
        """After a statement that was cancelled: the connection serves the next one, or `is_alive` says that it
        does not."""

    async def end_wait(self, driver: Any, waiting: Any, holder: Any, seconds: float) -> bool:
        """End, with an error, the statement that waits on one connection for what a transaction on another one holds, if
        that has run no statement for so many seconds; whether there was one. Asked through a third connection."""
        return False

    def break_off(self, driver: Any) -> None:  # noqa: B027 - SQLite has nothing to do
        """Let go of a lost connection without telling the server. No I/O."""

    @abstractmethod
    def classify(self, error: BaseException) -> Failure:
        """What a driver's error means for a retry."""

    @abstractmethod
    def explain(self, error: BaseException, database: str) -> EventSourceError | None:
        """Our error for a driver's error; None for what is no driver's error."""

    @abstractmethod
    def lacks_column(self, error: BaseException) -> bool:
        """Whether a driver's error says that a table is there, and one of its columns is not."""

    def translate(self, error: BaseException, database: str) -> EventSourceError | None:
        """`explain`, with a column that an older schema lacks told from tables that are not there."""
        explained = self.explain(error, database)
        cause = driver_error(error)
        if isinstance(explained, SchemaMissingError) and self.lacks_column(cause):
            return SchemaOutdatedError(database, None, None, str(cause))
        return explained

    @contextmanager
    def errors(self, database: str) -> Iterator[None]:
        """The one door through which driver errors pass to the caller, as ours."""
        try:
            yield
        except EventSourceError:
            raise
        except Exception as error:
            translated = self.translate(error, database)
            if translated is None:
                raise
            raise translated from driver_error(error)
