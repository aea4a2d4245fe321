"""Clients of a store that write down their history: appends of every kind, on few streams, and reads in between.

As a program: ``python client.py URL FILE NAME SEED TASKS OPERATIONS``, one process of several. All with one
seed append some of the same events, as clients do that repeat an append whose answer they did not get.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from adversity.histories.history import Recorder
from esource import (
    AppendCondition,
    AppendConditionError,
    DomainEvent,
    DuplicateEventError,
    EventStore,
    ExpectedVersion,
    OptimisticLockError,
    Query,
    QueryItem,
    ReadOptions,
    open_store,
    register_event,
)
from esource.errors import DatabaseBusyError

STREAMS = 3
EXPECTED = {"any": ExpectedVersion.ANY, "exists": ExpectedVersion.STREAM_EXISTS}
KIND = "Recorded"
TAGS = ["t0", "t1", "t2", "t3"]


@register_event
class Recorded(DomainEvent):
    aggregate_type: str = KIND
    number: int = 0


class _RolledBack(Exception):
    pass


ABORTS: tuple[type[Exception], ...] = (_RolledBack, DatabaseBusyError)
"""After these nothing is stored."""


def stream_id(stream: str) -> UUID:
    return uuid5(UUID(int=0), stream)


def query_of(items: list[list[str]]) -> Query:
    return Query(*(QueryItem(tags=tags) for tags in items))


def made(part: dict[str, Any]) -> list[Recorded]:
    """The same events for the same ids, whoever makes them."""
    return [
        Recorded(
            event_id=UUID(event),
            aggregate_id=stream_id(part["stream"]),
            occurred_at=datetime(2024, 1, 1, tzinfo=timezone.utc),
            correlation_id=UUID(int=0),
            number=number,
        )
        for number, event in enumerate(part["events"])
    ]


class Client:
    """One task's operations, one after the other."""

    def __init__(self, store: EventStore, recorder: Recorder, name: str, seed: int) -> None:
        self.store = store
        self.recorder = recorder
        self.seed = seed
        self.chance = random.Random(f"{seed} {name}")
        self.names = {str(stream_id(f"s{number}")): f"s{number}" for number in range(STREAMS)}
        self.versions = dict.fromkeys(self.names.values(), 0)
        """What it believes of the streams, by its last look at each."""
        self.position = 0
        """How far it has followed the log."""
        self.asked: list[list[dict[str, Any]]] = []
        self.shared = 0
        self.doings: list[Callable[[], Awaitable[None]]] = [
            *[self.append_somehow] * 6,
            *[self.append_at_known_version] * 6,
            *[self.append_in_transaction] * 3,
            *[self.append_on_condition] * 6,
            self.roll_back,
            self.repeat,
            *[self.append_shared] * 2,
            self.steal,
            self.cancel,
            *[self.follow] * 6,
            *[self.read_stream] * 3,
            self.read_few,
        ]

    async def work(self, operations: int) -> None:
        for _ in range(operations):
            await self.chance.choice(self.doings)()
        await self.follow()

    # -- appends ---------------------------------------------------------------------------------------

    def part(self, expected: Any = "any", stream: str | None = None) -> dict[str, Any]:
        chance = self.chance
        events = [str(UUID(int=chance.getrandbits(128))) for _ in range(chance.choice([1, 1, 2, 3, 5]))]
        return {
            "stream": stream or chance.choice(list(self.versions)),
            "expected": expected,
            "events": events,
            "tags": chance.sample(TAGS, chance.choice([0, 1, 1, 2])),
        }

    async def append_somehow(self) -> None:
        await self.append([self.part(self.chance.choice(["any", "any", "exists", 0, 1, 2, 5]))])

    async def append_at_known_version(self) -> None:
        stream = self.chance.choice(list(self.versions))
        if self.chance.random() < 0.7:
            await self.read_stream(stream)
        await self.append([self.part(self.versions[stream], stream)])

    async def append_in_transaction(self) -> None:
        first = self.part()
        version = self.versions[first["stream"]]
        more = [self.part(), self.part("exists"), self.part(version + len(first["events"]), first["stream"])]
        await self.append([first, self.chance.choice(more)])

    async def append_on_condition(self) -> None:
        """As a decision does; or by what was known long ago, or beside a version, or first in a transaction."""
        chance = self.chance
        items = [chance.sample(TAGS, chance.choice([1, 1, 2])) for _ in range(chance.choice([1, 1, 2]))]
        after = self.position
        if chance.random() < 0.7:
            after = await self.read_query(items, chance.choice([0, after]))
        stream = chance.choice(list(self.versions))
        part = self.part(chance.choice(["any", "any", self.versions[stream]]), stream)
        more = [self.part()] if chance.random() < 0.2 else []
        await self.append([{**part, "condition": {"items": items, "after": after}}, *more])

    async def roll_back(self) -> None:
        await self.append([self.part(), self.part()], rolls_back=True)

    async def repeat(self) -> None:
        if self.asked:
            parts = self.chance.choice(self.asked)
            expected = parts[0]["expected"]
            if len(parts) == 1 and self.chance.random() < 0.3:
                expected = self.chance.choice(["any", "exists", 7])
            await self.append([{**parts[0], "expected": expected}, *parts[1:]])

    async def append_shared(self) -> None:
        """What every client appends at some time: one stores it, the others are told that it is stored."""
        chance = random.Random(f"{self.seed} shared {self.shared}")
        self.shared += 1
        events = [str(UUID(int=chance.getrandbits(128))) for _ in range(chance.randint(1, 3))]
        await self.append([{"stream": f"s{chance.randrange(STREAMS)}", "expected": "any", "events": events}])

    async def steal(self) -> None:
        """Event ids of one stream in another one."""
        if self.asked:
            part = self.chance.choice(self.asked)[0]
            others = [stream for stream in self.versions if stream != part["stream"]]
            await self.append([{**part, "expected": "any", "stream": self.chance.choice(others)}], keep=False)

    async def append(
        self, parts: list[dict[str, Any]], *, rolls_back: bool = False, keep: bool = True
    ) -> None:
        if keep and not rolls_back:
            self.asked.append(parts)
        name = self.recorder.invoke("append", parts=parts)
        done: list[dict[str, Any]] = []
        try:
            if len(parts) == 1:
                done.append(await self._append_part(parts[0]))
            else:
                async with self.store.transaction() as transaction:
                    for part in parts:
                        joined = {} if self.chance.random() < 0.5 else {"connection": transaction.connection}
                        done.append(await self._append_part(part, **joined))
                        await asyncio.sleep(0.001)  # others run into it
                    if rolls_back:
                        raise _RolledBack
        except AppendConditionError as error:
            self.recorder.complete(name, "conflict", part=len(done), match=error.global_position)
        except OptimisticLockError as error:
            self.recorder.complete(name, "conflict", part=len(done), actual=error.actual_version)
        except DuplicateEventError:
            self.recorder.complete(name, "duplicate", part=len(done))
        except ABORTS:
            self.recorder.complete(name, "aborted")
        else:
            self.recorder.complete(name, "ok", parts=done)
            for part, told in zip(parts, done, strict=True):
                self.versions[part["stream"]] = max(self.versions[part["stream"]], told["version"])

    async def _append_part(self, part: dict[str, Any], **options: Any) -> dict[str, Any]:
        if "condition" in part:
            condition = part["condition"]
            options["condition"] = AppendCondition(query_of(condition["items"]), condition["after"])
        result = await self.store.append_events(
            stream_id(part["stream"]),
            KIND,
            made(part),
            EXPECTED.get(part["expected"], part["expected"]),
            tags=part.get("tags", ()),
            **options,
        )
        return {
            "version": result.new_version,
            "position": result.global_position,
            "repeated": result.idempotent,
        }

    async def cancel(self) -> None:
        """Give an append up on its way; what became of it is not known."""
        task = asyncio.create_task(self.append([self.part()]))
        for _ in range(self.chance.randrange(6)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # -- reads -----------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """As a projection does: from where it has come to, to the end."""
        self.position = await self.read_log(self.position, None) or self.position

    async def read_few(self) -> None:
        await self.read_log(self.chance.choice([0, self.position // 2]), self.chance.randint(1, 20))

    async def read_log(self, after: int, limit: int | None) -> int:
        name = self.recorder.invoke("read_log", after=after, limit=limit)
        options = ReadOptions(from_position=after, limit=limit)
        events = [
            [stored.global_position, self.names[str(stored.aggregate_id)], stored.stream_position, str(stored.event_id)]
            async for stored in self.store.read_all(options)
        ]  # fmt: skip
        self.recorder.complete(name, "ok", events=events)
        return max((event[0] for event in events), default=0)

    async def read_query(self, items: list[list[str]], after: int) -> int:
        name = self.recorder.invoke("read_query", items=items, after=after)
        found = await self.store.read_query(query_of(items), after)
        positions = [stored.global_position for stored in found.events]
        self.recorder.complete(name, "ok", positions=positions, head=found.head)
        return found.head

    async def read_stream(self, stream: str | None = None) -> None:
        stream = stream or self.chance.choice(list(self.versions))
        after = self.chance.choice([0, self.versions[stream], max(0, self.versions[stream] - 3)])
        name = self.recorder.invoke("read_stream", stream=stream, after=after)
        found = await self.store.get_events(stream_id(stream), KIND, from_version=after)
        self.recorder.complete(
            name, "ok", events=[[event.aggregate_version, str(event.event_id)] for event in found.events]
        )
        self.versions[stream] = max(self.versions[stream], found.version)


async def run(url: str, path: str, name: str, seed: int, tasks: int, operations: int) -> None:
    """One process's clients."""
    # A process takes nothing from the operating system with it when it dies: NORMAL is as safe here.
    options = {"busy_timeout": 60_000, "synchronous": "NORMAL"} if url.startswith("sqlite") else {}
    async with open_store(url, enable_tracing=False, **options) as store:
        recorders = [Recorder(Path(f"{path}.{task}"), f"{name}.{task}") for task in range(tasks)]
        clients = [Client(store, recorder, f"{name}.{task}", seed) for task, recorder in enumerate(recorders)]
        await asyncio.gather(*(client.work(operations) for client in clients))


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4], *map(int, sys.argv[4:])))
