"""A writer process for the torture tests: appends until it has enough, and says what was acknowledged.

Each line on standard output is one acknowledged append: its batch id. It is printed after the append
returned and before the next one begins, so that a killed process has claimed nothing that is not stored.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any
from uuid import UUID, uuid4

from esource import DomainEvent, EventStore, open_store, register_event


@register_event
class Written(DomainEvent):
    aggregate_type: str = "Torture"
    batch_id: UUID
    batch_size: int
    is_void: bool = False
    """Written in a transaction that is rolled back: nobody may ever see it."""


class RolledBack(Exception):
    """Raised on purpose inside a transaction."""


def batch(chance: random.Random, *, is_void: bool = False) -> list[Written]:
    batch_id, stream, size = uuid4(), UUID(int=chance.randrange(40)), chance.randint(1, 5)
    return [
        Written(aggregate_id=stream, batch_id=batch_id, batch_size=size, is_void=is_void) for _ in range(size)
    ]


async def append_once(store: EventStore, chance: random.Random) -> list[Written]:
    """One append, as applications make them; the events that are stored now."""
    events = batch(chance)
    stream = events[0].aggregate_id
    draw = chance.random()
    if draw < 0.05:
        try:
            async with store.transaction() as transaction:
                void = batch(chance, is_void=True)
                await transaction.append_events(void[0].aggregate_id, "Torture", void)
                raise RolledBack
        except RolledBack:
            return []
    if draw < 0.15:
        async with store.transaction() as transaction:
            await transaction.append_events(stream, "Torture", events[:1])
            await asyncio.sleep(0)
            if events[1:]:
                await store.append_events(stream, "Torture", events[1:])
    else:
        await store.append_events(stream, "Torture", events)
    return events


async def write(url: str, tasks: int, enough: int, seed: int, **options: Any) -> None:
    written = 0

    async def work(store: EventStore, number: int) -> None:
        nonlocal written
        chance = random.Random(seed * 1000 + number)
        while written < enough:
            events = await append_once(store, chance)
            if events:
                written += len(events)
                sys.stdout.write(f"{events[0].batch_id} {len(events)}\n")
                sys.stdout.flush()

    # Killing a process takes nothing from the operating system: NORMAL is as safe here, and faster.
    on_sqlite = {"busy_timeout": 30_000, "synchronous": "NORMAL"}
    options = {**(on_sqlite if url.startswith("sqlite") else {}), **options}
    async with open_store(url, enable_tracing=False, **options) as store:
        await asyncio.gather(*(work(store, number) for number in range(tasks)))


if __name__ == "__main__":
    given = dict(option.split("=") for option in sys.argv[5:])
    asyncio.run(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), **given))
