"""`esource.store.store` for programs without an event loop."""

# Written by tests/support/synchronous.py: change the asynchronous side, and run it again.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from uuid import UUID

from typing_extensions import Self

from esource.checks import STANDARD_LIMITS, Limits
from esource.codec.decoding import UnknownEvents
from esource.database.database import Database
from esource.database.wakeup import POLL_SECONDS
from esource.domain.events import DomainEvent
from esource.domain.queries import AppendCondition, Query
from esource.domain.registry import EventRegistry
from esource.log.streams import AppendResult, EventStream, ExpectedVersion, ReadOptions, StoredEvent
from esource.privacy.keys import KeyStore
from esource.store import store as asynchronous
from esource.sync.connection import Connection, Joinable
from esource.sync.deciding import Decisions
from esource.sync.driven import unwrapped
from esource.sync.lifecycle import Lifecycle
from esource.sync.subscription import Subscription
from esource.sync.transaction import Transaction
from esource.sync.waiting import Waits


class EventStore(Lifecycle, Decisions, Waits):
    """Appends events to streams and reads them back: by stream, by type, or all in one global order.

    Made by one of its doors: `SQLiteEventStore`, `PostgreSQLEventStore`, `InMemoryEventStore`, or
    `open_store`. Use it in ``with``; it connects on entry (or on first use) and gives everything
    back on exit. Any number of threads may share it.
    """

    _target: asynchronous.EventStore

    def __init__(
        self,
        database: Database,
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
    ) -> None:
        self._hold(
            asynchronous.EventStore,
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
        )

    @property
    def name(self) -> str:
        """What messages call the database, for example ``SQLite database events.db``. It holds no password."""
        return self._target.name

    def __repr__(self) -> str:
        return repr(self._target)

    @property
    def event_registry(self) -> EventRegistry:
        return self._target.event_registry

    @property
    def outbox_enabled(self) -> bool:
        """Whether an outbox row is written with every event. Where nothing was said, the database decides with
        the first append, and is asked again every 10 seconds while it has no outbox."""
        return self._target.outbox_enabled

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant that the store is bound to; None for the whole store."""
        return self._target.tenant_id

    def for_tenant(self, tenant_id: UUID) -> Self:
        """This store, bound to one tenant: a light view on the same connections, good wherever a store is.

        It reads only the tenant's events; it gives the tenant's id to events written without one, and
        refuses those of another before anything is written. So do the repositories and transactions made
        from it. A stream belongs to the tenant of its first event: to any other it is empty, and refuses
        to be appended to. `esource.log.tenants` says what is guaranteed. No I/O.

        Raises:
            TenantMismatchError: the store is bound to another tenant already.
        """
        return self._around(self._target.for_tenant(tenant_id), self)

    def append_events(
        self,
        aggregate_id: UUID,
        aggregate_type: str,
        events: Sequence[DomainEvent],
        expected_version: int = ExpectedVersion.ANY,
        *,
        condition: AppendCondition | None = None,
        tags: Iterable[str] = (),
        connection: Joinable | None = None,
    ) -> AppendResult:
        """Append events to one stream: all of them or none, visible at once, after what came before.

        With ``connection``, or inside `transaction`, the append belongs to that transaction; the result
        is then valid once it commits, and other appends wait for it until then.

        Args:
            aggregate_id: The stream's aggregate.
            aggregate_type: Its type, at most 255 characters.
            events: In order. An empty sequence writes nothing.
            expected_version: The stream's version, an exact int or one of `ExpectedVersion`.
            condition: What must not have come meanwhile, beside the version: as `read_query` returns it.
            tags: Tags of all of these events, beside those that their classes declare.
            connection: A transaction of the application's own on the same database. On PostgreSQL use the
                isolation level READ COMMITTED: a stricter one does not see what was appended since its first
                statement, so that the append fails.

        Raises:
            OptimisticLockError: the stream is at another version, or one that the condition names.
            AppendConditionError: an event has come that the condition excludes.
            StreamClosedError: the stream is closed.
            DuplicateEventError: an event id is stored already, elsewhere or with other content.
            InvalidEventError: an event belongs to another stream, may not be stored, or is beyond a limit.
            TenantMismatchError: the store is bound to a tenant; an event or the stream is not that tenant's.
            KeyStoreMissingError: an event has personal fields, and the store has no key store.
            SubjectErasedError: an event has personal fields of a person whose key was destroyed.
            DatabaseError: the database refused or could not be reached; nothing was written.
        """
        return self._call(
            self._target.append_events(
                aggregate_id,
                aggregate_type,
                events,
                expected_version,
                condition=condition,
                tags=tags,
                connection=unwrapped(connection),
            )
        )

    def close_stream(
        self,
        aggregate_id: UUID,
        aggregate_type: str,
        expected_version: int = ExpectedVersion.STREAM_EXISTS,
        *,
        reason: str | None = None,
        connection: Joinable | None = None,
    ) -> AppendResult:
        """Append a `StreamClosed` event, after which every append to the stream is refused, for ever.

        The stream can be read as before. Closing it again changes nothing, whatever version is expected:
        that returns the first result, marked idempotent.

        Args:
            aggregate_id: The stream's aggregate.
            aggregate_type: Its type.
            expected_version: As for an append; an existing stream unless said otherwise. With ``ANY`` or
                ``NO_STREAM`` a stream without events can be closed, so that it is never begun.
            reason: Why, for people.
            connection: A transaction of the application's own, as for an append.

        Raises:
            OptimisticLockError: the stream is at another version.
            TenantMismatchError: the store is bound to a tenant, and the stream is not that tenant's.
            DatabaseError: the database refused or could not be reached; nothing was written.
        """
        return self._call(
            self._target.close_stream(
                aggregate_id,
                aggregate_type,
                expected_version,
                reason=reason,
                connection=unwrapped(connection),
            )
        )

    def transaction(self) -> AbstractContextManager[Transaction]:
        """One transaction for everything that the running thread does with this store inside the block.

        Appends, and the checkpoint, outbox, dead-letter and snapshot repositories of the yielded
        `Transaction`, commit together or not at all, with whatever the application writes through its
        ``connection``. Reads inside see what was written inside. An exception rolls everything back.

        A transaction inside another is a savepoint, and a savepoint has no owner: while one is open,
        whatever another task of the same transaction writes belongs to it, too, and vanishes if it is
        rolled back, even where its result was returned. Such tasks cannot be made to wait, because the
        savepoint's own task may be waiting for them. Open savepoints where no other task writes.

        The log stays locked from the first append to the end: keep it short, and never in it what a task outside
        of it writes. Each of the two waits for the other then, until that write fails with `DatabaseBusyError`: after
        ``busy_timeout`` on SQLite; on PostgreSQL when the transaction has run no statement for 5 seconds. Tasks that
        are started inside the block are inside of it.

        Raises:
            DatabaseBusyError: another writer held the lock for too long.
        """
        return self._block(self._target.transaction(), Transaction._around)

    def reading(self) -> AbstractContextManager[Connection]:
        """SQLAlchemy's connection, to query a read model: everything inside the block is of one moment.

        That is the moment of the first query. What the running thread reads of the store inside is of this moment, too.
        Appends go on meanwhile, however long the block takes. Only where no reader can work beside a writer they wait, for
        ``busy_timeout`` at most: in memory, and in a file with ``wal_mode=False``. It works with ``read_only=True``.
        What runs on the connection is your own SQL: no tenant restricts it. Inside a `transaction` it is that
        transaction. While a block is open, the write-ahead log of SQLite grows, and PostgreSQL keeps old rows.

        Raises:
            DatabaseReadOnlyError: something inside writes; nothing of it was written.
            StoreClosedError: the store was closed meanwhile.
        """
        return self._block(self._target.reading(), Connection._around)

    def get_events(
        self,
        aggregate_id: UUID,
        aggregate_type: str | None = None,
        from_version: int = 0,
        from_timestamp: datetime | None = None,
        to_timestamp: datetime | None = None,
    ) -> EventStream:
        """The events of one aggregate, decoded, in order; an empty stream if there are none.

        Args:
            aggregate_id: The aggregate.
            aggregate_type: Its type; may be left out when only one type uses the id.
            from_version: Only events past this version, exclusively.
            from_timestamp: Only events that occurred at or after this moment.
            to_timestamp: Only events that occurred at or before this moment.

        Raises:
            InvalidOptionError: the id is not a UUID, or the type was left out and several types use the id.
            UnknownEventTypeError: no class is registered for an event's type.
            EventDecodeError: an event does not fit its class.
        """
        return self._call(
            self._target.get_events(aggregate_id, aggregate_type, from_version, from_timestamp, to_timestamp)
        )

    def get_events_by_type(
        self, aggregate_type: str, tenant_id: UUID | None = None, from_timestamp: datetime | None = None
    ) -> list[DomainEvent]:
        """All events of one aggregate type, decoded, in global order."""
        return self._call(self._target.get_events_by_type(aggregate_type, tenant_id, from_timestamp))

    def read_stream(self, stream_id: str, options: ReadOptions | None = None) -> Iterator[StoredEvent]:
        """One stream's events with their places, page by page.

        Args:
            stream_id: ``<aggregate_id>:<aggregate_type>``, as `StoredEvent.stream_id` says it.
            options: What to read; positions are versions here.
        """
        return self._iterate(self._target.read_stream(stream_id, options))

    def read_all(self, options: ReadOptions | None = None) -> Iterator[StoredEvent]:
        """The whole log in global order, page by page, with bounded memory.

        After an error of the database, or a cancellation as by ``asyncio.wait_for``, the iterator goes on with the
        next event when it is asked again; so does that of `read_stream`.
        """
        return self._iterate(self._target.read_all(options))

    def subscribe(
        self,
        from_position: int | None = None,
        *,
        checkpoint: str | None = None,
        event_types: Iterable[str | type[DomainEvent]] | None = None,
        aggregate_types: Iterable[str] | None = None,
        query: Query | None = None,
        tenant_id: UUID | None = None,
        partition: tuple[int, int] | None = None,
        live: bool = True,
        poll_seconds: float = POLL_SECONDS,
    ) -> Subscription:
        """Follow the log: everything past a position, then what is appended, in order, each event once.

        Args:
            from_position: Start past this global position; 0, the start of the log, if left out.
            checkpoint: Or start where the checkpoint of this name is; see `Subscription.save`.
            event_types: Only these event types: names, or classes, which stand for the classes derived from them, too.
            aggregate_types: Only these aggregate types.
            query: Only the events that it selects; it says all types itself.
            tenant_id: Only this tenant's events.
            partition: ``(number, of)``: only streams of that partition, to share the work between workers.
            live: Whether to wait for new events at the end of the log; else the iteration ends there.
            poll_seconds: How long to wait for a wake-up before looking again, in seconds.

        Raises:
            InvalidOptionError: options that contradict each other.
            TenantMismatchError: the store is bound to another tenant.
        """
        return Subscription._around(
            self._target.subscribe(
                from_position,
                checkpoint=checkpoint,
                event_types=event_types,
                aggregate_types=aggregate_types,
                query=query,
                tenant_id=tenant_id,
                partition=partition,
                live=live,
                poll_seconds=poll_seconds,
            ),
            self,
        )

    def event_exists(self, event_id: UUID) -> bool:
        """Whether an event with this id is stored. One query."""
        return self._call(self._target.event_exists(event_id))

    def get_stream_version(self, aggregate_id: UUID, aggregate_type: str) -> int:
        """The version of the stream's last event; 0 if it has none. One query, no events loaded."""
        return self._call(self._target.get_stream_version(aggregate_id, aggregate_type))

    def is_closed(self, aggregate_id: UUID, aggregate_type: str) -> bool:
        """Whether the stream was closed with `close_stream`. One query."""
        return self._call(self._target.is_closed(aggregate_id, aggregate_type))

    def get_global_position(self) -> int:
        """The position of the last event in the log; 0 if there is none. One query."""
        return self._call(self._target.get_global_position())
