"""One crew of workers over all logs of a directory: each reads its own logs only, and a dead log holds up no other."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from support.orders import OrderPlaced, placed, several
from support.read_models import until
from support.schemas import execute

from esource import Lease, OutboxRelay, Projection, ProjectionRunner, handles
from esource.database.cancellation import uninterrupted
from esource.directory import Crew
from esource.directory import crew as crew_module
from esource.directory.crew import shares
from esource.errors import InvalidOptionError
from esource.projections import share as reading

QUICK = 0.4
"""The length of a lease, in seconds."""


class Told(Projection):
    """Tells which events of which log it was given."""

    name = "told"
    progress = "after_event"

    def __init__(self, log: str, told: Counter) -> None:
        self.log = log
        self.told = told

    @handles(OrderPlaced)
    async def placed(self, event, context):
        self.told[self.log, context.position] += 1


async def filled(directory, names, events: int):
    """Logs with so many events each; what a projection over all of them is to be told."""
    for name in names:
        await directory.create(name)
        store = await directory.log(name)
        batch = several(events)
        await store.append_events(batch[0].aggregate_id, "Order", batch, 0)
    return {(name, position): 1 for name in names for position in range(1, events + 1)}


def told_of(told: Counter):
    """What makes the runner of a log."""

    def follow(store):
        return ProjectionRunner(
            store,
            Told(store.reader.database.schema or store.database.split("/")[-1][:-3], told),
            lease_seconds=QUICK,
        )

    return follow


@pytest.mark.slow
async def test_a_projection_over_sixteen_logs_with_four_workers_reads_each_event_once(
    directory, empty_database_url, open_directories, monkeypatch
):
    names = [f"log{number:02}" for number in range(16)]
    expected = await filled(directory, names, 10)
    read = 0
    page_after = reading.page_after

    async def counted(*arguments):
        nonlocal read
        rows = await page_after(*arguments)
        read += len(rows)
        return rows

    monkeypatch.setattr(reading, "page_after", counted)
    told: Counter = Counter()
    others = [directory, *[await open_directories(empty_database_url) for _ in range(3)]]
    crews = [Crew(each, "told", told_of(told), lease_seconds=60) for each in others]
    for crew in crews:  # all are known before the first begins
        await directory.records.create_tables()
        await directory.records.present("told", crew.owner, 60)
    for crew in crews:
        await crew.__aenter__()
    await until(lambda: sum(told.values()) >= len(expected))
    assert [len(crew.logs) for crew in crews] == [4] * 4
    assert sorted(name for crew in crews for name in crew.logs) == names
    for crew in crews:
        await crew.__aexit__(None, None, None)
    assert told == expected
    assert read == len(expected)


@pytest.mark.slow
async def test_logs_that_come_later_are_worked_on_and_a_worker_that_ends_is_replaced(directory):
    told: Counter = Counter()
    expected = await filled(directory, ["red", "blue"], 2)
    first = Crew(directory, "told", told_of(told), lease_seconds=QUICK)
    async with Crew(directory, "told", told_of(told), lease_seconds=QUICK) as second:
        async with first:
            await until(lambda: told == expected and len(first.logs) == len(second.logs) == 1)
            expected |= await filled(directory, ["green", "white"], 2)
            await until(lambda: told == expected and len(first.logs) == len(second.logs) == 2)
        await until(lambda: len(second.logs) == 4)
        for name in ("red", "blue", "green", "white"):
            event = placed()
            await (await directory.log(name)).append_events(event.aggregate_id, "Order", [event], 0)
            expected[name, 3] = 1
        await until(lambda: told == expected)


async def test_a_worker_that_died_is_replaced_when_its_time_is_over(directory):
    told: Counter = Counter()
    expected = await filled(directory, ["red", "blue"], 2)
    await directory.records.present("told", "a worker that died", QUICK)
    async with Crew(directory, "told", told_of(told), lease_seconds=QUICK) as crew:
        await until(lambda: told == expected)
        assert crew.logs == ["blue", "red"]


async def test_a_dead_log_holds_up_no_other_and_health_says_which(directory):
    told: Counter = Counter()
    expected = await filled(directory, ["blue", "red"], 2)
    where = directory.places.resolve(directory.places.usual("blue"))
    prefix = "" if directory.places.in_files else "blue."
    await execute(where.render_as_string(hide_password=False), f"ALTER TABLE {prefix}events RENAME TO lost")
    async with Crew(directory, "told", told_of(told), lease_seconds=QUICK) as crew:
        await until(lambda: all(told[key] for key in expected if key[0] == "red"))
        await until(lambda: crew.health_now()["blue"].failures or crew.health_now()["blue"].last_error)
        health = {}

        async def red_has_caught_up() -> bool:
            health.update(await crew.health())
            return health["red"].lag_events == 0  # the checkpoint comes after the handler

        await until(red_has_caught_up)
        assert health["red"].state == "running"
        assert health["blue"].last_error
        await execute(
            where.render_as_string(hide_password=False), f"ALTER TABLE {prefix}lost RENAME TO events"
        )
        await until(lambda: told == expected)


async def test_relays_of_all_logs_share_the_work(empty_database_url, open_directories):
    published: Counter = Counter()

    class Broker:
        async def publish(self, message):
            published[message.event_id] += 1

    directory = await open_directories(empty_database_url, outbox_enabled=True)
    for name in ("red", "blue"):
        await directory.create(name)
        event = placed()
        await (await directory.log(name)).append_events(event.aggregate_id, "Order", [event], 0)
    async with Crew(directory, "relay", lambda store: OutboxRelay(store, Broker()), lease_seconds=QUICK):
        await until(lambda: len(published) == 2)
    assert set(published.values()) == {1}


async def test_a_coroutine_follows_each_log_and_is_begun_again_after_a_failure(directory):
    await filled(directory, ["blue", "red"], 2)
    seen: Counter = Counter()

    async def follow(store):
        async with Lease(store, "mailer", seconds=QUICK), store.subscribe(checkpoint="mailer") as events:
            async for stored in events:
                seen[store.name, stored.global_position] += 1
                if sum(seen.values()) == 1:
                    raise ValueError("once")
                await events.save()

    async with Crew(directory, "mailer", follow, lease_seconds=QUICK) as crew:
        await until(lambda: len(seen) == 4)
        assert [health.kind for health in crew.health_now().values()] == ["subscription"] * 2
    assert sorted(seen.values()) == [1, 1, 1, 2]


async def test_what_is_no_follower_is_refused(directory, caplog):
    with pytest.raises(InvalidOptionError, match="follow must be a function"):
        Crew(directory, "told", None)
    await directory.create("red")
    async with Crew(directory, "told", lambda store: store, lease_seconds=QUICK):
        await until(lambda: "follow must make a ProjectionRunner or an OutboxRelay" in caplog.text)


def test_shares_are_even_and_change_little_when_a_worker_comes():
    logs = [f"log{number}" for number in range(100)]
    before = shares(logs, ["a", "b", "c"])
    after = shares(logs, ["a", "b", "c", "d"])
    assert sorted(map(len, before.values())) == [33, 33, 34]
    assert sorted(map(len, after.values())) == [25] * 4
    assert set().union(*after.values()) == set(logs)
    moved = sum(len(after[worker] - before[worker]) for worker in before)
    assert moved < 30


async def test_a_worker_looks_once_when_it_is_called(directory, monkeypatch):
    expected = await filled(directory, ["red"], 1)
    looks, present = 0, directory.records.present

    async def counted(*arguments):
        nonlocal looks
        looks += 1
        return await present(*arguments)

    monkeypatch.setattr(directory.records, "present", counted)
    told: Counter = Counter()
    async with Crew(directory, "told", told_of(told), lease_seconds=600) as crew:
        await until(lambda: told == expected)
        crew._pause.call()
        await until(lambda: looks == 2)
        event = placed()
        await (await directory.log("red")).append_events(event.aggregate_id, "Order", [event], 0)
        await until(lambda: told["red", 2])
        assert looks == 2


async def test_whatever_keeps_a_worker_from_its_directory_does_not_end_it(directory, monkeypatch):
    expected = await filled(directory, ["red"], 1)
    present, failures = directory.records.present, [RuntimeError("of any kind"), OSError("of another")]

    async def failing(*arguments):
        if failures:
            raise failures.pop()
        return await present(*arguments)

    monkeypatch.setattr(directory.records, "present", failing)
    told: Counter = Counter()
    async with Crew(directory, "told", told_of(told), lease_seconds=QUICK):
        await until(lambda: told == expected)


async def test_work_that_cannot_be_ended_soon_holds_up_no_other(directory):
    await directory.create("blue")
    began, let_go = asyncio.Event(), asyncio.Event()

    async def follow(store):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            if "blue" in store.name:
                await let_go.wait()

    async with Crew(directory, "mailer", follow, lease_seconds=QUICK) as crew:
        await began.wait()
        await directory.forget("blue")
        await until(lambda: not crew.logs)
        await directory.create("red")
        await until(lambda: crew.logs == ["red"])
        let_go.set()


async def test_a_directory_that_does_not_answer_does_not_keep_a_worker_from_ending(directory, monkeypatch):
    monkeypatch.setattr(crew_module, "ANSWER_SECONDS", QUICK)
    expected = await filled(directory, ["red"], 1)
    told: Counter = Counter()
    asked = asyncio.Event()

    async def silent(*_):
        asked.set()
        await asyncio.Event().wait()

    async with Crew(directory, "told", told_of(told), lease_seconds=QUICK) as crew:
        await until(lambda: told == expected)
        crew._seconds = 600  # one that waits for its directory for long ends all the same
        for question in ("present", "leave"):
            monkeypatch.setattr(directory.records, question, silent)
        await asked.wait()


async def test_a_log_whose_work_does_not_end_does_not_keep_a_worker_from_ending(
    directory, monkeypatch, caplog
):
    for option in ("STOP_SECONDS", "DROP_SECONDS"):
        monkeypatch.setattr(crew_module, option, QUICK)
    await directory.create("blue")
    began, let_go, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def follow(store):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await uninterrupted(let_go.wait())
            finally:
                has_ended.set()

    async with Crew(directory, "mailer", follow, lease_seconds=QUICK) as crew:
        await began.wait()
    assert "the work on the logs blue has not ended" in caplog.text
    assert crew.logs == []
    let_go.set()
    await has_ended.wait()
    await until(lambda: not crew._late)
