"""What people type: what is meant is done, and everything else is refused by an error of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from support.orders import Order, OrderPlaced, OrderShipped, placed

from esource import (
    AggregateRepository,
    CheckpointRepository,
    DLQRepository,
    DomainEvent,
    EventRegistry,
    EventStore,
    ExpectedVersion,
    InMemoryEventStore,
    InMemorySnapshotStore,
    OutboxRepository,
    PostgreSQLEventStore,
    Projection,
    ReadDirection,
    ReadOptions,
    SnapshotStore,
    SQLiteEventStore,
    open_store,
    register_event,
)
from esource.errors import EventSourceError, InvalidOptionError

registry = EventRegistry()


@register_event(registry=registry)
class Paid(DomainEvent):
    aggregate_type: str = "Bill"


@register_event(registry=registry)
class PaidByCard(Paid):
    pass


registry.register(PaidByCard, "PaidWithCard")  # under which it was stored once


async def of_types(store: EventStore, types: Any) -> list[str]:
    read = [event.event_type async for event in store.read_all(ReadOptions(event_types=types))]
    async with store.subscribe(event_types=types, live=False) as subscription:
        assert [event.event_type async for event in subscription] == read
    return read


async def test_the_direction_may_be_its_text(store: EventStore):
    for _ in range(2):
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event], 0)
    for direction in ("backward", ReadDirection.BACKWARD):
        options = ReadOptions(direction=direction)
        assert options.direction is ReadDirection.BACKWARD
        assert [event.global_position async for event in store.read_all(options)] == [2, 1]
    assert ReadOptions(direction="forward") == ReadOptions()


@pytest.mark.parametrize("direction", ["back", "BACKWARD", "", 1, None, True, ["backward"], object()])
def test_what_is_no_direction_is_refused(direction: Any):
    with pytest.raises(
        InvalidOptionError, match=r"must be ReadDirection\.FORWARD or ReadDirection\.BACKWARD"
    ):
        ReadOptions(direction=direction)


async def test_event_types_may_be_classes(database_url: str, open_stores):
    store = await open_stores(database_url, event_registry=registry)
    bill = uuid4()
    for event in (Paid(), PaidByCard()):
        await store.append_events(bill, "Bill", [event], ExpectedVersion.ANY)
    assert await of_types(store, {PaidByCard}) == await of_types(store, ["PaidByCard"]) == ["PaidByCard"]
    # As for a projection, a class stands for those that are derived from it.
    assert (
        await of_types(store, [Paid]) == await of_types(store, (Paid, "PaidByCard")) == ["Paid", "PaidByCard"]
    )
    assert await of_types(store, {OrderPlaced}) == await of_types(store, []) == []
    assert registry.types_of({PaidByCard}) == {"PaidByCard", "PaidWithCard"}


@pytest.mark.parametrize("types", ["OrderPlaced", OrderPlaced, 5, [5], {int}, {None}, [OrderPlaced, 1]])
def test_what_is_no_collection_of_types_is_refused(types: Any):
    with pytest.raises(InvalidOptionError, match="event_types must be a collection of names"):
        ReadOptions(event_types=types)


WRONG = [
    "",
    "5",
    5,
    1.5,
    None,
    True,
    b"",
    b"x",
    "x" * 300,
    -1,
    2**70,
    float("nan"),
    "\0",
    "\ud800",
    uuid4(),
    object(),
    (),
    (1,),
    [],
    [1],
    [[]],
    {},
]

CALLS: dict[str, Callable[[EventStore, Any], Any]] = {
    "get_events": lambda s, x: s.get_events(x, "Order"),
    "get_events, type": lambda s, x: s.get_events(uuid4(), x),
    "get_events, version": lambda s, x: s.get_events(uuid4(), "Order", x),
    "get_events, since": lambda s, x: s.get_events(uuid4(), "Order", 0, x),
    "get_events_by_type": lambda s, x: s.get_events_by_type(x),
    "read_stream": lambda s, x: s.read_stream(x),
    **{
        f"read_all, {name}": lambda s, x, name=name: s.read_all(ReadOptions(**{name: x}))
        for name in (
            "direction",
            "from_position",
            "limit",
            "to_timestamp",
            "tenant_id",
            "event_types",
            "aggregate_types",
        )
    },
    **{
        f"subscribe, {name}": lambda s, x, name=name: s.subscribe(live=False, **{name: x})
        for name in ("from_position", "checkpoint", "tenant_id", "event_types", "partition", "poll_seconds")
    },
    "read_all, event type": lambda s, x: s.read_all(ReadOptions(event_types=[x])),
    "read_all, aggregate type": lambda s, x: s.read_all(ReadOptions(aggregate_types=[x])),
    "subscribe, event type": lambda s, x: s.subscribe(live=False, event_types=[x]),
    "subscribe, number": lambda s, x: s.subscribe(live=False, partition=(x, 2)),
    "subscribe, of": lambda s, x: s.subscribe(live=False, partition=(0, x)),
    "subscribe, aggregate_types": lambda s, x: s.subscribe(live=False, aggregate_types=x),
    "event_exists": lambda s, x: s.event_exists(x),
    "get_stream_version": lambda s, x: s.get_stream_version(uuid4(), x),
    "get_stream_version, id": lambda s, x: s.get_stream_version(x, "Order"),
    "is_closed, type": lambda s, x: s.is_closed(uuid4(), x),
    "is_closed": lambda s, x: s.is_closed(x, "Order"),
    "close_stream": lambda s, x: s.close_stream(x, "Order"),
    "close_stream, type": lambda s, x: s.close_stream(uuid4(), x),
    "close_stream, reason": lambda s, x: s.close_stream(uuid4(), "Order", reason=x),
    "append_events": lambda s, x: s.append_events(x, "Order", []),
    "append_events, type": lambda s, x: s.append_events(uuid4(), x, []),
    "append_events, events": lambda s, x: s.append_events(uuid4(), "Order", x),
    "append_events, tags": lambda s, x: s.append_events(uuid4(), "Order", [placed()], tags=x),
    "append": lambda s, x: s.append(x),
    "append, tags": lambda s, x: s.append([placed()], tags=x),
    "append, condition": lambda s, x: s.append([placed()], condition=x),
    "append_events, event": lambda s, x: s.append_events(uuid4(), "Order", [x]),
    "append_events, version": lambda s, x: s.append_events(uuid4(), "Order", [], x),
    "append_events, connection": lambda s, x: s.append_events(uuid4(), "Order", [], connection=x),
    "wait_for_position": lambda s, x: s.wait_for_position(x, timeout_seconds=0),
    "wait_for_position, seconds": lambda s, x: s.wait_for_position(0, timeout_seconds=x) if x != 5 else None,
    "wait_for, checkpoint": lambda s, x: s.wait_for(0, checkpoint=x, timeout=0.001),
    "for_tenant": lambda s, x: s.for_tenant(x),
    "save_position": lambda s, x: CheckpointRepository(s).save_position("a", x, uuid4(), "Order"),
    "save_position, name": lambda s, x: CheckpointRepository(s).save_position(x, 1, uuid4(), "Order"),
    "save_position, type": lambda s, x: CheckpointRepository(s).save_position("a", 1, uuid4(), x),
    "update_checkpoint, name": lambda s, x: CheckpointRepository(s).update_checkpoint(x, uuid4(), "Order"),
    "update_checkpoint, id": lambda s, x: CheckpointRepository(s).update_checkpoint("a", x, "Order"),
    "update_checkpoint, type": lambda s, x: CheckpointRepository(s).update_checkpoint("a", uuid4(), x),
    "move_past": lambda s, x: CheckpointRepository(s).move_past(x, 0, 1),
    "get_checkpoint": lambda s, x: CheckpointRepository(s).get_checkpoint(x),
    "get_checkpoint_data": lambda s, x: CheckpointRepository(s).get_checkpoint_data(x),
    "get_position": lambda s, x: CheckpointRepository(s).get_position(x),
    "reset_checkpoint": lambda s, x: CheckpointRepository(s).reset_checkpoint(x),
    "get_lag_metrics, types": lambda s, x: CheckpointRepository(s).get_lag_metrics("a", x),
    "get_lag_metrics": lambda s, x: CheckpointRepository(s).get_lag_metrics(x),
    "get_lag, types": lambda s, x: CheckpointRepository(s).get_lag(0, x),
    "dead letters": lambda s, x: DLQRepository(s).get_failed_events(x),
    "dead letters, status": lambda s, x: DLQRepository(s).get_failed_events(None, x),
    "dead letters, limit": lambda s, x: DLQRepository(s).get_failed_events(limit=x),
    "mark_resolved": lambda s, x: DLQRepository(s).mark_resolved(x, "me"),
    "mark_resolved, by": lambda s, x: DLQRepository(s).mark_resolved(1, x),
    "outbox, limit": lambda s, x: OutboxRepository(s).get_pending_events(x),
    "outbox, event": lambda s, x: OutboxRepository(s).add_event(x),
    "outbox, id": lambda s, x: OutboxRepository(s).mark_published(x),
    "cleanup_published": lambda s, x: OutboxRepository(s).cleanup_published(x),
    "get_snapshot": lambda s, x: SnapshotStore(s).get_snapshot(x, "Order"),
    "get_snapshot, type": lambda s, x: SnapshotStore(s).get_snapshot(uuid4(), x),
    "snapshot_exists, type": lambda s, x: SnapshotStore(s).snapshot_exists(uuid4(), x),
    "delete_snapshot, type": lambda s, x: SnapshotStore(s).delete_snapshot(uuid4(), x),
    "delete_snapshots_by_type": lambda s, x: SnapshotStore(s).delete_snapshots_by_type(x),
    "an aggregate": lambda s, x: AggregateRepository(s, Order).save(x),
    "a class of events": lambda s, x: EventRegistry().get(x),
    "a registered type": lambda s, x: EventRegistry().register(OrderPlaced, x),
    "save_snapshot": lambda s, x: SnapshotStore(s).save_snapshot(x),
    "open_store": lambda s, x: open_store(x),
    "a path": lambda s, x: SQLiteEventStore(x),
    "busy_timeout": lambda s, x: SQLiteEventStore(":memory:", busy_timeout=x),
    "uuid_fields": lambda s, x: SQLiteEventStore(":memory:", uuid_fields=x),
    "string_id_fields": lambda s, x: SQLiteEventStore(":memory:", string_id_fields=x),
    "limits": lambda s, x: SQLiteEventStore(":memory:", limits=x),
    "key_store": lambda s, x: SQLiteEventStore(":memory:", key_store=x),
    "a server": lambda s, x: PostgreSQLEventStore(x),
    "retry_seconds": lambda s, x: PostgreSQLEventStore("postgresql://me@host/shop", retry_seconds=x),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_wrong_argument_never_is_an_error_of_python_or_of_the_driver(store: EventStore, call: str):
    for wrong in WRONG:
        try:
            result = CALLS[call](store, wrong)
            if inspect.isawaitable(result):
                await result
            elif hasattr(result, "__aiter__"):
                async for _ in result:
                    break
                await result.close() if hasattr(result, "close") else await result.aclose()
        except EventSourceError:
            pass


NAMES = [
    "append_events, type",
    "close_stream, type",
    "get_stream_version",
    "is_closed, type",
    "save_position, name",
    "save_position, type",
    "update_checkpoint, name",
    "update_checkpoint, type",
    "move_past",
    "get_checkpoint",
    "get_checkpoint_data",
    "get_position",
    "reset_checkpoint",
    "get_lag_metrics",
    "mark_resolved, by",
    "get_snapshot, type",
    "snapshot_exists, type",
    "delete_snapshot, type",
    "delete_snapshots_by_type",
]
"""Calls of `CALLS` with a name that has to be text."""


@pytest.mark.parametrize(
    "wrong", [None, [], b"", 1, object()], ids=["none", "list", "bytes", "int", "object"]
)
async def test_what_is_no_name_is_refused_and_finds_nothing_quietly(store: EventStore, wrong: Any):
    for call in NAMES:
        with pytest.raises(EventSourceError, match="text"):
            await CALLS[call](store, wrong)


@pytest.mark.parametrize("names", ["user_id", [1]])
def test_one_text_is_not_taken_for_the_names_of_fields(names: Any):
    for option in ("uuid_fields", "string_id_fields"):
        with pytest.raises(InvalidOptionError, match=f"{option} must be a collection of names"):
            SQLiteEventStore(":memory:", **{option: names})


async def test_lag_is_not_measured_by_the_letters_of_a_type(store: EventStore):
    checkpoints = CheckpointRepository(store)
    await checkpoints.save_position("mails", 1, uuid4(), OrderShipped.__name__)
    with pytest.raises(InvalidOptionError, match=r"write \['OrderShipped'\]"):
        await checkpoints.get_lag_metrics("mails", "OrderShipped")


def a_projection(on_failure: Any) -> type[Projection]:
    return type("Misspelt", (Projection,), {"on_failure": on_failure})


def a_repository(**options: Any) -> AggregateRepository[Order]:
    return AggregateRepository(InMemoryEventStore(), Order, snapshot_store=InMemorySnapshotStore(), **options)


@pytest.mark.parametrize("value", ["skp", None, ["skip"], 1])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda value: SQLiteEventStore("x.db", execution=value), "execution must be 'thread' or 'caller'"),
        (lambda value: SQLiteEventStore("x.db", synchronous=value), "synchronous must be 'FULL' or 'NORMAL'"),
        (
            lambda value: SQLiteEventStore("x.db", unknown_events=value),
            "unknown_events must be 'raise', 'skip' or 'untyped'",
        ),
        (
            lambda value: PostgreSQLEventStore("postgresql://host/shop", append_lock=value),
            "append_lock must be 'advisory' or 'row'",
        ),
        (
            lambda value: a_repository(snapshot_mode=value),
            "snapshot_mode must be 'sync', 'background' or 'manual'",
        ),
        (a_projection, "on_failure must be 'stop', 'skip' or 'halt_stream'"),
    ],
)
def test_an_option_with_few_choices_names_them_all(make: Callable[[Any], Any], said: str, value: Any):
    with pytest.raises(InvalidOptionError) as refused:
        make(value)
    assert str(refused.value) == f"{said}, not {value!r}"


@pytest.mark.parametrize("threshold", [0, -1, "5", 1.5, True])
def test_a_threshold_of_snapshots_is_a_whole_number(threshold: Any):
    with pytest.raises(InvalidOptionError, match="snapshot_threshold must be a whole number from 1"):
        a_repository(snapshot_threshold=threshold)
