"""What an author of events sends is stored and comes back equal, or is refused before anything is written."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.orders import placed

from adversity.hostile.corpus import INJECTIONS, REFUSED_TEXTS, REFUSED_VALUES, STORED_TEXTS, STORED_VALUES
from esource import (
    CheckpointRepository,
    DLQRepository,
    EventSourceError,
    InvalidEventError,
    InvalidOptionError,
    Lease,
    OutboxRepository,
    ReadOptions,
    Snapshot,
    SnapshotStore,
)

ORDER = UUID(int=1)


async def test_hostile_values_come_back_equal(store):
    for name, value in STORED_VALUES.items():
        order = uuid4()
        event = placed(order, metadata={"value": value, "keys": {name: value}})
        await store.append_events(order, "Order", [event], 0)
        found = (await store.get_events(order, "Order")).events[0]
        assert found == event, name
        assert type(found.metadata["value"]) is type(value), name


async def test_refused_values_leave_nothing_behind(store):
    for name, value in REFUSED_VALUES.items():
        with pytest.raises(InvalidEventError):
            await store.append_events(
                ORDER, "Order", [placed(ORDER), placed(ORDER, metadata={"value": value})], 0
            )
            pytest.fail(name)
    assert await store.get_global_position() == 0


async def test_hostile_names_come_back_equal(store):
    checkpoints, letters = CheckpointRepository(store), DLQRepository(store)
    outbox, snapshots = OutboxRepository(store), SnapshotStore(store)
    for text in STORED_TEXTS.values():
        order = uuid4()
        event = placed(order, aggregate_type=text, actor_id=text, customer_id=text)
        await store.append_events(order, text, [event], 0)
        assert (await store.get_events(order, text)).events == [event]
        assert [found.event async for found in store.read_stream(f"{order}:{text}")] == [event]
        await checkpoints.save_position(text, 1, order, text)
        assert (await checkpoints.get_checkpoint_data(text)).last_event_type == text
        await letters.add_failed_event(event.event_id, text, text, {text: text}, ValueError(text))
        [letter] = await letters.get_failed_events(text)
        assert letter.event_data == {text: text}
        await snapshots.save_snapshot(Snapshot(order, text, 1, {text: text}))
        assert (await snapshots.get_snapshot(order, text)).state == {text: text}
        await outbox.add_event(event)
        lease = Lease(store, f"lease {text}"[:255], owner=text)
        assert await lease.acquire()
        await lease.release()
    written = await outbox.get_pending_events(1000)
    assert [entry.aggregate_type for entry in written] == list(STORED_TEXTS.values())


def reading(store) -> dict[str, Any]:
    """Everything that takes a text and writes none."""
    checkpoints, letters = CheckpointRepository(store), DLQRepository(store)
    snapshots = SnapshotStore(store)

    async def read(options):
        return [event async for event in store.read_all(options)]

    async def by_type(name):
        found = store.get_events_by_type(name)
        return [event async for event in found] if hasattr(found, "__aiter__") else await found

    return {
        "get_events": lambda text: store.get_events(ORDER, text),
        "get_events_by_type": by_type,
        "get_stream_version": lambda text: store.get_stream_version(ORDER, text),
        "append of nothing": lambda text: store.append_events(ORDER, text, []),
        "read_all": lambda text: read(ReadOptions(event_types=[text])),
        "get_checkpoint": checkpoints.get_checkpoint,
        "get_position": checkpoints.get_position,
        "get_lag_metrics": checkpoints.get_lag_metrics,
        "get_lag": lambda text: checkpoints.get_lag(0, [text]),
        "reset_checkpoint": checkpoints.reset_checkpoint,
        "get_failed_events": letters.get_failed_events,
        "get_snapshot": lambda text: snapshots.get_snapshot(ORDER, text),
        "delete_snapshot": lambda text: snapshots.delete_snapshot(ORDER, text),
        "delete_snapshots_by_type": snapshots.delete_snapshots_by_type,
    }


async def test_reading_with_what_cannot_be_stored_is_refused_alike(store):
    for name, call in reading(store).items():
        for text in REFUSED_TEXTS.values():
            with pytest.raises((InvalidOptionError, InvalidEventError)):
                await call(text)
                pytest.fail(f"{name} with {text!r}")


async def test_an_id_that_is_none_is_refused_alike(store):
    for wrong in ("x", "'; DROP TABLE events; --", 5, b"x", "\ud800", "\x00", "x" * 10**6):
        for call in (
            lambda: store.get_events(wrong, "Order"),
            lambda: store.get_stream_version(wrong, "Order"),
            lambda: store.event_exists(wrong),
            lambda: store.append_events(wrong, "Order", []),
            lambda: store.append_events(wrong, "Order", [placed(ORDER)]),
            lambda: SnapshotStore(store).get_snapshot(wrong, "Order"),
            lambda: CheckpointRepository(store).save_position("x", 1, wrong, "x"),
        ):
            with pytest.raises((InvalidOptionError, InvalidEventError)) as caught:
                await call()
            assert len(str(caught.value)) < 500


async def test_statements_are_no_part_of_what_is_sent(store):
    """Every text that reaches a statement; the tables and what is in them are as before."""
    await store.append_events(ORDER, "Order", [placed(ORDER)], 0)
    letters, outbox = DLQRepository(store), OutboxRepository(store)
    row = await outbox.add_event(placed(ORDER))
    letter = await letters.add_failed_event(uuid4(), "p", "t", {}, ValueError("x"))
    for text in INJECTIONS.values():
        for call in reading(store).values():
            await call(text)  # says what there is, which the test of each method checks
        assert not await store.get_stream_version(ORDER, text)
        for refused in (
            lambda: outbox.mark_published(text),
            lambda: letters.get_failed_event(text),
            lambda: letters.get_failed_events(None, text),
            lambda: anext(aiter(store.read_stream(text))),
            lambda: store.get_events(text),
        ):
            with pytest.raises(EventSourceError):
                await refused()
        assert await letters.mark_resolved(letter, text)
        assert await outbox.mark_failed(row, text)
    assert (await store.get_events(ORDER, "Order")).version == 1
    assert (await letters.get_failed_event(letter)).resolved_by == text


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
        max_leaves=20,
    )
)
@settings(
    max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_value_is_stored_equal_or_refused(store, value):
    order = uuid4()
    event = placed(order, metadata={"value": value})
    try:
        await store.append_events(order, "Order", [event], 0)
    except InvalidEventError:
        assert await store.get_stream_version(order, "Order") == 0
    else:
        assert (await store.get_events(order, "Order")).events == [event]
