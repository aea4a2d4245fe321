"""Everybody who works on a store at once, while something is done to its database: writers, a reader that never looks
back, a subscription, a projection and a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from support.orders import OrderPlaced, several
from support.read_models import Journal, rows
from support.tally import Tally, chance

from esource import EventStore, OutboxRelay, ProjectionRunner, ReadOptions
from esource.errors import DatabaseError

WRITERS = 4
PAUSE_SECONDS = 0.05
"""What anybody waits after an error before the next try."""


class Crew:
    """At work on a store with an outbox. Whoever meets an error that is ours tries again; any other error fails."""

    def __init__(self, store: EventStore, tally: Tally) -> None:
        self.store = store
        self.tally = tally
        self.acknowledged: list[UUID] = []
        self.read: list[int] = []
        self.followed: list[int] = []
        self.published: list[UUID] = []
        self.journal = Journal()
        self._writing = True
        self._is_over = False
        self._runner = ProjectionRunner(store, self.journal, lease_seconds=2.0, poll_seconds=0.2)
        self._relay = OutboxRelay(
            store, self, batch_size=50, lease_seconds=2.0, poll_seconds=0.2, enable_metrics=False
        )
        self._subscription = store.subscribe(poll_seconds=0.2)

    async def work_through(self, disasters: Callable[[], Awaitable[None]]) -> None:
        """Let everybody work while disasters strike; then until the followers have seen all there is."""
        writers = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]
        followers = [
            asyncio.create_task(work())
            for work in (self._read_on, self._follow, self._project, self._relay.run)
        ]
        try:
            await disasters()
            self._writing = False
            await asyncio.gather(*writers)
            log = [stored async for stored in self.store.read_all()]
            positions = [stored.global_position for stored in log]
            await self._until_seen(positions[-1], {stored.event_id for stored in log}, followers)
        finally:
            self._writing, self._is_over = False, True
            self._runner.stop()
            self._relay.stop()
            self._subscription.stop()
            await asyncio.wait([*writers, *followers], timeout=30)
            await self._subscription.close()
        for task in (*writers, *followers):
            task.result()
        assert positions == sorted(set(positions))
        self.tally.judge(self.acknowledged, [stored.event_id for stored in log])
        self.tally.judge_follower(positions, self.read)
        self.tally.judge_follower(positions, self.followed)
        self.tally.judge_follower(positions, await rows(self.store, self.journal.table, "position"))
        self.tally.judge_follower([s.event_id for s in log], self.published, repeats=True)
        assert self.read == sorted(self.read)
        assert self.followed == sorted(self.followed)

    async def patiently(self, work: Callable[[], Awaitable[object]]) -> None:
        """Again and again until it succeeds: an error is to be one of ours, and no more than that."""
        while True:
            try:
                await work()
            except DatabaseError:
                self.tally.errors += 1
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _write(self, number: int) -> None:
        draw = chance(f"writer {number}")
        while self._writing:
            events = several(draw.randint(1, 3))
            write = self._append_in_transaction if draw.random() < 0.3 else self._append
            await self.patiently(lambda events=events, write=write: write(events))
            self.acknowledged += [event.event_id for event in events]
            await asyncio.sleep(draw.random() / 100)

    async def _append(self, events: list[OrderPlaced]) -> None:
        result = await self.store.append_events(events[0].aggregate_id, "Order", events, 0)
        assert result.new_version == len(events)

    async def _append_in_transaction(self, events: list[OrderPlaced]) -> None:
        async with self.store.transaction() as tx:
            await tx.append_events(events[0].aggregate_id, "Order", events[:1], 0)
            if events[1:]:
                await tx.append_events(events[0].aggregate_id, "Order", events[1:], 1)

    async def _read_on(self) -> None:
        while not self._is_over:
            await self.patiently(self._read_page)
            await asyncio.sleep(0.002)

    async def _read_page(self) -> None:
        last = self.read[-1] if self.read else 0
        async for stored in self.store.read_all(ReadOptions(from_position=last)):
            self.read.append(stored.global_position)

    async def _follow(self) -> None:
        """An iteration that an error has ended is begun anew, behind what it saw last."""

        async def follow() -> None:
            await self._subscription.close()
            if self._is_over:
                return
            last = self.followed[-1] if self.followed else 0
            self._subscription = self.store.subscribe(last, poll_seconds=0.2)
            async for stored in self._subscription:
                self.followed.append(stored.global_position)

        await self.patiently(follow)

    async def _project(self) -> None:
        await self.patiently(self._runner.run)

    async def publish(self, entry) -> None:
        """What the relay calls."""
        self.published.append(entry.event_id)

    async def _until_seen(self, head: int, ids: set[UUID], followers: list[asyncio.Task[None]]) -> None:
        async def look() -> None:
            while True:
                for task in followers:
                    if task.done():
                        task.result()
                health = await self._runner.health()
                seen = [self.read[-1:], self.followed[-1:]]
                if seen == [[head], [head]] and health.position >= head and ids <= set(self.published):
                    return
                await asyncio.sleep(0.02)

        await asyncio.wait_for(look(), 120)
