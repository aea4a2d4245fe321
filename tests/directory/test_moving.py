"""A log moves to another place while it is written to, and what has it open follows."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select
from support.commands import esource
from support.orders import placed
from support.read_models import Journal, Letters, until

from esource import CheckpointRepository, DLQRepository, ProjectionRunner, open_store
from esource.copying import cut_over
from esource.errors import InvalidOptionError, StoreMovedError


def elsewhere(directory, name: str = "elsewhere"):
    """Another place for a log."""
    if directory.places.in_files:
        return directory.places.resolve(f"elsewhere/{name}.db")
    return directory.places.resolve(f"?schema={name}")


async def append_one(store):
    event = placed()
    result = await store.append_events(event.aggregate_id, "Order", [event], 0)
    return result.global_position, event.event_id


async def all_of(store):
    return [(stored.global_position, stored.event_id) async for stored in store.read_all()]


async def is_moved(store):
    return await store.reader.database.moved_to() is not None


@pytest.fixture
async def red(directory):
    await directory.create("red")
    return await directory.log("red")


async def test_writers_and_followers_go_along_and_nothing_is_lost_or_told_twice(directory, red):
    written, seen, stop = [], [], asyncio.Event()

    async def write():
        while not stop.is_set():
            written.append(await append_one(red))

    async def follow():
        async for stored in red.subscribe(poll_seconds=0.1):
            seen.append((stored.global_position, stored.event_id))

    writers = [asyncio.create_task(write()) for _ in range(3)]
    follower = asyncio.create_task(follow())
    await until(lambda: len(written) > 20)
    before = red.name
    await directory.move("red", elsewhere(directory))
    count = len(written)
    await until(lambda: len(written) > count + 20)
    stop.set()
    await asyncio.gather(*writers)
    await until(lambda: len(seen) == len(written))
    follower.cancel()
    await asyncio.wait([follower])
    assert red.name != before
    assert seen == sorted(written) == await all_of(red)
    async with open_store(elsewhere(directory)) as there:
        assert await all_of(there) == seen
    assert await directory.log("red") is red
    assert (await directory.entry("red")).state == "open"


async def test_another_process_follows_when_it_writes(directory, red, empty_database_url, open_directories):
    other = await open_directories(empty_database_url, refresh_seconds=3600)
    its = await other.log("red")
    first = await append_one(its)
    await directory.move("red", elsewhere(directory))
    second = await append_one(its)
    assert await all_of(red) == await all_of(its) == [first, second]


async def test_another_process_that_only_reads_follows_when_it_looks(
    directory, red, empty_database_url, open_directories
):
    other = await open_directories(empty_database_url, refresh_seconds=0.05)
    its = await other.log("red")
    assert await all_of(its) == []
    await directory.move("red", elsewhere(directory))
    event = await append_one(red)

    async def has_followed():
        return await all_of(its) == [event]

    await until(has_followed)


async def test_a_transaction_that_meets_the_fence_can_be_repeated(
    directory, red, empty_database_url, open_directories
):
    other = await open_directories(empty_database_url, refresh_seconds=3600)
    its = await other.log("red")
    event = placed()
    await append_one(its)
    await directory.move("red", elsewhere(directory))

    async def store_it():
        async with its.transaction() as tx:
            await tx.append_events(event.aggregate_id, "Order", [event], 0)
            await tx.checkpoints.save_position("totals", 1, event.event_id, event.event_type)

    with pytest.raises(StoreMovedError):
        await store_it()
    await store_it()
    assert await CheckpointRepository(red).get_position("totals") == 1
    # What is written beside the log finds its way as an append does.
    await CheckpointRepository(its).save_position("others", 1, event.event_id, event.event_type)
    assert await CheckpointRepository(red).get_position("others") == 1


async def test_a_move_that_was_broken_off_before_the_cut_over_goes_on_or_is_given_up(directory, red):
    first = await append_one(red)
    entry = await directory.records.log("red")
    place = directory.places.place(elsewhere(directory))
    await directory.records.set_state(entry, "moving", place)
    second = await append_one(red)
    with pytest.raises(InvalidOptionError, match="is being moved to"):
        await directory.move("red", elsewhere(directory, "third"))
    with pytest.raises(InvalidOptionError, match="is being moved"):
        await directory.drop("red", everything=True)
    await directory.stay("red")
    assert (await directory.entry("red")).state == "open"
    await directory.records.set_state(entry, "moving", place)
    await directory.move("red", elsewhere(directory))
    assert await all_of(red) == [first, second]


async def test_writers_wait_while_a_move_that_was_cut_over_is_being_noted(directory, red):
    first = await append_one(red)
    entry = await directory.records.log("red")
    there = elsewhere(directory)
    await directory.records.set_state(entry, "moving", directory.places.place(there))
    async with directory._whole(entry) as here, open_store(there) as target:
        await cut_over(here, target)
    writing = asyncio.create_task(append_one(red))
    with pytest.raises(StoreMovedError):
        await directory.stay("red")
    assert not writing.done()
    await directory.move("red", there)
    second = await writing
    assert await all_of(red) == [first, second]


async def test_a_move_that_cannot_be_done_leaves_the_log_where_it_is(directory, red):
    event = await append_one(red)
    await directory.create("blue", at=elsewhere(directory))
    with pytest.raises(InvalidOptionError, match="'blue' is at"):
        await directory.move("red", elsewhere(directory))
    with pytest.raises(InvalidOptionError, match="'red' is at"):
        await directory.move("red", directory.places.resolve((await directory.entry("red")).place))
    assert (await directory.entry("red")).state == "open"
    assert await all_of(red) == [event]


async def test_a_log_in_a_file_moves_to_a_server(tmp_path, postgres_url, open_directories):
    directory = await open_directories(f"sqlite:///{tmp_path / 'logs.db'}")
    await directory.create("red")
    red = await directory.log("red")
    first = await append_one(red)
    ended = await esource("logs", "move", "red", f"{postgres_url}", "--url", str(tmp_path / "logs.db"))
    assert ended.exit_code == 0, ended.stderr
    with pytest.raises(StoreMovedError):
        await append_one(red)
    there = await directory.log("red")
    assert await all_of(there) == [first]
    second = await append_one(there)
    assert await all_of(there) == [first, second]


async def test_a_projection_begins_anew_in_the_new_place_if_that_was_said(directory, red):
    await append_one(red)
    projection = Journal()

    async def applied():
        async with red.reading() as connection:
            return list((await connection.execute(select(projection.table.c.position))).scalars())

    async with ProjectionRunner(red, projection, poll_seconds=0.1) as runner:
        await red.wait_for(1, projection=projection, timeout=30)
        await directory.move("red", elsewhere(directory), reset=["journal"])
        position, _ = await append_one(red)
        await until(lambda: projection.calls == ["c-1"] * 3)
        await red.wait_for(position, projection=projection, timeout=30)
        assert await applied() == [1, 2]
        assert runner.health_now().failures == 0


async def test_a_projection_goes_on_in_the_new_place_where_its_effects_are_elsewhere(directory, red):
    await append_one(red)
    projection = Letters()
    async with ProjectionRunner(red, projection, poll_seconds=0.1):
        await red.wait_for(1, projection=projection, timeout=30)
        await directory.move("red", elsewhere(directory))
        position, _ = await append_one(red)
        await red.wait_for(position, projection=projection, timeout=30)
    assert projection.sent == [1, 2]


@pytest.mark.slow
async def test_a_projection_whose_log_was_cut_over_ends_and_blames_no_event(directory, red, caplog):
    async with open_store(directory.places.resolve(directory.places.usual("red"))) as store:
        runner = ProjectionRunner(store, Letters(), poll_seconds=0.1)
        running = asyncio.create_task(runner.run())
        await append_one(store)
        await store.wait_for(1, projection="letters", timeout=30)
        async with open_store(elsewhere(directory)) as there:
            await cut_over(store, there)
        with pytest.raises(StoreMovedError):
            await running
        assert await DLQRepository(store).get_failed_events() == []
