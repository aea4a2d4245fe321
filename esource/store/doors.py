"""The ways into a store: a SQLite file, a PostgreSQL server, or whatever a URL names."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, Literal

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from typing_extensions import Self

from esource.checks import LARGEST_INTEGER, STANDARD_LIMITS, Limits, check_choice, check_seconds, check_whole
from esource.codec.decoding import UnknownEvents
from esource.database.database import RETRY_SECONDS, Database
from esource.database.sources import database_of
from esource.dialect.backend import Switches
from esource.dialect.errors import without_password
from esource.dialect.sqlite.url import NO_SCHEMAS
from esource.dialect.urls import backend_for_url, in_schema, parse_url
from esource.domain.registry import EventRegistry
from esource.errors import InvalidOptionError
from esource.privacy.keys import KeyStore
from esource.store.store import EventStore

Execution = Literal["thread", "caller"]
"""Where the connections to a SQLite file work: each in a thread of its own, or in the thread of its caller."""


class SQLiteEventStore(EventStore):
    """The event store in a SQLite file, or in memory with ``":memory:"``.

    Constructing it does no I/O. Any number of stores and processes may use one file; one writes at a
    time, and the others wait up to the busy timeout.

    Args:
        database: Path of the file, or ``":memory:"``; ``~`` at its beginning is the home folder. A missing folder is
            created.
        event_registry: Which class an event type is decoded with; the default registry if left out.
        wal_mode: Write-ahead logging, so that readers go on during a commit; ignored in memory.
        busy_timeout: How long a write waits for another writer, in milliseconds.
        enable_tracing: OpenTelemetry spans, if it is installed.
        uuid_fields: Names that hold UUIDs where no type is declared.
        string_id_fields: Names ending in ``_id`` that do not.
        auto_detect_uuid: Whether other names ending in ``_id`` do.
        synchronous: ``FULL``: a committed event survives a power cut. ``NORMAL`` is faster; a power cut
            may take the last commits, never the file.
        read_only: Only read: no file is created or changed, and a file that may not be written is read, too.
            Writing raises `DatabaseReadOnlyError`.
        execution: ``thread``: each connection has a thread, and the event loop never waits for the disk. ``caller``: it
            works in the caller's thread, which is two to four times as fast, and each commit holds up the loop
            until the disk has it. Right for a program that has no one to keep waiting. In memory it is always so.
        outbox_enabled: Write an outbox row with every event, in the same transaction. Left out, the store does so if
            the outbox has such rows, so that a script does not append what is never published.
        unknown_events: What a reader does with event types that no class is registered for.
        key_store: The keys of personal fields (`esource.privacy`); closing the store does not close it.
        limits: How much may be written at once.
    """

    def __init__(
        self,
        database: str | PathLike[str],
        event_registry: EventRegistry | None = None,
        *,
        wal_mode: bool = True,
        busy_timeout: int = 5000,
        enable_tracing: bool = True,
        uuid_fields: set[str] | None = None,
        string_id_fields: set[str] | None = None,
        auto_detect_uuid: bool = True,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        read_only: bool = False,
        execution: Execution = "thread",
        outbox_enabled: bool | None = None,
        unknown_events: UnknownEvents = "raise",
        key_store: KeyStore | None = None,
        limits: Limits = STANDARD_LIMITS,
    ) -> None:
        path = fspath(database) if isinstance(database, PathLike) else database
        if not isinstance(path, str):
            raise InvalidOptionError(f"database must be a path as text, not {type(path).__name__}")
        if not path:
            raise InvalidOptionError('database must be a path or ":memory:", not an empty text')
        if "://" in path or path.startswith("sqlite:"):  # the rest may hold a password
            raise InvalidOptionError('database must be a path or ":memory:"; open_store takes a URL')
        check_whole("busy_timeout (milliseconds)", busy_timeout, most=LARGEST_INTEGER)
        check_choice("synchronous", synchronous, ("FULL", "NORMAL"))
        self._path = path
        self._wal_mode = wal_mode and path != ":memory:"
        self._busy_timeout = busy_timeout
        super().__init__(
            Database.from_url(
                URL.create("sqlite", database=path),
                wal_mode=self._wal_mode,
                busy_timeout=busy_timeout,
                synchronous=synchronous,
                read_only=read_only,
                execution=execution,
            ),
            event_registry,
            outbox_enabled=outbox_enabled,
            enable_tracing=enable_tracing,
            uuid_fields=uuid_fields,
            string_id_fields=string_id_fields,
            auto_detect_uuid=auto_detect_uuid,
            unknown_events=unknown_events,
            key_store=key_store,
            limits=limits,
        )

    @classmethod
    def with_strict_uuid_detection(
        cls, database: str | PathLike[str], uuid_fields: set[str] | None = None, **options: Any
    ) -> Self:
        """A store in which only these names hold UUIDs where no type is declared."""
        return cls(database, uuid_fields=uuid_fields, auto_detect_uuid=False, **options)

    @property
    def database(self) -> str:
        """The path, as given."""
        return self._path

    @property
    def wal_mode(self) -> bool:
        """Whether write-ahead logging is in effect; never in memory."""
        return self._wal_mode

    @property
    def busy_timeout(self) -> int:
        """How long a write waits for another writer, in milliseconds."""
        return self._busy_timeout


class PostgreSQLEventStore(EventStore):
    """The event store on a PostgreSQL server (13 or newer).

    Args:
        database: A URL, an `AsyncEngine`, or an `async_sessionmaker` bound to one. A store that is given
            a URL owns its engine; an engine that it is given stays yours to dispose of.
        event_registry: Which class an event type is decoded with; the default registry if left out.
        outbox_enabled: Write an outbox row with every event, in the same transaction. Left out, the store does so if
            the outbox has such rows, so that a script does not append what is never published.
        enable_tracing: OpenTelemetry spans, if it is installed.
        schema: The schema of the log, where one database has several. The first migration makes it. The URL can name it
            as well (``?schema=``).
        transaction_pooling: A pooler stands before the server and lends its connections for a transaction at
            a time (PgBouncer with ``pool_mode = transaction``). Nothing is kept in a session then: no
            prepared statements, and no LISTEN, so that subscriptions poll.
        append_lock: What keeps the log in order: ``"advisory"``, a lock beside a sequence; or ``"row"``, a row that holds the last
            position, for servers without advisory locks and logs that move between servers. Positions have no holes then.
            `esource.schema.create_append_lock` makes the row; all stores on one log must have the same.
        notify: Whether appends call NOTIFY and subscriptions LISTEN; without, subscriptions poll.
        read_only: Only read: all transactions are READ ONLY. Writing raises `DatabaseReadOnlyError`.
        retry_seconds: How long appends and reads go on trying to reach a server that is away. A network that
            swallows everything is noticed only by the driver's ``connect_args={"timeout": …, "command_timeout": …}``.
        engine_options: For an engine of the store's own: keywords of `create_async_engine`.

    The other arguments are those of `SQLiteEventStore`.
    """

    def __init__(
        self,
        database: str | URL | AsyncEngine | async_sessionmaker[Any],
        event_registry: EventRegistry | None = None,
        *,
        outbox_enabled: bool | None = None,
        enable_tracing: bool = True,
        uuid_fields: set[str] | None = None,
        string_id_fields: set[str] | None = None,
        auto_detect_uuid: bool = True,
        unknown_events: UnknownEvents = "raise",
        key_store: KeyStore | None = None,
        limits: Limits = STANDARD_LIMITS,
        schema: str | None = None,
        transaction_pooling: bool = False,
        append_lock: Literal["advisory", "row"] = "advisory",
        notify: bool = True,
        read_only: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        **engine_options: Any,
    ) -> None:
        check_choice("append_lock", append_lock, ("advisory", "row"))
        switches = Switches(append_lock, notify, transaction_pooling)
        if isinstance(database, (str, URL)):
            url = in_schema(database, schema)
            source = Database.from_url(url, switches, read_only=read_only, **engine_options)
            if transaction_pooling and source.schema:
                raise InvalidOptionError(
                    f"{source.name}: behind a pooler that lends connections for a transaction no setting stays. Give each "
                    "schema a role of its own with ALTER ROLE ... SET search_path, and leave the schema out"
                )
        elif schema is not None:
            raise InvalidOptionError(
                "schema: set it on the engine itself, with connect_args={'server_settings': {'search_path': ...}}"
            )
        elif engine_options or read_only:
            names = [*engine_options, *(["read_only"] if read_only else [])]
            raise InvalidOptionError(f"{', '.join(names)}: set these on the engine itself")
        else:
            source = database_of(database, switches)
        source.retry_seconds = check_seconds("retry_seconds", retry_seconds)
        if source.backend.in_files:
            raise InvalidOptionError(f"PostgreSQLEventStore needs a postgresql:// URL, not {source.name}")
        super().__init__(
            source,
            event_registry,
            outbox_enabled=outbox_enabled,
            enable_tracing=enable_tracing,
            uuid_fields=uuid_fields,
            string_id_fields=string_id_fields,
            auto_detect_uuid=auto_detect_uuid,
            unknown_events=unknown_events,
            key_store=key_store,
            limits=limits,
        )

    @property
    def database(self) -> str:
        """The URL, with the password masked."""
        return without_password(self._database.url)


def open_store(
    url: str | URL | PathLike[str], event_registry: EventRegistry | None = None, **options: Any
) -> EventStore:
    """The store for a database URL: the one line that changes when moving to a server. No I/O.

    ``sqlite:///events.db``, ``sqlite://`` (in memory), ``postgresql://user@host/database``; a text without
    ``://``, or a `pathlib.Path`, is the path of a SQLite file. The options are those of the store's class.

    Raises:
        InvalidOptionError: a URL of another kind of database.
        MissingDriverError: the extra with the driver is not installed.
    """
    if isinstance(url, PathLike) or (isinstance(url, str) and "://" not in url):
        return SQLiteEventStore(url, event_registry, **_for_file(options))
    parsed = parse_url(url)
    if backend_for_url(parsed).in_files:
        return SQLiteEventStore(parsed.database or ":memory:", event_registry, **_for_file(options))
    return PostgreSQLEventStore(parsed, event_registry, **options)


def _for_file(options: dict[str, Any]) -> dict[str, Any]:
    if options.pop("schema", None) is not None:
        raise InvalidOptionError(NO_SCHEMAS)
    return options
