"""What can be done to a store, each as one value that acts on the plain model and on a real store alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from esource import (
    DomainEvent,
    EventRegistry,
    ExpectedVersion,
    ReadDirection,
    ReadOptions,
    Snapshot,
    StreamClosed,
)
from esource.errors import EventSourceError, OptimisticLockError
from model.plain import Plain, Refused, Stream

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

    def __init__(self, name: str, store: Any) -> None:
        self.name = name
        self.store = store

    async def places(self) -> list[int]:
        """The position of each event, in order."""
        return [stored.global_position async for stored in self.store.read_all()]

    def bound(self, tenant: int | None) -> Any:
        return self.store if tenant is None else self.store.for_tenant(TENANTS[tenant])


class Operation:
    def on_model(self, plain: Plain) -> Any:
        raise NotImplementedError

    async def on_store(self, target: Store, beside: Any) -> Any:
        """``beside`` holds the repositories of the tables beside the log."""
        raise NotImplementedError


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

    def made(self) -> list[DomainEvent]:
        return [make(STREAMS[self.stream], *event) for event in self.events]

    def on_model(self, plain: Plain) -> Any:
        if any(
            content > len(HOSTILE) - 1 and content % (len(HOSTILE) + len(UNSTORABLE)) >= len(HOSTILE)
            for _, _, content in self.events
        ):
            raise Refused("InvalidEventError")
        tenant = None if self.tenant is None else TENANTS[self.tenant]
        return plain.append(STREAMS[self.stream], self.made(), self.expected, tenant)

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        result = await target.bound(self.tenant).append_events(
            aggregate_id, aggregate_type, self.made(), self.expected
        )
        return "repeated" if result.idempotent else "stored", result.new_version


@dataclass(frozen=True)
class Close(Operation):
    stream: int
    expected: int

    def on_model(self, plain: Plain) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        tombstone = StreamClosed(aggregate_id=aggregate_id, aggregate_type=aggregate_type, reason="'why'")
        return plain.close(STREAMS[self.stream], tombstone, self.expected)

    async def on_store(self, target: Store, beside: Any) -> Any:
        result = await target.store.close_stream(*STREAMS[self.stream], self.expected, reason="'why'")
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
            tenant_id=None if self.of_tenant is None else TENANTS[self.of_tenant],
            event_types=self.types,
            aggregate_types=self.aggregates,
        )

    def on_model(self, plain: Plain) -> Any:
        if self.tenant is not None and self.of_tenant not in (None, self.tenant):
            raise Refused("TenantMismatchError")
        stream = None if self.stream is None else STREAMS[self.stream]
        tenant = None if self.tenant is None else TENANTS[self.tenant]
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

    def on_model(self, plain: Plain) -> Any:
        stream, tenant = STREAMS[self.stream], None if self.tenant is None else TENANTS[self.tenant]
        events = [event for _, event in plain.read(ReadOptions(from_position=self.after), stream, tenant)]
        return [said(event) for event in events], plain.version(stream, tenant)

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        reader = target.bound(self.tenant)
        stream = await reader.get_events(aggregate_id, aggregate_type, from_version=self.after)
        assert await reader.get_stream_version(aggregate_id, aggregate_type) == stream.version
        return [said(event) for event in stream.events], stream.version


@dataclass(frozen=True)
class Exists(Operation):
    number: int

    def on_model(self, plain: Plain) -> Any:
        return UUID(int=1000 + self.number) in {row.event.event_id for row in plain.log}

    async def on_store(self, target: Store, beside: Any) -> Any:
        return await target.store.event_exists(UUID(int=1000 + self.number))


def said(event: DomainEvent) -> dict[str, Any]:
    """All that an event says; a stream's end gets its id and its time from the store."""
    own = {"event_id", "occurred_at", "correlation_id"} if isinstance(event, StreamClosed) else set()
    return event.model_dump(exclude=own)


# -- beside the log ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavePosition(Operation):
    name: int
    place: int

    def on_model(self, plain: Plain) -> Any:
        if plain.log:
            place = 1 + self.place % len(plain.log)
            plain.save_position(NAMES[self.name], place, UUID(int=self.place))
        kept = plain.checkpoints.get(NAMES[self.name])
        return tuple(kept) if kept else None

    async def on_store(self, target: Store, beside: Any) -> Any:
        places = await target.places()
        if places:
            at = places[self.place % len(places)]
            await beside.checkpoints.save_position(NAMES[self.name], at, UUID(int=self.place), "Counted")
        data = await beside.checkpoints.get_checkpoint_data(NAMES[self.name])
        if data is None:
            return None
        return places.index(data.global_position) + 1, data.last_event_id, data.events_processed


@dataclass(frozen=True)
class ResetCheckpoint(Operation):
    name: int

    def on_model(self, plain: Plain) -> Any:
        plain.checkpoints.pop(NAMES[self.name], None)
        return sorted(plain.checkpoints)

    async def on_store(self, target: Store, beside: Any) -> Any:
        await beside.checkpoints.reset_checkpoint(NAMES[self.name])
        return sorted(data.projection_name for data in await beside.checkpoints.get_all_checkpoints())


@dataclass(frozen=True)
class SaveSnapshot(Operation):
    stream: int
    version: int
    schema: int

    def on_model(self, plain: Plain) -> Any:
        stream = STREAMS[self.stream]
        saved = plain.save_snapshot(stream, self.version, self.schema, {"v": HOSTILE[self.version]})
        return saved, plain.snapshots[stream]

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        state = {"v": HOSTILE[self.version]}
        saved = await beside.snapshots.save_snapshot(
            Snapshot(aggregate_id, aggregate_type, self.version, state, self.schema)
        )
        found = await beside.snapshots.get_snapshot(aggregate_id, aggregate_type)
        return saved, (found.version, found.schema_version, found.state)


@dataclass(frozen=True)
class DeleteSnapshot(Operation):
    stream: int
    below: int | None  # a whole type, if given

    def on_model(self, plain: Plain) -> Any:
        stream = STREAMS[self.stream]
        if self.below is None:
            return plain.snapshots.pop(stream, None) is not None
        gone = [key for key, kept in plain.snapshots.items() if key[1] == stream[1] and kept[1] < self.below]
        for key in gone:
            del plain.snapshots[key]
        return len(gone)

    async def on_store(self, target: Store, beside: Any) -> Any:
        aggregate_id, aggregate_type = STREAMS[self.stream]
        if self.below is None:
            return await beside.snapshots.delete_snapshot(aggregate_id, aggregate_type)
        return await beside.snapshots.delete_snapshots_by_type(aggregate_type, self.below)


@dataclass(frozen=True)
class AddLetter(Operation):
    number: int
    name: int
    attempts: int

    def on_model(self, plain: Plain) -> Any:
        plain.add_letter(UUID(int=1000 + self.number), NAMES[self.name], self.attempts)
        return letters(plain)

    async def on_store(self, target: Store, beside: Any) -> Any:
        await beside.dead_letters.add_failed_event(
            UUID(int=1000 + self.number), NAMES[self.name], "X", {"a": 1}, ValueError("\x00no"), self.attempts
        )
        return await stored_letters(beside)


@dataclass(frozen=True)
class ChangeLetter(Operation):
    place: int
    resolves: bool

    def on_model(self, plain: Plain) -> Any:
        if not plain.letters:
            return None
        letter = plain.letters[self.place % len(plain.letters)]
        changed = self.resolves or letter.status != "resolved"
        if changed:
            letter.status = "resolved" if self.resolves else "retrying"
            letter.attempts += not self.resolves
        return changed, letters(plain)

    async def on_store(self, target: Store, beside: Any) -> Any:
        found = await beside.dead_letters.get_failed_events(status=None)
        if not found:
            return None
        entry = found[self.place % len(found)]
        if self.resolves:
            changed = await beside.dead_letters.mark_resolved(entry.id, "me")
        else:
            changed = await beside.dead_letters.mark_retrying(entry.id)
        return changed, await stored_letters(beside)


def letters(plain: Plain) -> Any:
    return [(letter.event_id, letter.name, letter.attempts, letter.status) for letter in plain.letters]


async def stored_letters(beside: Any) -> Any:
    found = await beside.dead_letters.get_failed_events(status=None)
    return [(e.event_id, e.projection_name, e.retry_count, e.status) for e in found]


@dataclass(frozen=True)
class ChangeOutbox(Operation):
    place: int
    how: str  # publish, fail, again

    def on_model(self, plain: Plain) -> Any:
        if self.how == "again":
            failed = [row for row in plain.outbox if row.status == "failed"]
            for row in failed:
                row.status, row.attempts = "pending", 0
            return len(failed), len(plain.pending())
        pending = [row for row in plain.outbox if row.status == "pending"]
        if pending:
            row = pending[self.place % len(pending)]
            row.status = "published" if self.how == "publish" else "failed"
        return self.counts(plain)

    def counts(self, plain: Plain) -> Any:
        states = [row.status for row in plain.outbox]
        return len(plain.pending()), states.count("published"), states.count("failed")

    async def on_store(self, target: Store, beside: Any) -> Any:
        if self.how == "again":
            again = await beside.outbox.retry_failed()
            return again, len(await beside.outbox.get_pending_events(1000))
        pending = await beside.outbox.get_pending_events(1000)
        positions = [entry.global_position for entry in pending]
        assert positions == sorted(positions)
        if pending:
            entry = pending[self.place % len(pending)]
            if self.how == "publish":
                assert await beside.outbox.mark_published(entry.id)
            else:
                assert await beside.outbox.mark_failed(entry.id, "no")
        stats = await beside.outbox.get_stats()
        return stats.pending_count, stats.published_count, stats.failed_count


# -- drawing them --------------------------------------------------------------------------------------

_stream = st.integers(0, len(STREAMS) - 1)
_tenant = st.sampled_from([None, None, 0, 1])
_name = st.integers(0, len(NAMES) - 1)
_few = st.integers(0, 12)
_contents = st.one_of(
    st.just(0), st.integers(0, len(HOSTILE) - 1), st.integers(0, len(HOSTILE) + len(UNSTORABLE) - 1)
)
_event = st.tuples(_few, _tenant, st.sampled_from([0, 0, 0, 1]) | _contents)
_expected = st.sampled_from([ExpectedVersion.ANY] * 3 + [ExpectedVersion.STREAM_EXISTS, 0, 0, 1, 2, 3])
appends = st.builds(Append, _stream, st.lists(_event, min_size=0, max_size=3).map(tuple), _expected, _tenant)
_types = st.none() | st.lists(st.sampled_from(["Noted", "Counted", "x'"]), max_size=2).map(tuple)
_aggregates = st.none() | st.lists(st.sampled_from(["Order", "Invoice", "%"]), max_size=2).map(tuple)
_moment = st.none() | st.integers(0, len(MOMENTS) - 1)
reads = st.builds(
    Read,
    st.none() | _stream,
    _tenant,
    st.booleans(),
    st.just(0) | _few,
    st.none() | st.integers(0, 4),
    _moment,
    _moment,
    _types,
    _aggregates,
    _tenant,
)
others = st.one_of(
    st.builds(Close, st.just(2), st.sampled_from([-1, -2])),
    st.builds(Load, _stream, _tenant, st.just(0) | _few),
    st.builds(Exists, _few),
    st.builds(SavePosition, _name, _few),
    st.builds(ResetCheckpoint, _name),
    st.builds(SaveSnapshot, _stream, st.integers(1, len(HOSTILE) - 1), st.integers(1, 2)),
    st.builds(DeleteSnapshot, _stream, st.none() | st.integers(1, 2)),
    st.builds(AddLetter, _few, _name, st.integers(0, 3)),
    st.builds(ChangeLetter, _few, st.booleans()),
    st.builds(ChangeOutbox, _few, st.sampled_from(["publish", "fail", "again"])),
)
operations = st.one_of(appends, appends, reads, others)
