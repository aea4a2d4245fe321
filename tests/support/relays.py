"""A relay for a test, the publisher that it sends to, and what became of the outbox."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from esource import OutboxRelay, OutboxRepository


class Sink:
    """A publisher that remembers, and fails where it is told to."""

    def __init__(self):
        self.entries = []
        self.failing = {}
        """Event ids, and how often each still fails."""

    async def publish(self, entry):
        await asyncio.sleep(0)
        if self.failing.get(entry.event_id, 0) > 0:
            self.failing[entry.event_id] -= 1
            raise ConnectionError("the broker is away")
        self.entries.append(entry)

    @property
    def ids(self):
        return [entry.event_id for entry in self.entries]

    def by_stream(self):
        found = defaultdict(list)
        for entry in self.entries:
            found[entry.aggregate_id].append(entry.event_id)
        return found


class Gate(Sink):
    """A publisher that waits at its first message."""

    def __init__(self):
        super().__init__()
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def publish(self, entry):
        self.reached.set()
        await self.opened.wait()
        await super().publish(entry)


def relay_of(store, sink, **options):
    return OutboxRelay(store, sink, **{"retry_seconds": 0.001, "enable_metrics": False, **options})


async def append(store, *events):
    await store.append_events(events[0].aggregate_id, "Order", events)


async def stats_of(store):
    stats = await OutboxRepository(store).get_stats()
    return stats.pending_count, stats.published_count, stats.failed_count
