"""A clock that steps backwards: the order of the log and of streams is the database's count, never the time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from support.effort import examples
from support.orders import placed
from support.tally import Tally, chance

from esource import CheckpointRepository, Lease, OutboxRepository, ReadOptions

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


class Clock:
    """What `utc_now` says, in every module that asks it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    asking = ("checkpoint", "lease", "outbox", "snapshot")
    for module in (
        *(f"repositories.{name}" for name in asking),
        "dialect.sqlite.append",
        "publishing.relay",
    ):
        monkeypatch.setattr(f"esource.{module}.utc_now", found)
    return found


async def test_a_clock_that_steps_backwards_changes_no_order_and_hides_no_event(store, clock: Clock):
    draw = chance("clock")
    tally = Tally("clock set back", store._opened.database.backend.name)
    stream, acknowledged, seen = uuid4(), [], []
    checkpoints = CheckpointRepository(store)
    for version in range(examples(30)):
        if draw.random() < 0.3:
            clock.now -= timedelta(seconds=draw.randint(1, 100_000))
            tally.injected += 1
        clock.now += timedelta(milliseconds=draw.randint(0, 5))
        event = placed(stream, occurred_at=clock.now)
        result = await store.append_events(stream, "Order", [event], version)
        acknowledged.append(event.event_id)
        last = await checkpoints.get_position("reader") or 0
        async for stored in store.read_all(ReadOptions(from_position=last)):
            seen.append(stored.event_id)
            await checkpoints.save_position(
                "reader", stored.global_position, stored.event_id, stored.event_type
            )
        assert await checkpoints.get_position("reader") == result.global_position
    log = [stored async for stored in store.read_all()]
    assert [stored.event_id for stored in log] == acknowledged == seen
    assert [stored.stream_position for stored in log] == list(range(1, len(log) + 1))
    # What occurred when is told as the writer said it, in whatever order that is.
    times = [stored.event.occurred_at for stored in log]
    assert times != sorted(times)
    span = ReadOptions(from_timestamp=min(times), to_timestamp=max(times))
    assert len([stored async for stored in store.read_all(span)]) == len(log)
    tally.judge(acknowledged, [stored.event_id for stored in log])
    tally.judge_follower(acknowledged, seen)
    tally.conclude()


@pytest.mark.parametrize("step", [-100_000, 100_000])
async def test_leases_and_claims_go_by_the_databases_clock_and_not_by_a_workers(
    shared_database_url: str, open_stores, clock: Clock, step
):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    held, other = Lease(store, "mailer", seconds=60), Lease(store, "mailer", seconds=60)
    assert await held.acquire()
    clock.now += timedelta(seconds=step)
    assert not await other.acquire()
    assert await held.renew()
    await held.release()
    assert await other.acquire()
    await other.release()
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event])
    assert [entry.event_id for entry in await OutboxRepository(store).get_pending_events()] == [
        event.event_id
    ]
