"""What is done to a directory by several at once, in an unfortunate moment, or without thought."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from support.orders import placed
from support.schemas import execute

from esource import Projection, ProjectionRunner, open_store
from esource.directory import Crew, upkeep
from esource.errors import InvalidOptionError, StoreMovedError


async def append_one(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    return event


async def all_of(store):
    return [stored.event async for stored in store.read_all()]


def elsewhere(directory, name: str = "elsewhere"):
    if directory.places.in_files:
        return directory.places.resolve(f"elsewhere/{name}.db")
    return directory.places.resolve(f"?schema={name}")


@pytest.fixture
async def red(directory):
    await directory.create("red")
    return await directory.log("red")


@pytest.fixture
async def other(red, empty_database_url, open_directories):
    """The directory of another process, which looks again only when it is told to."""
    return await open_directories(empty_database_url, refresh_seconds=3600)


# -- two at once -----------------------------------------------------------------------------------


async def test_only_one_of_two_calls_that_exclude_each_other_begins(directory, red):
    entry = await directory.records.log("red")
    await directory.records.set_state(entry, "moving", "one place")
    for state, target in (("moving", "another place"), ("dropping", None)):
        with pytest.raises(InvalidOptionError, match="another process moves or drops"):
            await directory.records.set_state(entry, state, target)
    moving = await directory.records.set_state(entry, "moving", "one place")  # the same call
    assert (moving.state, moving.target) == ("moving", "one place")


async def test_many_create_and_assign_the_same_at_once(directory, empty_database_url, open_directories):
    directories = [directory, await open_directories(empty_database_url)]
    made = await asyncio.gather(*(each.create("red", takes_keys=True) for each in directories * 2))
    assert {entry.state for entry in made} == {"open"}
    await directory.create("blue", takes_keys=True)
    stores = await asyncio.gather(*(each.store("key") for each in directories * 4))
    assert len({store.name for store in stores}) == 1


async def test_no_key_comes_into_a_log_that_is_being_dropped(directory, red):
    entry = await directory.records.log("red")
    await directory.records.set_state(entry, "dropping")
    with pytest.raises(InvalidOptionError, match="is being dropped"):
        await directory.assign("key", "red")
    with pytest.raises(InvalidOptionError, match="is being dropped"):
        await directory.records.assign("key", "a log that is gone")
    assert await directory.records.counts() == {}


async def test_another_process_forgets_the_keys_of_a_log_that_was_dropped(directory, other):
    await directory.create("blue", takes_keys=True)
    await directory.assign("key", "red")
    assert await other.where("key") == "red"
    await directory.drop("red", everything=True)
    await other._refresh()
    assert await other.where("key") == await directory.where("key") == "blue"


async def test_a_log_that_was_forgotten_and_created_elsewhere_is_followed(directory, other):
    its = await other.log("red")
    await append_one(its)
    await directory.forget("red")
    await directory.create("red", at=elsewhere(directory))
    await other._refresh()
    assert await all_of(its) == await all_of(await other.log("red")) == []


# -- dropping --------------------------------------------------------------------------------------


async def test_a_log_that_is_created_anew_is_the_one_that_all_use(directory, red, other):
    await append_one(red)
    assert len(await all_of(await other.log("red"))) == 1
    following = asyncio.create_task(anext(other._stores["red"].subscribe(from_position=10)))
    await asyncio.sleep(0)
    await directory.drop("red", everything=True)
    await other._refresh()
    await directory.create("red")
    event = await append_one(await directory.log("red"))
    assert await all_of(await other.log("red")) == [event]
    await append_one(await other.log("red"))
    async with open_store(directory.places.resolve((await directory.entry("red")).place)) as alone:
        assert len(await all_of(alone)) == 2
    following.cancel()
    await asyncio.wait([following])


async def test_a_log_that_was_dropped_and_created_between_two_looks_is_another_one(directory, red, other):
    before = await other.log("red")
    await append_one(before)
    await directory.drop("red", everything=True)
    entry = await directory.create("red")
    assert entry.is_elsewhere(other._entries["red"])
    event = await append_one(await directory.log("red"))
    await other._refresh()
    after = await other.log("red")
    assert after is not before
    assert await all_of(after) == [event]


async def test_a_log_that_another_process_dropped_is_created_anew(directory, red, other):
    its = await other.log("red")
    await append_one(its)
    await directory.drop("red", everything=True)
    await other.create("red")
    assert await other.log("red") is not its
    assert await all_of(await other.log("red")) == []


@pytest.mark.parametrize("step", ["_remove_file", "forget"])
async def test_dropping_that_was_broken_off_goes_on(directory, red, monkeypatch, step):
    await append_one(red)

    async def killed(*_):
        raise asyncio.CancelledError

    with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
        patched.setattr(directory, step if directory.places.in_files else "forget", killed)
        await directory.drop("red", everything=True)
    assert (await directory.entry("red")).state == "dropping"
    await directory.drop("red")
    assert await directory.logs() == []
    await directory.create("red")
    assert await all_of(await directory.log("red")) == []


async def test_a_creation_that_was_broken_off_can_be_dropped(directory):
    await directory.create("red")
    await directory.records.add("blue", directory.places.usual("blue"), takes_keys=False)
    await directory.drop("blue")
    assert [entry.name for entry in await directory.logs()] == ["red"]


async def test_the_schema_of_the_directory_itself_is_not_dropped(postgres_url, open_directories):
    url = make_url(postgres_url).update_query_dict({"schema": "both"})
    async with open_store(url) as store:
        await store.initialize()
    directory = await open_directories(url.render_as_string(hide_password=False))
    await directory.create("red", at="?schema=both")
    with pytest.raises(InvalidOptionError, match="directory's own tables"):
        await directory.drop("red", everything=True)
    assert [entry.state for entry in await directory.logs()] == ["open"]


# -- places ----------------------------------------------------------------------------------------


async def test_a_place_that_a_log_has_left_behind_is_no_place_for_a_new_one(directory, red):
    await directory.move("red", elsewhere(directory))
    with pytest.raises(StoreMovedError):
        await directory.create("blue", at=directory.places.resolve(directory.places.usual("red")))
    assert [entry.name for entry in await directory.logs()] == ["red"]


async def test_a_place_that_a_log_is_moving_to_is_taken(directory, red):
    entry = await directory.records.log("red")
    place = directory.places.place(elsewhere(directory))
    await directory.records.set_state(entry, "moving", place)
    with pytest.raises(InvalidOptionError, match="'red' is being moved to"):
        await directory.create("blue", at=elsewhere(directory))


async def test_a_file_has_one_place_however_it_is_spelled(tmp_path, open_directories):
    directory = await open_directories(f"sqlite:///{tmp_path / 'logs.db'}")
    await directory.create("red", at=tmp_path / "red.db")
    with pytest.raises(InvalidOptionError, match="'red' is at"):
        await directory.create("blue", at=tmp_path / "sub" / ".." / "red.db")
    with pytest.raises(InvalidOptionError, match="lies in that file"):
        await directory.create("blue", at=tmp_path / "sub" / ".." / "logs.db")


@pytest.mark.parametrize("place", ["?schem=red", "?red", "?schema="])
async def test_what_names_no_schema_is_no_place(directory, place):
    with pytest.raises(InvalidOptionError):
        await directory.create("red", at=place)


# -- connections -----------------------------------------------------------------------------------


async def test_a_closed_directory_can_be_opened_again(directory, red):
    event = await append_one(red)
    await directory.close()
    async with directory:
        assert await all_of(await directory.log("red")) == [event]


async def test_an_append_that_waits_while_its_log_moves_is_not_done_in_a_log_of_the_new_name(
    postgres_url, open_directories
):
    directory = await open_directories(postgres_url)
    for name in ("blue", "red"):
        await directory.create(name)
    red, blue = await directory.log("red"), await directory.log("blue")
    await append_one(red)
    pool = directory.places.server(directory.places.url).connections.writers
    lanes = [await pool.take() for _ in range(pool.limit)]
    appending = asyncio.create_task(append_one(red))
    while not pool._waiting:
        await asyncio.sleep(0)
    there = make_url(postgres_url).set(database="elsewhere").update_query_dict({"schema": "blue"})
    red.reader.database.lead_to(directory.places.server(there), there)
    for lane in lanes:
        await pool.put_back(lane)
    await appending
    assert await all_of(blue) == []


async def test_a_log_that_is_gone_is_reported_and_not_made(directory, red):
    await append_one(red)
    await directory.create("blue")
    if directory.places.in_files:
        await directory.close()
        file = Path(str(directory.places.resolve(directory.places.usual("red")).database))
        file.unlink()
        await directory.open()
    else:
        await execute(directory.places.url.render_as_string(hide_password=False), "DROP SCHEMA red CASCADE")
    blue, gone = await directory.report()
    assert blue.error is None
    assert "no such file" in gone.error if directory.places.in_files else gone.error == "it has no tables"
    assert not directory.places.in_files or not file.exists()


async def test_a_server_that_does_not_answer_holds_up_no_round(postgres_url, open_directories, monkeypatch):
    monkeypatch.setattr(upkeep, "ANSWER_SECONDS", 0.2)
    directory = await open_directories(postgres_url)
    for name in ("blue", "red"):
        await directory.create(name)

    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    await execute(
        postgres_url,
        f"UPDATE esource_logs SET place = 'postgresql://127.0.0.1:{port}/blue' WHERE name = 'blue'",
    )
    for rounds in (directory.report, directory.upgrade, directory.verify):
        blue, red = await rounds()
        assert "has not answered within" in blue.error
        assert red.error is None
    server.close()


async def test_a_server_that_does_not_answer_is_waited_for_once(postgres_url, open_directories, monkeypatch):
    monkeypatch.setattr(upkeep, "ANSWER_SECONDS", 0.2)
    directory = await open_directories(postgres_url)
    await directory.create("red")
    asked = 0

    async def silent(reader, writer):
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    for number in range(3 * upkeep.AT_ONCE):
        place = f"postgresql://127.0.0.1:{port}/a?schema=blue{number}"
        entry = await directory.records.add(f"blue{number}", place, takes_keys=False)
        await directory.records.set_state(entry, "open")
    for rounds in (directory.report, directory.upgrade):
        asked = 0
        *blue, red = await rounds()
        assert red.error is None
        assert all("has not answered within" in found.error for found in blue)
        assert asked == 1
    server.close()


async def test_a_report_is_told_as_soon_as_it_is_there(directory):
    for name in ("blue", "red"):
        await directory.create(name)
    told = []
    reports = await directory.report(on_report=told.append)
    assert sorted(told, key=lambda report: report.name) == reports


async def test_a_move_to_a_place_that_takes_no_events_does_not_begin(directory, red):
    left = directory.places.resolve((await directory.entry("red")).place)
    await directory.move("red", elsewhere(directory))
    with pytest.raises(StoreMovedError):
        await directory.move("red", left)
    assert (await directory.entry("red")).state == "open"


async def test_a_directory_in_a_file_without_a_suffix_has_its_logs_beside_it(tmp_path, open_directories):
    directory = await open_directories(f"sqlite:///{tmp_path / 'logs'}")
    assert (await directory.create("red")).place == "logs-logs/red.db"
    await append_one(await directory.log("red"))


async def test_keys_of_a_log_that_was_forgotten_are_forgotten_by_others_too(
    directory, empty_database_url, open_directories
):
    other = await open_directories(empty_database_url)
    await directory.create("red")
    await directory.create("blue", takes_keys=True)
    await directory.assign("ada", "red")
    assert await other.where("ada") == "red"
    await directory.forget("red")
    await directory.create("red", at=elsewhere(directory).render_as_string(hide_password=False))
    await directory.store("ada")
    await other._refresh()
    assert [await each.where("ada") for each in (directory, other)] == ["blue", "blue"]


async def test_looks_at_once_let_each_log_go_once(directory, empty_database_url, open_directories):
    other = await open_directories(empty_database_url)
    names = [f"log{number}" for number in range(3)]
    for name in names:
        await append_one(await _made(directory, other, name))
    for name in names:
        await directory.drop(name, everything=True)
    await asyncio.gather(*(other._refresh() for _ in range(4)))
    for name in names:
        with pytest.raises(InvalidOptionError, match="has no log"):
            await other.log(name)


async def _made(directory, other, name: str):
    await directory.create(name)
    return await other.log(name)


async def test_a_worker_that_has_just_begun_is_not_begun_again(directory):
    crew = Crew(directory, "totals", lambda store: ProjectionRunner(store, Nothing()))
    running = asyncio.create_task(crew.run())
    await asyncio.sleep(0)
    with pytest.raises(InvalidOptionError, match="at work already"):
        await crew.run()
    crew.stop()
    await running


class Nothing(Projection):
    name = "nothing"
