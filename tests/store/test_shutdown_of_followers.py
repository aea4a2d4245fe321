"""A service whose every task is cancelled at once, as a shutdown does it, ends and leaves nothing behind."""

from __future__ import annotations

import asyncio

import pytest
from support.leaks import check_connections
from support.orders import placed
from support.read_models import Journal, rows

from esource import CheckpointRepository, EventStore, Lease, OutboxRelay, OutboxRepository, ProjectionRunner
from esource.projections.checkpoints import states

ENDS_WITHIN_SECONDS = 20.0
"""Far more than it takes: only a task that never ends is to be found."""


class Sink:
    def __init__(self) -> None:
        self.taken: list[int] = []

    async def publish(self, entry) -> None:
        await asyncio.sleep(0)
        self.taken.append(entry.global_position)


async def work(store: EventStore, journal: Journal, sink: Sink, stored: list[int]) -> None:
    """What a service does all day: append, follow, project, publish."""

    async def write() -> None:
        while True:
            event = placed()
            result = await store.append_events(event.aggregate_id, "Order", [event])
            stored.append(result.global_position)

    async def follow() -> None:
        async with Lease(store, "mails"), store.subscribe(checkpoint="mails") as subscription:
            async for _ in subscription:
                await subscription.save()

    async def publish() -> None:
        async with OutboxRelay(store, sink, batch_size=5, poll_seconds=0.01) as relay:
            await relay.run()

    await asyncio.gather(write(), write(), follow(), ProjectionRunner(store, journal).run(), publish())


@pytest.mark.parametrize("milliseconds", [1, 5, 20, 60, 150])
async def test_everything_ends_when_all_tasks_are_cancelled(
    shared_database_url, open_stores, milliseconds: int
):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    journal, sink, stored = Journal(), Sink(), []
    service = asyncio.create_task(work(store, journal, sink, stored))
    await asyncio.sleep(milliseconds / 1000)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(service, ENDS_WITHIN_SECONDS)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=ENDS_WITHIN_SECONDS)
    assert not [task for task in others if not task.done()]
    check_connections(store)

    # Nothing that was acknowledged is lost, and the next workers need not wait for what these have held.
    after = await open_stores(shared_database_url, outbox_enabled=True)
    found = {event.global_position async for event in after.read_all()}
    assert set(stored) <= found
    assert all(state.owner is None for state in (await states(after._opened.database)).values())
    await asyncio.wait_for(ProjectionRunner(after, journal).run(live=False), ENDS_WITHIN_SECONDS)
    assert set(await rows(after, journal.table, "position")) == found
    assert len(await rows(after, journal.table, "position")) == len(found)
    async with OutboxRelay(after, sink) as relay:
        await asyncio.wait_for(relay.drain(), ENDS_WITHIN_SECONDS)
    assert set(sink.taken) == found
    assert (await OutboxRepository(after).get_stats()).pending_count == 0
    mails = await CheckpointRepository(after).get_position("mails")
    assert mails is None or mails in found
