"""The seam between the store and a database: compiled statements, the append plan, and `Backend`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import String, Uuid
from sqlalchemy.exc import DBAPIError

from esource.arguments import check_id
from esource.errors import (
    DatabaseUnavailableError,
    EventSourceError,
    InvalidEventError,
    InvalidOptionError,
    SchemaMissingError,
    SchemaOutdatedError,
)
from esource.storable import check_text
from esource.types import Identifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Dialect, Executable
    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.types import TypeEngine

    from esource.dialect.inspection import Inspection
    from esource.dialect.moving import Moving
    from esource.encoding import EncodedEvent

Failure = Literal["unique", "lost", "again", "other"]
"""What a driver's error means for a retry: a unique constraint refused a row; the connection is gone
and the outcome unknown; the database asks to try again (serialization failure, deadlock); none of these."""


def _check_id(name: str, value: Any) -> Any:
    """An id, or its text, which only PostgreSQL would refuse if it is none."""
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(value) if isinstance(value, str) else check_id(name, value)
    except ValueError:
        return check_id(name, value)


def _check_words(name: str, value: Any) -> Any:
    """Text, if a database could hold it: only PostgreSQL refuses a NUL, only SQLite's driver raises an error of
    another kind for half a surrogate pair."""
    if value is None:
        return value
    try:
        return check_text(name, value, limit=None)
    except InvalidEventError as error:
        raise InvalidOptionError(str(error)) from None


def _check_of(kind: TypeEngine[Any]) -> Callable[[str, Any], Any] | None:
    if isinstance(kind, (Identifier, Uuid)):
        return _check_id
    return _check_words if isinstance(kind, String) else None


def checked_names(values: Sequence[Any]) -> list[Any]:
    """The values of a list parameter: names that a database could hold, ids and keys.

    Raises:
        InvalidOptionError: something else.
    """
    return [value if isinstance(value, (UUID, int)) else _check_words("a name", value) for value in values]


class Compiled(NamedTuple):
    """A statement as one database's driver takes it."""

    text: str
    parameters: tuple[tuple[str, Callable[[Any], Any] | None, Callable[[str, Any], Any] | None], ...]
    """Names in the driver's order, each with the type's encoder where it needs one, and what refuses a value
    that one database would take and another would not."""
    constants: Mapping[str, Any]
    """Values that the statement itself brought along."""
    decoders: tuple[Callable[[Any], Any] | None, ...]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """The positional arguments of one execution.

        Raises:
            InvalidOptionError: an id that is none, or text that not every database can compare or hold.
        """
        constants = self.constants
        arguments = []
        for name, encode, check in self.parameters:
            value = constants[name] if name in constants else values[name]
            if check is not None:
                value = check(name, value)
            arguments.append(value if encode is None else encode(value))
        return arguments

    def decode(self, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Driver rows as Python values of the columns' types."""
        return [
            tuple(
                value if read is None else read(value) for value, read in zip(row, self.decoders, strict=True)
            )
            for row in rows
        ]


class Statement:
    """A SQLAlchemy Core statement, compiled once per database and executed as text ever after.

    Core's cost per execution (cached 25-30 µs, built anew 150 µs) is larger than the database's own
    work for these statements.
    """

    def __init__(self, construct: Executable) -> None:
        self.construct = construct
        self._compiled: dict[str, Compiled] = {}

    def on(self, backend: Backend) -> Compiled:
        """This statement for that database."""
        compiled = self._compiled.get(backend.name)
        if compiled is None:
            compiled = self._compiled[backend.name] = self._compile(backend.sqlalchemy_dialect)
        return compiled

    def _compile(self, dialect: Dialect) -> Compiled:
        compiled: Any = self.construct.compile(  # type: ignore[attr-defined]
            dialect=dialect, compile_kwargs={"render_postcompile": True}
        )
        columns = getattr(self.construct, "exported_columns", ())
        kinds = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        return Compiled(
            str(compiled),
            tuple(
                (name, kinds[name].bind_processor(dialect), _check_of(kinds[name]))
                for name in compiled.positiontup or ()
            ),
            {name: bind.value for name, bind in compiled.binds.items() if not bind.required},
            tuple(column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns),
        )


class Switches(NamedTuple):
    """What a server, or what stands before it, may lack of PostgreSQL; see `PostgreSQLEventStore`."""

    append_lock: Literal["advisory", "row"] = "advisory"
    notify: bool = True
    transaction_pooling: bool = False


STANDARD = Switches()


class StreamWrite(NamedTuple):
    """One stream's part in a batch: what it must look like before its rows are added."""

    aggregate_id: UUID
    aggregate_type: str
    expected_version: int
    first_event_id: UUID
    """Looked up when the version does not fit: an append repeated after a lost answer is no conflict."""


class Plan(NamedTuple):
    """A batch of appends, decided as far as it can be without knowing the streams' versions.

    Row ``(stream, step, event)`` becomes version ``step`` past what the stream has.
    """

    streams: list[StreamWrite]
    rows: list[tuple[int, int, EncodedEvent]]
    outbox: bool


class Written(NamedTuple):
    """What became of a plan, stream by stream and row by row."""

    versions: Sequence[int]
    """Each stream's version before the batch; negative for one that is closed, and accepts nothing."""
    accepted: Sequence[bool]
    """Whether the stream was at its expected version; the rows of the others were not written."""
    known: Sequence[bool]
    """For streams that were not: whether the first event id is stored already."""
    positions: Sequence[int]
    """Global positions of the written rows, in the plan's order."""


class Backend(ABC):
    """What a database must provide. One instance may serve many stores; it holds no connections.

    A *driver* connection is the raw one under SQLAlchemy's pool: `aiosqlite.Connection` or
    `asyncpg.Connection`.
    """

    name: ClassVar[str]
    """SQLAlchemy's name of the dialect, and OpenTelemetry's ``db.system``."""
    concurrent_writers: ClassVar[bool]
    """Whether several connections of one process may write at the same time."""
    held_connections: ClassVar[int]
    """How many connections a store keeps checked out at most, besides a single writer's (measured)."""
    reads_ahead: ClassVar[bool]
    """Whether fetching the next page while the current one is decoded is faster (measured)."""
    migrates_unasked: ClassVar[bool]
    """Whether `initialize()` may upgrade a database that holds data without being asked to."""
    supports_row_level_security: ClassVar[bool] = False
    """Whether the database has roles, and policies that restrict them to rows."""
    listens: bool = True
    """Whether `watch` notices the appends of other processes."""
    supports_partitions: ClassVar[bool] = False
    """Whether a table can be made of parts."""
    append_lock_script: ClassVar[Sequence[str]] = ()
    """Makes the row that ``append_lock="row"`` locks, where there is such a choice."""
    default_options: ClassVar[Mapping[str, Any]]
    """`create_engine` options for a database that is known only by its URL."""
    forgetful_options: ClassVar[Mapping[str, Any]] = {}
    """Options with which what was overwritten or deleted does not linger in files, as far as that goes."""
    sqlalchemy_dialect: Dialect

    @abstractmethod
    def create_engine(self, url: URL, **options: Any) -> AsyncEngine:
        """An engine of our own on this database. No I/O."""

    def prepare(self, url: URL, *, read_only: bool) -> None:  # noqa: B027 - most databases need nothing
        """What must exist before a first connection to our own engine: a database file's folder, unless it is
        only for reading."""

    @abstractmethod
    def describe(self, url: URL) -> str:
        """The database's name for messages, without a password."""

    @abstractmethod
    async def fetch(self, driver: Any, text: str, arguments: Sequence[Any]) -> list[Any]:
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

    @abstractmethod
    async def begin(self, connection: AsyncConnection) -> None:
        """Make sure that a write transaction is open on SQLAlchemy's connection."""

    @abstractmethod
    async def begin_snapshot(self, connection: AsyncConnection) -> None:
        """Let everything that is read in the transaction just begun be of one moment."""

    def before_commit(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """Refuse, by raising, a commit that could not be kept. No I/O but a look at the file's name."""

    async def abandon(self, driver: Any) -> None:  # noqa: B027 - most databases need nothing
        """Leave the transaction that a failed commit may have left open."""

    @abstractmethod
    async def lock_schema(self, connection: AsyncConnection) -> None:
        """Let no other process migrate until the open transaction ends."""

    @abstractmethod
    async def lock_log(self, driver: Any) -> None:
        """Take the append lock until the open transaction ends, and see what was committed before."""

    @abstractmethod
    async def watch(self, driver: Any, wake: Callable[[], None], ready: Callable[[], None]) -> None:
        """Call ``wake`` whenever another connection may have appended, until the connection is lost.

        ``ready`` is called when the watch has begun: what was appended before is not told.
        """

    @abstractmethod
    def moving(self) -> Moving:
        """What moving a whole store asks of this database."""

    @abstractmethod
    def inspection(self) -> Inspection:
        """What this database can tell of itself."""

    @abstractmethod
    def names(self, values: Sequence[Any]) -> Any:
        """The parameter value of `constructs.member_of`."""

    @abstractmethod
    def is_alive(self, driver: Any) -> bool:
        """Whether the connection can still be used. No I/O."""

    async def settle(self, driver: Any) -> None:  # noqa: B027 - SQLite has nothing to do
        """After a statement that was cancelled: the connection serves the next one, or `is_alive` says that it
        does not."""

    def break_off(self, driver: Any) -> None:  # noqa: B027 - likewise
        """Let go of a connection that was lost, without a word to whoever was at its other end. No I/O."""

    @abstractmethod
    def classify(self, error: BaseException) -> Failure:
        """What a driver's error means for a retry."""

    @abstractmethod
    def explain(self, error: BaseException, database: str) -> EventSourceError | None:
        """Our error for a driver's error; None for what is no driver's error."""

    def translate(self, error: BaseException, database: str) -> EventSourceError | None:
        """`explain`, with a column that an older schema lacks told from tables that are not there."""
        explained = self.explain(error, database)
        cause = driver_error(error)
        if isinstance(explained, SchemaMissingError) and _lacks_column(cause):
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


def driver_error(error: BaseException) -> BaseException:
    """The driver's own exception behind SQLAlchemy's wrappers and ours."""
    if isinstance(error, EventSourceError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error.__cause__ if type(error).__module__.startswith("sqlalchemy.") and error.__cause__ else error


def _lacks_column(error: BaseException) -> bool:
    """Whether a table was there, but not one of its columns: PostgreSQL has a code for it, SQLite words."""
    if getattr(error, "sqlstate", None) == "42703":
        return True
    return "no such column" in str(error) or "has no column named" in str(error)


_SHOWN_OPTIONS = ("host", "port", "user", "database", "target_session_attrs")


def without_password(url: URL) -> str:
    """The URL for messages: the password masked, and of the options only those that are no secret."""
    options = [name for name in url.query if name not in _SHOWN_OPTIONS]
    return url.difference_update_query(options).render_as_string(hide_password=True)


def unavailable(database: str, error: BaseException | str, remedy: str) -> DatabaseUnavailableError:
    """The error for a database that cannot be used, in one form."""
    return DatabaseUnavailableError(f"{database}: {error}. {remedy}")
