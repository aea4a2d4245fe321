"""What every log of the torture tests' writer (`adversity.torture.writer`) is like, whatever was done to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from esource import EventStore, StoredEvent


async def whole_log(store: EventStore) -> list[StoredEvent]:
    return [event async for event in store.read_all()]


def check_log(log: Sequence[StoredEvent]) -> Counter[UUID]:
    """Order, versions without holes, whole batches, nothing that was rolled back; events by batch."""
    positions = [event.global_position for event in log]
    assert positions == sorted(set(positions))
    assert len({event.event_id for event in log}) == len(log)
    versions: dict[UUID, int] = {}
    for event in log:
        assert event.stream_position == versions.get(event.aggregate_id, 0) + 1
        versions[event.aggregate_id] = event.stream_position
    batches: Counter[UUID] = Counter()
    sizes: dict[UUID, int] = {}
    for stored in log:
        event: Any = stored.event
        assert not event.is_void, "an event of a rolled-back transaction is visible"
        batches[event.batch_id] += 1
        sizes[event.batch_id] = event.batch_size
    assert {batch_id: sizes[batch_id] for batch_id in batches} == dict(batches), "half a batch is stored"
    return batches
