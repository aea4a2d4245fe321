"""What can be done to a store, each as one value that acts on the plain model and on a real store alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from adversity.model.plain import Plain, Refused, Stream
from esource import (
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventRegistry,
    EventStore,
    OutboxRepository,
    ReadDirection,
    ReadOptions,
    SnapshotStore,
    StreamClosed,
)
from esource.errors import EventSourceError, OptimisticLockError

STREAMS: list[Stream] = [(UUID(int=1), "Order"), (UUID(int=1), "Invoice"), (UUID(int=2), "Order'; --")]
TENANTS = [UUID(int=11), UUID(int=12)]
MOMENTS = [datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=n) for n in (0, 1, 1_000_000)]
NAMES = ["balances", "a'b\"c", "%s :x ?"]
HOSTILE: list[Any] = [
    "plain",
    "'; DROP TABLE events; --",
    '\\"{"}\\u0000',
    "naïve 日本 😀\u2028\u202e",
    "",
    2**80,
    -0.1,
    1e300,
    {"$ref": [None, True, {"id": "x" * 300}]},
    [[], {}, ""],
]
UNSTORABLE: list[Any] = ["a\x00b", "\ud800", float("nan"), {"deep": [float("inf")]}]

registry = EventRegistry()


class Noted(DomainEvent):
    aggregate_type: str = "Order"
    value: Any = None


class Counted(DomainEvent):
    aggregate_type: str = "Order"
    count: int = 0


registry.register(Noted)
registry.register(Counted)
half_registry = EventRegistry()
half_registry.register(Counted)


def make(stream: Stream, number: int, tenant: int | None, content: int) -> DomainEvent:
    """The event of a number, the same every time."""
    fields: dict[str, Any] = {
        "aggregate_id": stream[0],
        "aggregate_type": stream[1],
        "event_id": UUID(int=1000 + number),
        "correlation_id": UUID(int=0),
        "occurred_at": MOMENTS[number % len(MOMENTS)],
        "tenant_id": None if tenant is None else TENANTS[tenant],
    }
    if content == 0:
        return Counted(count=number, actor_id="me'", **fields)
    values = [*HOSTILE, *UNSTORABLE]
    return Noted(value=values[content % len(values)], metadata={"source": "test"}, **fields)


class Store:
    """A real store, and where its events are."""

    def __init__(self, name: str, store: Any, engine: Any = None) -> None:
        self.name = name
        self.store = store
        self.engine = engine
        """The application's own, on the same database."""

    async def places(self) -> list[int]:
        """The position of each event, in order."""
        return [stored.global_position async for stored in self.store.read_all()]

    def bound(self, tenant: int | None, policy: str | None = None) -> Any:
        """The store, of a tenant, or one that does not know every type and has no outbox."""
        store = self.store
        if policy is not None:
            options: dict[str, Any] = {
                "unknown_events": policy,
                "enable_tracing": False,
                "outbox_enabled": False,
            }
            store = EventStore(store._opened.database, half_registry, **options)
        return store if tenant is None else store.for_tenant(TENANTS[tenant])

    def tables(self, tenant: int | None, beside: Any) -> Any:
        """The repositories of the tables beside the log, of the tenant if there is one."""
        if tenant is None:
            return beside
        store = self.bound(tenant)
        return SimpleNamespace(
            checkpoints=CheckpointRepository(store),
            snapshots=SnapshotStore(store),
            dead_letters=DLQRepository(store),
            outbox=OutboxRepository(store),
        )


class Operation:
    def on_model(self, plain: Plain) -> Any:
        raise NotImplementedError

    async def on_store(self, target: Store, beside: Any) -> Any:
        """``beside`` holds the repositories of the tables beside the log."""
        raise NotImplementedError


def of(tenant: int | None) -> UUID | None:
    return None if tenant is None else TENANTS[tenant]


def answer_of(call: Any, *arguments: Any) -> tuple[Any, tuple[str, ...]]:
    """What the model says: an answer, or the errors that may come instead."""
    try:
        return call(*arguments), ()
    except Refused as refused:
        return None, refused.errors


async def outcome_of(awaitable: Any) -> tuple[Any, str]:
    """What a store did: an answer, or an error by its name."""
    try:
        return await awaitable, ""
    except OptimisticLockError as error:
        return None, f"OptimisticLockError {error.actual_version}"
    except EventSourceError as error:
        return None, type(error).__name__


# -- the log -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Append(Operation):
    stream: int
    events: tuple[tuple[int, int | None, int], ...]  # number, tenant, content
    expected: int
    tenant: int | None
    has_outbox: bool = True

    def made(self) -> list[DomainEvent]:
        return [make(STREAMS[self.stream], *event) for event in self.events]

    def on_model(self, plain: Plain) -> Any:
        if any(
            content > len(HOSTILE) - 1 and content % (len(HOSTILE) + len(UNSTORABLE)) >= len(HOSTILE)
            for _, _, content in self.events
        ):
            raise Refused("InvalidEventError")
        return plain.append(
            STREAMS[self.stream], self.made(), self.expected, of(self.tenant), self.has_outbox
        )

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        # The application's own transaction, if it has one open.
        options = {"connection": beside.joined} if hasattr(beside, "joined") else {}
        store = target.bound(self.tenant, None if self.has_outbox else "untyped")
        result = await store.append_events(
            aggregate_id, aggregate_type, self.made(), self.expected, **options
        )
        return "repeated" if result.idempotent else "stored", result.new_version


@dataclass(frozen=True)
class Close(Operation):
    stream: int
    expected: int
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        tombstone = StreamClosed(aggregate_id=aggregate_id, aggregate_type=aggregate_type, reason="'why'")
        return plain.close(STREAMS[self.stream], tombstone, self.expected, of(self.tenant))

    async def on_store(self, target: Store, beside: Any) -> Any:
        stream = STREAMS[self.stream]
        result = await target.bound(self.tenant).close_stream(*stream, self.expected, reason="'why'")
        return "repeated" if result.idempotent else "stored", result.new_version


@dataclass(frozen=True)
class Read(Operation):
    stream: int | None
    tenant: int | None
    backward: bool
    after: int
    limit: int | None
    since: int | None
    until: int | None
    types: tuple[str, ...] | None
    aggregates: tuple[str, ...] | None
    of_tenant: int | None

    def options(self, after: int) -> ReadOptions:
        return ReadOptions(
            direction=ReadDirection.BACKWARD if self.backward else ReadDirection.FORWARD,
            from_position=after,
            limit=self.limit,
            from_timestamp=None if self.since is None else MOMENTS[self.since],
            to_timestamp=None if self.until is None else MOMENTS[self.until],
            tenant_id=of(self.of_tenant),
            event_types=self.types,
            aggregate_types=self.aggregates,
        )

    def on_model(self, plain: Plain) -> Any:
        if self.tenant is not None and self.of_tenant not in (None, self.tenant):
            raise Refused("TenantMismatchError")
        stream = None if self.stream is None else STREAMS[self.stream]
        tenant = of(self.tenant)
        after = self.after if stream is not None else min(self.after, len(plain.log))
        return [(place, said(event)) for place, event in plain.read(self.options(after), stream, tenant)]

    async def on_store(self, target: Store, beside: Any) -> Any:
        places = await target.places()
        reader = target.bound(self.tenant)
        if self.stream is None:
            after = min(self.after, len(places))
            found = reader.read_all(self.options(places[after - 1] if after else 0))
        else:
            aggregate_id, aggregate_type = STREAMS[self.stream]
            found = reader.read_stream(f"{aggregate_id}:{aggregate_type}", self.options(self.after))
        return [(places.index(s.global_position) + 1, said(s.event)) async for s in found]


@dataclass(frozen=True)
class Load(Operation):
    stream: int
    tenant: int | None
    after: int
    since: int | None = None
    until: int | None = None
    says_type: bool = True

    def moments(self) -> list[datetime | None]:
        return [None if moment is None else MOMENTS[moment] for moment in (self.since, self.until)]

    def on_model(self, plain: Plain) -> Any:
        stream, tenant = STREAMS[self.stream], of(self.tenant)
        if not self.says_type:
            stream = plain.only_stream(stream[0], tenant)
        since, until = self.moments()
        options = ReadOptions(from_position=self.after, from_timestamp=since, to_timestamp=until)
        events = [event for _, event in plain.read(options, stream, tenant)]
        last = plain.version(stream, tenant) if self.after else 0
        return [said(event) for event in events], events[-1].aggregate_version if events else last

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        reader = target.bound(self.tenant)
        stream = await reader.get_events(
            aggregate_id, aggregate_type if self.says_type else None, self.after, *self.moments()
        )
        return [said(event) for event in stream.events], stream.version


@dataclass(frozen=True)
class ByType(Operation):
    name: str
    tenant: int | None
    of_tenant: int | None
    since: int | None

    def on_model(self, plain: Plain) -> Any:
        if self.tenant is not None and self.of_tenant not in (None, self.tenant):
            raise Refused("TenantMismatchError")
        options = ReadOptions(
            aggregate_types=[self.name],
            tenant_id=of(self.of_tenant),
            from_timestamp=None if self.since is None else MOMENTS[self.since],
        )
        return [said(event) for _, event in plain.read(options, None, of(self.tenant))]

    async def on_store(self, target: Store, beside: Any) -> Any:
        since = None if self.since is None else MOMENTS[self.since]
        found = await target.bound(self.tenant).get_events_by_type(self.name, of(self.of_tenant), since)
        return [said(event) for event in found]


@dataclass(frozen=True)
class ReadHalfKnown(Operation):
    """A reader that does not know all types; what it skips counts for its limit."""

    policy: str
    tenant: int | None
    backward: bool
    limit: int | None
    stream: int | None
    """All of one stream, if given."""

    def options(self) -> ReadOptions:
        direction = ReadDirection.BACKWARD if self.backward else ReadDirection.FORWARD
        return ReadOptions(direction=direction, limit=self.limit)

    def on_model(self, plain: Plain) -> Any:
        stream = None if self.stream is None else STREAMS[self.stream]
        options = self.options() if stream is None else ReadOptions()
        found = [event for _, event in plain.read(options, stream, of(self.tenant))]
        if self.policy == "raise" and any(event.event_type == "Noted" for event in found):
            raise Refused("UnknownEventTypeError")
        return [
            (event.aggregate_id, event.aggregate_version, event.event_type)
            for event in found
            if self.policy != "skip" or event.event_type != "Noted"
        ]

    async def on_store(self, target: Store, beside: Any) -> Any:
        reader = target.bound(self.tenant, self.policy)
        if self.stream is None:
            events = [stored.event async for stored in reader.read_all(self.options())]
        else:
            events = (await reader.get_events(*STREAMS[self.stream])).events
        return [(event.aggregate_id, event.aggregate_version, event.event_type) for event in events]


@dataclass(frozen=True)
class Follow(Operation):
    """A subscription to the log as it is, perhaps to a part of it."""

    after: int
    tenant: int | None
    types: tuple[str, ...] | None

    def on_model(self, plain: Plain) -> Any:
        after = min(self.after, len(plain.log))
        options = ReadOptions(from_position=after, event_types=self.types)
        return [place for place, _ in plain.read(options, None, of(self.tenant))]

    async def on_store(self, target: Store, beside: Any) -> Any:
        places = await target.places()
        after = min(self.after, len(places))
        subscription = target.bound(self.tenant).subscribe(
            places[after - 1] if after else 0, event_types=self.types, live=False
        )
        async with subscription:
            return [places.index(stored.global_position) + 1 async for stored in subscription]


@dataclass(frozen=True)
class Ask(Operation):
    """What can be asked without reading an event."""

    number: int
    stream: int
    tenant: int | None

    def on_model(self, plain: Plain) -> Any:
        stream, tenant = STREAMS[self.stream], of(self.tenant)
        seen = plain.read(ReadOptions(), None, tenant)
        is_closed = any(row.closes for row in plain.rows(stream) if tenant in (None, row.event.tenant_id))
        return (
            UUID(int=1000 + self.number) in {event.event_id for _, event in seen},
            plain.version(stream, tenant),
            is_closed,
            max((place for place, _ in seen), default=0),
        )

    async def on_store(self, target: Store, beside: Any) -> Any:
        store, stream = target.bound(self.tenant), STREAMS[self.stream]
        position = await store.get_global_position()
        return (
            await store.event_exists(UUID(int=1000 + self.number)),
            await store.get_stream_version(*stream),
            await store.is_closed(*stream),
            (await target.places()).index(position) + 1 if position else 0,
        )


def said(event: DomainEvent) -> dict[str, Any]:
    """All that an event says; a stream's end gets its id and its time from the store."""
    own = {"event_id", "occurred_at", "correlation_id"} if isinstance(event, StreamClosed) else set()
    return event.model_dump(exclude=own)
