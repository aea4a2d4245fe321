"""A directory of logs: creating and finding them, which one a key lives in, and rounds over all of them."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from support.commands import esource
from support.orders import placed
from support.schemas import execute

from esource import CheckpointRepository, open_store, schema
from esource.errors import InvalidOptionError, StoreClosedError


async def append_one(store):
    event = placed()
    await store.append_events(event.aggregate_id, "Order", [event], 0)
    return event


async def all_of(store):
    return [stored.event async for stored in store.read_all()]


def url_of(directory, name: str) -> str:
    """The URL of a log that lies where logs usually do."""
    return directory.places.resolve(directory.places.usual(name)).render_as_string(hide_password=False)


# -- logs ------------------------------------------------------------------------------------------


async def test_a_log_that_was_created_is_a_store_of_its_own(directory):
    for name in ("red", "blue"):
        entry = await directory.create(name)
        assert (entry.name, entry.state, entry.revision) == (name, "open", schema.HEAD)
    red, blue = await directory.log("red"), await directory.log("blue")
    event = await append_one(red)
    assert (await all_of(red), await all_of(blue)) == ([event], [])
    assert await directory.log("red") is red
    assert [entry.name for entry in await directory.logs()] == ["blue", "red"]
    # It is an ordinary log.
    async with open_store(url_of(directory, "red")) as alone:
        assert await all_of(alone) == [event]


async def test_another_process_sees_the_logs(directory, empty_database_url, open_directories):
    await directory.create("red")
    event = await append_one(await directory.log("red"))
    other = await open_directories(empty_database_url)
    assert await all_of(await other.log("red")) == [event]
    await directory.create("blue")  # after the other has looked
    await append_one(await other.log("blue"))
    assert len(await all_of(await directory.log("blue"))) == 1


async def test_creating_may_be_repeated_and_takes_in_a_log_that_is_there(directory):
    async with open_store(url_of(directory, "old")) as store:
        await store.initialize()
        event = await append_one(store)
    first = await directory.create("old")
    assert await directory.create("old") == first
    assert await all_of(await directory.log("old")) == [event]


async def test_a_creation_that_was_broken_off_goes_on(directory):
    await directory.create("red")
    await directory.records.add("blue", directory.places.usual("blue"), takes_keys=False)
    with pytest.raises(InvalidOptionError, match="not ready: creating"):
        await directory.log("blue")
    await directory.create("blue")
    await append_one(await directory.log("blue"))


@pytest.mark.parametrize("name", ["", "Red", "../red", "pg_red", "public", "a" * 64, "é", "a b", "-a", None])
async def test_a_name_that_no_schema_or_file_can_have_is_refused(directory, name):
    with pytest.raises(InvalidOptionError, match="cannot be the name of a log"):
        await directory.create(name)


async def test_two_logs_have_two_names_and_two_places(directory):
    await directory.create("red")
    with pytest.raises(InvalidOptionError, match="'red' is at"):
        await directory.create(
            "blue",
            at=directory.places.usual("red")
            if not directory.places.in_files
            else directory.places.resolve("events/red.db"),
        )
    with pytest.raises(InvalidOptionError, match="'red' is at"):
        await directory.create("red", at=directory.places.resolve(directory.places.usual("blue")))
    assert [entry.name for entry in await directory.logs()] == ["red"]


async def test_a_password_is_never_noted(directory):
    with pytest.raises(InvalidOptionError, match="notes no passwords") as caught:
        await directory.create("red", at="postgresql://user:s3cret@elsewhere/database?schema=red")
    assert "s3cret" not in str(caught.value)


async def test_a_log_that_is_not_there_is_named(directory):
    await directory.create("red")
    with pytest.raises(InvalidOptionError, match="has no log 'blue'"):
        await directory.log("blue")


async def test_a_database_without_a_directory_is_told_apart(directory):
    with pytest.raises(InvalidOptionError, match="has no directory of logs"):
        await directory.logs()
    with pytest.raises(InvalidOptionError, match="has no directory of logs"):
        await directory.log("red")


async def test_stores_of_a_closed_directory_refuse_work(directory):
    await directory.create("red")
    store = await directory.log("red")
    await append_one(store)
    await directory.close()
    with pytest.raises(StoreClosedError):
        await append_one(store)


# -- keys ------------------------------------------------------------------------------------------


async def test_a_key_lives_in_the_log_it_was_assigned_to(directory):
    await directory.create("red")
    tenant = uuid4()
    await directory.assign(tenant, "red")
    assert await directory.where(str(tenant)) == "red"
    assert await directory.store(tenant) is await directory.log("red")


async def test_a_uuid_is_one_key_however_it_is_written(directory):
    for name in ("red", "blue"):
        await directory.create(name)
    tenant = uuid4()
    await directory.assign(str(tenant).upper(), "red")
    assert await directory.where(tenant) == await directory.where(str(tenant)) == "red"
    with pytest.raises(InvalidOptionError, match="lives in the log 'red'"):
        await directory.assign(str(tenant).upper(), "blue")
    await directory.assign("North", "blue")  # what is no UUID stays as it is
    with pytest.raises(InvalidOptionError, match="no log for the key 'NORTH'"):
        await directory.where("NORTH")


async def test_whether_a_log_takes_keys_can_be_said_later(directory):
    await directory.create("red")
    assert (await directory.create("red", takes_keys=True)).takes_keys
    assert (await directory.create("red")).takes_keys
    assert await directory.where("blue", note=True) == "red"
    assert not (await directory.create("red", takes_keys=False)).takes_keys
    assert await directory.where("blue") == "red"
    with pytest.raises(InvalidOptionError, match="no log for the key 'white'"):
        await directory.where("white")


async def test_a_key_lives_in_the_log_of_its_name(directory):
    await directory.create("red")
    await directory.create("blue", takes_keys=True)
    assert await directory.store("red") is await directory.log("red")
    with pytest.raises(InvalidOptionError, match="lives in the log 'red'"):
        await directory.assign("red", "blue")


async def test_a_key_stays_where_it_was_drawn_to_whatever_logs_come_later(
    directory, empty_database_url, open_directories
):
    names = ["red", "blue"]
    for name in names:
        await directory.create(name, takes_keys=True)
    keys = [f"key {number}" for number in range(20)]
    expected = {key: await directory.where(key) for key in keys}  # without a note
    assert set(expected.values()) == set(names)
    for key in keys:
        await directory.store(key)
    for name in ("green", "white"):
        await directory.create(name, takes_keys=True)
    other = await open_directories(empty_database_url)
    assert {key: await other.where(key) for key in keys} == expected
    with pytest.raises(InvalidOptionError, match="lives in the log"):
        await other.assign(keys[0], "green")


async def test_a_key_that_lives_nowhere_is_refused(directory):
    await directory.create("red")
    with pytest.raises(InvalidOptionError, match="no log for the key 'blue'"):
        await directory.store("blue")
    with pytest.raises(InvalidOptionError, match="a key is a text or a UUID"):
        await directory.store(7)
    with pytest.raises(InvalidOptionError, match="has no log 'white'"):
        await directory.assign("blue", "white")


# -- rounds ----------------------------------------------------------------------------------------


async def test_a_report_tells_positions_and_lags(directory):
    for name in ("red", "blue"):
        await directory.create(name)
    red = await directory.log("red")
    events = [await append_one(red) for _ in range(3)]
    await CheckpointRepository(red).save_position("totals", 1, events[0].event_id, "OrderPlaced")
    await directory.assign("key", "red")
    blue_report, red_report = await directory.report()
    assert (blue_report.name, blue_report.position, blue_report.behind, blue_report.keys) == (
        "blue",
        0,
        None,
        0,
    )
    assert (red_report.name, red_report.position, red_report.behind, red_report.keys) == ("red", 3, 2, 1)
    assert red_report.revision == schema.HEAD
    assert red_report.size
    assert red_report.error is None


async def test_one_log_that_cannot_be_upgraded_stops_no_other(directory):
    for name in ("blue", "green", "red"):
        await directory.create(name)
        await schema.downgrade(url_of(directory, name), "0003")
    await damage(directory, "green")
    told = []
    outcomes = await directory.upgrade(on_outcome=told.append)
    assert {outcome.name: outcome.error is None for outcome in outcomes} == {
        "blue": True,
        "green": False,
        "red": True,
    }
    assert sorted(told, key=lambda outcome: outcome.name) == outcomes
    assert outcomes[0].done == f"went from 0003 to {schema.HEAD}"
    assert [outcome.done for outcome in await directory.upgrade(["blue", "red"])] == [
        f"is at {schema.HEAD} already"
    ] * 2
    await append_one(await directory.log("red"))


async def damage(directory, name: str) -> None:
    """Let a log be of no known revision."""
    statement = "UPDATE {}esource_alembic_version SET version_num = 'esource_9999'"
    if directory.places.in_files:
        await execute(url_of(directory, name), statement.format(""))
    else:
        await execute(
            directory.places.url.render_as_string(hide_password=False), statement.format(f"{name}.")
        )


async def test_verifying_finds_what_is_wrong_in_one_log(directory):
    for name in ("blue", "red"):
        await directory.create(name)
        await append_one(await directory.log(name))
    statement = "UPDATE {}events SET version = 2"
    if directory.places.in_files:
        await execute(url_of(directory, "red"), statement.format(""))
    else:
        await execute(directory.places.url.render_as_string(hide_password=False), statement.format("red."))
    blue, red = await directory.verify()
    assert (blue.error, bool(red.error)) == (None, True)


# -- dropping --------------------------------------------------------------------------------------


async def test_a_log_that_holds_something_is_dropped_only_if_that_is_said(directory):
    await directory.create("red")
    await append_one(await directory.log("red"))
    with pytest.raises(InvalidOptionError, match="events up to global position 1. Nothing was dropped"):
        await directory.drop("red")
    assert len(await all_of(await directory.log("red"))) == 1
    await directory.drop("red", everything=True)
    with pytest.raises(InvalidOptionError, match="has no log 'red'"):
        await directory.log("red")
    await directory.create("red")  # a new one
    assert await all_of(await directory.log("red")) == []
    await directory.assign("key", "red")
    with pytest.raises(InvalidOptionError, match="1 keys live in the log"):
        await directory.drop("red")


async def test_an_empty_log_is_dropped_and_a_log_can_be_forgotten(directory):
    await directory.create("red")
    await directory.create("blue")
    await directory.drop("red")
    event = await append_one(await directory.log("blue"))
    await directory.forget("blue")
    assert await directory.logs() == []
    await directory.create("blue")
    assert await all_of(await directory.log("blue")) == [event]


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_commands_do_the_same(empty_database_url):
    async def run(*arguments):
        return await esource("logs", *arguments, "--url", empty_database_url)

    lost = await run("list")
    assert lost.exit_code in (2, 3)
    made = await run("create", "red")
    assert made.exit_code == 0, made.stderr
    assert f"at schema {schema.HEAD}" in made.stdout
    await run("create", "blue", "--takes-keys")
    listed = json.loads((await run("list", "--json")).stdout)
    assert [(row["name"], row["state"], row["global_position"]) for row in listed] == [
        ("blue", "open", 0),
        ("red", "open", 0),
    ]
    assert (await run("assign", "customer 7", "red")).exit_code == 0
    assert "lives in the log red" in (await run("where", "customer 7")).stdout
    assert json.loads((await run("where", "customer 8", "--json")).stdout)["log"] == "blue"
    assert "2 of 2 logs are in order" in (await run("upgrade")).stdout
    assert "1 of 1 logs are in order" in (await run("verify", "red")).stdout
    refused = await run("drop", "red", "--yes")
    assert (refused.exit_code, "1 keys live in the log" in refused.stderr) == (2, True)
    assert (await run("drop", "red", "--everything", "--yes")).exit_code == 0
    assert (await run("drop", "blue", "--keep", "--yes")).exit_code == 0
    assert json.loads((await run("list", "--json")).stdout) == []


async def test_a_round_with_a_failure_ends_with_exit_code_1(empty_database_url, open_directories):
    directory = await open_directories(empty_database_url)
    await directory.create("red")
    await damage(directory, "red")
    ended = await esource("logs", "upgrade", "--url", empty_database_url)
    assert ended.exit_code == 1
    assert "red: " in ended.stdout
