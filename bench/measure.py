"""What a worker does between two looks at the clock: one function for each kind of workload.

Events are built before the clock starts and are kept out of garbage collection meanwhile, for everyone
alike: what is measured is storing and reading them.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from bench.contenders import DECIDING
from bench.contenders.base import Contender, Items, Target
from bench.memory import Growth

STREAM_LENGTH = 10
"""Single appends go round streams of this length, so that version checks have something to check."""


HOT_TAG = "all"
"""A tag that every event of a log may have."""

CPU = "BENCH_CPU"
"""The variable of the environment that has a worker count the time that its processor works."""

now = time.process_time if os.environ.get(CPU) else time.monotonic


class Clock:
    """Times a block."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender

    async def start(self, start_at: float | None) -> None:
        gc.collect()
        gc.freeze()
        if start_at is not None:
            await self._contender.pause(max(0.0, start_at - time.monotonic()))
        self.started = now()

    def stop(self) -> None:
        self.ended = now()
        gc.unfreeze()


async def warm_up(contender: Contender, kind: str, tasks: int) -> int:
    """Open every connection, import and prepare everything: none of that is to be measured. The number
    of events that it wrote."""
    if kind in DECIDING:
        return 0
    if kind in ("seed", "read_all", "project", "move"):
        await contender.version(contender.new_stream())
        return 0

    async def touch() -> None:
        if kind == "aggregate":
            await contender.change_aggregate(await contender.new_aggregate(STREAM_LENGTH))
            return
        stream = contender.new_stream()
        await contender.append(stream, [contender.event(stream, 1)], 0)
        await contender.version(stream)
        await contender.load(stream)

    await contender.concurrently([touch() for _ in range(tasks)])
    return tasks * (STREAM_LENGTH + 1 if kind == "aggregate" else 1)


async def append(
    contender: Contender, *, operations: int, tasks: int, batch: int, start_at: float | None = None
) -> dict[str, Any]:
    """Appends of ``batch`` events each, by so many tasks, to streams that nobody else writes."""
    each = max(1, operations // tasks)
    plans = [_plan(contender, each, batch) for _ in range(tasks)]

    async def write(plan: list[tuple[Any, list[Any], int]]) -> None:
        for stream, events, expected in plan:
            await contender.append(stream, events, expected)

    clock = Clock(contender)
    await _timed(contender, clock, [write(plan) for plan in plans], start_at)
    written = each * tasks * batch
    return _result(clock, units=written, written=written)


def _plan(contender: Contender, appends: int, batch: int) -> list[tuple[Any, list[Any], int]]:
    plan = []
    stream, version = contender.new_stream(), 0
    for _ in range(appends):
        if version >= STREAM_LENGTH:
            stream, version = contender.new_stream(), 0
        events = [contender.event(stream, version + step) for step in range(1, batch + 1)]
        plan.append((stream, events, version))
        version += batch
    return plan


async def contend(
    contender: Contender, *, operations: int, tasks: int, execute: bool = False
) -> dict[str, Any]:
    """Tasks that append to ONE stream: read its version, append on top of it, again until it succeeds; or as commands,
    where a contender has a way of its own to execute them."""
    run = contender.execute if execute else contender.append_on_top
    each = max(1, operations // tasks)
    stream = contender.new_stream()
    plans = [[contender.event(stream, 1) for _ in range(each)] for _ in range(tasks)]

    async def write(events: list[Any]) -> int:
        return sum([await run(stream, event) for event in events])

    clock = Clock(contender)
    refused = await _timed(contender, clock, [write(events) for events in plans])
    written = each * tasks
    return _result(clock, units=written, written=written, refused=sum(refused))


async def conditional(
    contender: Contender, *, operations: int, tasks: int, items: int = 1, hot: bool = False
) -> dict[str, Any]:
    """Events of two tags each, appended on the condition that none has come that has both, or those of one of the further
    items; by so many tasks, which never exclude each other."""
    each = max(1, operations // tasks)
    shared = (HOT_TAG,) if hot else ()
    run = uuid4().hex
    # What came before is long known, and nothing of the turn.
    first = await contender.append_if(contender.event(contender.new_stream(), 1), (run, *shared), [(run,)], 0)

    def plan(task: int) -> list[tuple[Any, tuple[str, ...], Items]]:
        found = []
        for step in range(each):
            name = f"{run}-{task}-{step}"
            queried: Items = [(f"course:{name}-{n}", f"student:{name}-{n}", *shared) for n in range(items)]
            found.append((contender.event(contender.new_stream(), 1), queried[0], queried))
        return found

    plans = [plan(task) for task in range(tasks)]

    async def write(plan: list[tuple[Any, tuple[str, ...], Items]]) -> None:
        after = first
        for event, tags, queried in plan:
            after = await contender.append_if(event, tags, queried, after)

    clock = Clock(contender)
    await _timed(contender, clock, [write(plan) for plan in plans])
    return _result(clock, units=each * tasks, written=each * tasks + 1)


async def decision(contender: Contender, *, state: dict[str, Any], operations: int) -> dict[str, Any]:
    """What a decision over a course and a student needs: ten events of each, among those of fifty others, and the head."""
    made, of_each = 50, 10
    written = 0
    if not state:
        state["run"] = uuid4().hex
        for number in range(made * of_each):
            for kind in ("course", "student"):
                tags = (f"{kind}:{state['run']}-{number % made}", f"other:{state['run']}-{number}")
                event = contender.event(contender.new_stream(), 1)
                await contender.append_if(event, tags, [tags], written)
        written = made * of_each * 2

    async def read() -> None:
        for index in range(operations):
            name = f"{state['run']}-{index % made}"
            found = await contender.read_decision([(f"course:{name}",), (f"student:{name}",)])
            if found != 2 * of_each:
                raise AssertionError(f"{2 * of_each} events of a decision came back as {found}")

    clock = Clock(contender)
    await _timed(contender, clock, [read()])
    return _result(clock, units=operations, written=written)


async def enrol(contender: Contender, *, operations: int, people: int) -> dict[str, Any]:
    """So many students, as many courses, and every student in every course; again and again with others."""
    runs = [uuid4().hex for _ in range(max(1, operations // people**2))]

    async def enrol_all() -> int:
        names = [[f"{run}-{number}" for number in range(people)] for run in runs]
        return sum([await contender.enrol(each, each) for each in names])

    clock = Clock(contender)
    [written] = await _timed(contender, clock, [enrol_all()])
    return _result(clock, units=len(runs) * people**2, written=written)


async def load(contender: Contender, *, state: dict[str, Any], operations: int, size: int) -> dict[str, Any]:
    """Whole streams, decoded into typed events."""
    written = 0
    streams = state.setdefault(f"streams of {size}", [])
    while len(streams) < max(1, min(50, 2000 // size)):
        stream = contender.new_stream()
        for start in range(0, size, 1000):
            events = [contender.event(stream, start + step) for step in range(1, min(1000, size - start) + 1)]
            await contender.append(stream, events, start)
        written += size
        streams.append(stream)

    async def read() -> None:
        for index in range(operations):
            found = await contender.load(streams[index % len(streams)])
            if found != size:
                raise AssertionError(f"a stream of {size} events came back with {found}")

    clock = Clock(contender)
    await _timed(contender, clock, [read()])
    return _result(clock, units=operations * size, written=written)


async def read_all(contender: Contender, *, events: int, envelopes: bool) -> dict[str, Any]:
    """The whole log, and how far the process grew above what it was before."""
    clock, growth = Clock(contender), Growth()
    await clock.start(None)
    found = await (contender.read_envelopes() if envelopes else contender.read_all())
    clock.stop()
    memory = growth.mebibytes()
    if found != events:
        raise AssertionError(f"a log of {events} events came back with {found}")
    return _result(clock, units=found, written=0, memory_mib=memory)


async def project(contender: Contender, *, events: int) -> dict[str, Any]:
    """A read model in SQL, from the start of the log to its end."""
    clock = Clock(contender)
    await clock.start(None)
    counted = await contender.project(events)
    clock.stop()
    if counted != events:
        raise AssertionError(f"a read model of {events} events has counted {counted}")
    return _result(clock, units=counted, written=0)


async def move(contender: Contender, *, source: dict[str, Any], events: int) -> dict[str, Any]:
    """The whole log of another database, and how far the process grew on the way."""
    origin = Target(**source)
    await contender.prepare_move(origin)
    clock, growth = Clock(contender), Growth()
    await clock.start(None)
    await contender.move(origin)
    clock.stop()
    return _result(clock, units=events, written=events, memory_mib=growth.mebibytes())


async def aggregate(contender: Contender, *, operations: int, tasks: int) -> dict[str, Any]:
    """Load an aggregate of ten events, give it a command, save the one event that comes of it."""
    each = max(1, operations // tasks)
    made = [await contender.new_aggregate(STREAM_LENGTH) for _ in range(each * tasks)]
    plans = [made[start : start + each] for start in range(0, len(made), each)]

    async def change(identifiers: list[Any]) -> None:
        for identifier in identifiers:
            await contender.change_aggregate(identifier)

    clock = Clock(contender)
    await _timed(contender, clock, [change(plan) for plan in plans])
    changes = each * tasks
    return _result(clock, units=changes, written=changes * (STREAM_LENGTH + 1))


async def seed(contender: Contender, *, events: int, tagged: bool = False) -> dict[str, Any]:
    """The first events of a log, for the controller to multiply; with two tags of their own each and one that all have."""
    for number in range(events if tagged else 0):
        tags = (f"course:#{number % 100}", f"student:#{number}", HOT_TAG)
        await contender.append_if(contender.event(contender.new_stream(), 1), tags, [("none",)], 0)
    if tagged:
        return {"written": events}
    for _ in range(events // STREAM_LENGTH):
        stream = contender.new_stream()
        batch = [contender.event(stream, step) for step in range(1, STREAM_LENGTH + 1)]
        await contender.append(stream, batch, 0)
    return {"written": events // STREAM_LENGTH * STREAM_LENGTH}


async def _timed(
    contender: Contender, clock: Clock, works: list[Coroutine[Any, Any, Any]], start_at: float | None = None
) -> list[Any]:
    await clock.start(start_at)
    try:
        return await contender.concurrently(works)
    finally:
        clock.stop()


def _result(clock: Clock, *, units: int, written: int, **more: Any) -> dict[str, Any]:
    return {"started": clock.started, "ended": clock.ended, "units": units, "written": written, **more}
