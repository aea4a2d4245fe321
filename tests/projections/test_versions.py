"""Rebuilding a read model, and building its next version beside it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from support.orders import OrderPlaced
from support.read_models import Journal, Letters, append, catch_up, journal_table, rows, running, until

from esource import (
    CheckpointRepository,
    DLQRepository,
    EventStore,
    InvalidOptionError,
    ProjectionContext,
    ProjectionFailedError,
    ProjectionRunner,
    active_version,
    handles,
)


class Second(Journal):
    """The same, but it is its own version, and says what it saw when it took over."""

    name = "journal"
    version = 2

    def __init__(self) -> None:
        super().__init__()
        self.at_the_switch: list[tuple[int, int]] = []

    async def take_over(self, connection: AsyncConnection) -> None:
        last = text("SELECT max(global_position) FROM events")
        self.at_the_switch.append(
            (
                (await connection.execute(last)).scalar_one(),
                max((await connection.execute(select(self.table.c.position))).scalars(), default=0),
            )
        )


# -- rebuilding -------------------------------------------------------------------------------------


async def test_a_rebuild_begins_from_nothing_and_tells_how_far_it_is(store: EventStore):
    class Batched(Journal):
        name = "batched"
        batch_size = 2

    positions = await append(store, *"abcde")
    batched, reports = Batched(), []
    runner = await catch_up(store, batched)
    async with store.transaction() as transaction:
        await transaction.connection.execute(batched.table.delete().where(batched.table.c.position == 3))
    await runner.rebuild(on_progress=reports.append)
    assert await rows(store, batched.table, "position") == positions
    assert [report.position for report in reports] == [2, 4, 5]
    assert {report.head for report in reports} == {5}
    assert [report.events for report in reports] == [7, 9, 10]
    assert all(report.events_per_second > 0 for report in reports)


async def test_a_rebuild_from_a_position_leaves_the_rest_to_the_reset(store: EventStore, caplog):
    class Part(Journal):
        name = "part"

        async def reset(self, connection: AsyncConnection) -> None:
            await connection.run_sync(lambda sync: self.table.create(sync, checkfirst=True))
            await connection.execute(self.table.delete().where(self.table.c.position > 2))

    positions = await append(store, *"abcd")
    part = Part()
    runner = await catch_up(store, part)
    part.calls.clear()
    await runner.rebuild(from_position=2)
    assert part.calls == ["c", "d"]
    assert await rows(store, part.table, "position") == positions
    await catch_up(store, part)
    assert "were not handled" not in caplog.text
    with pytest.raises(InvalidOptionError, match="from_position"):
        await runner.rebuild(from_position=-1)


@pytest.mark.awaited
@pytest.mark.slow
async def test_a_rebuild_under_a_live_worker_loses_and_repeats_nothing(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    journal = Journal()
    worker = ProjectionRunner(stores[0], journal, poll_seconds=0.05, lease_seconds=0.3)
    written: list[int] = []
    async with running(worker):
        for _ in range(3):
            written += await append(stores[0], *"abcdefghij")
            await ProjectionRunner(stores[1], Journal()).rebuild()
            written += await append(stores[0], *"abcdefghij")

        async def is_done():
            return await CheckpointRepository(stores[0]).get_position("journal") == written[-1]

        await until(is_done)
    assert await rows(stores[0], journal.table, "position") == written


async def test_a_rebuild_does_not_wait_for_an_idle_worker(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    positions = await append(stores[0], *"abc")
    journal = Journal()
    async with running(ProjectionRunner(stores[0], journal, poll_seconds=600, lease_seconds=600)):
        await until(lambda: len(journal.calls) == 3)
        await asyncio.wait_for(ProjectionRunner(stores[1], Journal()).rebuild(), 30)
    assert await rows(stores[0], journal.table, "position") == positions


async def test_a_rebuild_closes_the_dead_letters_that_it_meets_again(store: EventStore):
    class Halting(Journal):
        name = "halting"
        on_failure = "halt_stream"

    positions = await append(store, "bad", "a", stream=uuid4())
    halting = Halting()
    halting.bad = {"bad"}
    runner = await catch_up(store, halting)
    halting.bad = set()
    await runner.rebuild()
    assert await rows(store, halting.table, "position") == positions
    letters = await DLQRepository(store).get_failed_events("halting", status=None)
    assert {letter.resolved_by for letter in letters} == {"rebuild"}


async def test_a_rebuild_that_fails_goes_on_where_it_stopped(store: EventStore):
    positions = await append(store, "a", "b", "bad", "c")
    journal = Journal()
    runner = await catch_up(store, journal)
    journal.bad = {"bad"}
    with pytest.raises(ProjectionFailedError):
        await runner.rebuild()
    journal.bad = set()
    await runner.run(live=False)
    assert await rows(store, journal.table, "position") == positions


# -- the next version -------------------------------------------------------------------------------


@pytest.mark.awaited
async def test_the_first_version_to_run_is_the_active_one(store: EventStore):
    assert await active_version(store, "journal") is None
    second = Second()
    await catch_up(store, second)
    assert await active_version(store, "journal") == 2
    assert second.at_the_switch == []  # there was nothing to take over from


@pytest.mark.awaited
async def test_a_checkpoint_from_before_there_were_versions_is_the_first(store: EventStore):
    [position] = await append(store, "a")
    await CheckpointRepository(store).save_position("journal", position, uuid4(), "OrderPlaced")
    assert await active_version(store, "journal") == 1
    second = Second()
    await catch_up(store, second)
    assert second.calls == ["a"]
    assert await active_version(store, "journal") == 2


@pytest.mark.awaited
async def test_a_new_version_takes_over_when_it_has_caught_up(store: EventStore):
    positions = await append(store, *"abc")
    first, second = Journal(), Second()
    await catch_up(store, first)
    second.bad = {"b"}
    with pytest.raises(ProjectionFailedError, match="journal@2"):
        await catch_up(store, second)
    assert await active_version(store, "journal") == 1
    second.bad = set()
    await catch_up(store, second)
    assert await active_version(store, "journal") == 2
    assert second.at_the_switch == [(positions[-1], positions[-1])]
    positions += await append(store, "d")
    await catch_up(store, second)
    assert await rows(store, second.table, "position") == positions
    assert len(second.at_the_switch) == 1


async def test_the_old_version_does_not_run_any_more(store: EventStore):
    positions = await append(store, "a")
    first = Journal()
    await catch_up(store, first)
    await catch_up(store, Second())
    await append(store, "b")
    await catch_up(store, first)
    assert await rows(store, first.table, "position") == positions


@pytest.mark.awaited
@pytest.mark.parametrize("partitions", [1, 3])
async def test_the_switch_loses_nothing_while_appends_go_on(
    shared_database_url, open_stores, partitions: int
):
    stores = [await open_stores(shared_database_url) for _ in range(3)]
    first, second = Journal(), Second()
    options = {"partitions": partitions, "lease_seconds": 0.5, "poll_seconds": 0.05}
    await append(stores[0], *"abcdef")
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            await append(stores[0], "x")
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    old = asyncio.create_task(ProjectionRunner(stores[1], first, **options).run())
    await until(lambda: len(first.calls) >= 6)
    async with running(ProjectionRunner(stores[2], second, **options)):
        await asyncio.wait_for(old, 60)  # ends by itself
        assert await active_version(stores[0], "journal") == 2
        done.set()
        await writing

        async def is_done():
            head = await stores[0].get_global_position()
            lists = await rows(stores[0], second.table, "position")
            return sorted(lists) == list(range(1, head + 1))

        await until(is_done)
    [(head, position)] = second.at_the_switch
    assert head == position  # nothing was appended between the last event and the switch


async def test_two_workers_of_the_new_version_switch_once(shared_database_url, open_stores):
    stores = [await open_stores(shared_database_url) for _ in range(2)]
    positions = await append(stores[0], *"abcdef")
    await catch_up(stores[0], Journal())
    versions = [Second(), Second()]
    await asyncio.gather(
        *(catch_up(each, version, partitions=4) for each, version in zip(stores, versions, strict=True))
    )
    assert sum(len(version.at_the_switch) for version in versions) == 1
    assert sorted(await rows(stores[0], versions[0].table, "position")) == positions


async def test_the_old_tables_may_be_dropped_in_the_switch(store: EventStore):
    """The old version's worker meets a missing table, and knows why."""

    class Renames(Journal):
        name = "renames"
        version = 2

        async def take_over(self, connection: AsyncConnection) -> None:
            await connection.execute(text("DROP TABLE journal_1"))

    class Old(Journal):
        name = "renames"

    old = Old()
    async with running(ProjectionRunner(store, old, poll_seconds=600)):
        await append(store, "a")
        await until(lambda: old.calls == ["a"])
        await catch_up(store, Renames())
        await append(store, "b")
    async with store.transaction() as transaction:
        names = await transaction.connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert "journal_1" not in names


@pytest.mark.awaited
async def test_a_switch_that_fails_changes_nothing(store: EventStore):
    class Fails(Second):
        async def take_over(self, connection: AsyncConnection) -> None:
            await connection.run_sync(journal_table("half").create)
            raise RuntimeError("no")

    await append(store, "a")
    await catch_up(store, Journal())
    with pytest.raises(RuntimeError):
        await catch_up(store, Fails())
    assert await active_version(store, "journal") == 1
    async with store.transaction() as transaction:
        assert "half" not in await transaction.connection.run_sync(
            lambda sync: inspect(sync).get_table_names()
        )


@pytest.mark.awaited
async def test_a_new_version_outside_a_transaction_takes_over_too(store: EventStore):
    class More(Letters):
        version = 2
        name = "letters"

        @handles(OrderPlaced)
        async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None:
            self.sent.append(context.position)

    positions = await append(store, *"abc")
    await catch_up(store, Letters())
    more = More()
    await catch_up(store, more)
    assert more.sent == positions
    assert await active_version(store, "letters") == 2


async def test_a_rebuild_inside_a_transaction_is_refused_before_anything_is_reset(store: EventStore):
    positions = await append(store, "a", "b")
    journal = Journal()
    await ProjectionRunner(store, journal).run(live=False)
    async with store.transaction():
        with pytest.raises(InvalidOptionError, match="outside of yours"):
            await ProjectionRunner(store, journal).rebuild()
    assert await rows(store, journal.table, "position") == positions


async def test_a_rebuild_without_reset_is_refused_unless_told(store: EventStore):
    positions = await append(store, "a")
    letters = Letters()
    await catch_up(store, letters)
    with pytest.raises(InvalidOptionError, match=r"Letters has no reset\(\).*without_reset=True"):
        await ProjectionRunner(store, letters).rebuild()
    assert letters.sent == positions
    await ProjectionRunner(store, letters).rebuild(without_reset=True)
    assert letters.sent == 2 * positions
