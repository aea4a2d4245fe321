"""`esource.store.doors` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from os import PathLike
from typing import Any, Literal

from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from typing_extensions import Self

from esource.checks import STANDARD_LIMITS, Limits
from esource.codec.decoding import UnknownEvents
from esource.database.database import RETRY_SECONDS
from esource.domain.registry import EventRegistry
from esource.privacy.keys import KeyStore
from esource.store import doors as asynchronous
from esource.store.doors import Execution
from esource.sync.event_store import EventStore


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

    _target: asynchronous.SQLiteEventStore

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
        execution: Execution = "caller",
        outbox_enabled: bool | None = None,
        unknown_events: UnknownEvents = "raise",
        key_store: KeyStore | None = None,
        limits: Limits = STANDARD_LIMITS,
    ) -> None:
        self._hold(
            asynchronous.SQLiteEventStore,
            (database),
            event_registry,
            wal_mode=wal_mode,
            busy_timeout=busy_timeout,
            enable_tracing=enable_tracing,
            uuid_fields=uuid_fields,
            string_id_fields=string_id_fields,
            auto_detect_uuid=auto_detect_uuid,
            synchronous=synchronous,
            read_only=read_only,
            execution=execution,
            outbox_enabled=outbox_enabled,
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
        return self._target.database

    @property
    def wal_mode(self) -> bool:
        """Whether write-ahead logging is in effect; never in memory."""
        return self._target.wal_mode

    @property
    def busy_timeout(self) -> int:
        """How long a write waits for another writer, in milliseconds."""
        return self._target.busy_timeout


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

    _target: asynchronous.PostgreSQLEventStore

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
        self._hold(
            asynchronous.PostgreSQLEventStore,
            (database),
            event_registry,
            outbox_enabled=outbox_enabled,
            enable_tracing=enable_tracing,
            uuid_fields=uuid_fields,
            string_id_fields=string_id_fields,
            auto_detect_uuid=auto_detect_uuid,
            unknown_events=unknown_events,
            key_store=key_store,
            limits=limits,
            schema=schema,
            transaction_pooling=transaction_pooling,
            append_lock=append_lock,
            notify=notify,
            read_only=read_only,
            retry_seconds=retry_seconds,
            **engine_options,
        )

    @property
    def database(self) -> str:
        """The URL, with the password masked."""
        return self._target.database
