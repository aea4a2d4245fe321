"""Exporting, verifying, closing and archiving from the command line."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from support.application import Booked
from support.commands import esource
from support.orders import placed, several

from esource import EventStore
from esource.copying import integrity
from esource.database.sources import database_of


@pytest.fixture
async def order(shared_store: EventStore):
    [first, *_] = events = several(3)
    await shared_store.append_events(first.aggregate_id, "Order", events, 0)
    return first.aggregate_id


async def test_an_export_fills_another_database(order, shared_database_url, tmp_path):
    file, target = tmp_path / "events.jsonl.gz", tmp_path / "target.db"
    done = await esource("export", file, "--url", shared_database_url)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"3 events exported to {file}.\n"
    done = await esource("import", file, "--url", target, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == {"events": 3}
    done = await esource("verify-copy", shared_database_url, target)
    assert done.exit_code == 0
    done = await esource("import", file, "--url", target)
    assert done.exit_code == 4
    assert "3 rows in events" in done.stderr
    done = await esource("export", file, "--url", shared_database_url)
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    done = await esource("import", tmp_path / "none", "--url", tmp_path / "other.db")
    assert done.exit_code == 2
    assert "No such file" in done.stderr


async def test_verify_says_what_is_wrong_and_ends_with_1(order, shared_store, shared_database_url):
    done = await esource("verify", "--url", shared_database_url, "--app", "support.orders")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "In order: storage, counters, streams" in done.stdout
    await database_of(shared_store).run_script(["DELETE FROM events WHERE version = 2"])
    done = await esource("verify", "--url", shared_database_url, "--json")
    assert done.exit_code == 1
    [finding] = json.loads(done.stdout)["findings"]
    assert finding["check"] == "streams"
    done = await esource(
        "verify", "--url", shared_database_url, "--app", "support.application:without_classes"
    )
    assert done.exit_code == 1
    assert "In order" not in done.stdout
    assert "streams: " in done.stdout
    assert "decoding: " in done.stdout
    for app_, said in (
        ("nowhere", "No module"),
        ("support.orders:nothing", "no attribute"),
        ("support.orders:uuid4", "not an"),
    ):
        done = await esource("verify", "--url", shared_database_url, "--app", app_)
        assert done.exit_code == 2
        assert said in done.stderr


async def test_stored_events_are_given_their_tags(shared_database_url, open_stores):
    store = await open_stores(shared_database_url, unknown_events="untyped")
    await store.append([Booked(room="blue")])
    command = ("tag", "--url", shared_database_url, "--app", "support.application:with_tags")
    done = await esource(*command, "--dry-run", "--json")
    assert (done.exit_code, json.loads(done.stdout)["filled"]) == (1, 1)
    done = await esource("doctor", *command[1:])
    assert "lack tags room:... that their class declares" in done.stdout
    done = await esource(*command, "--type", "Booked")
    assert done.exit_code == 0
    assert "1 of 1 events were given tags" in done.stdout
    assert [stored.tags async for stored in store.read_all()] == [{"room:blue"}]
    assert (await esource(*command, "--dry-run")).exit_code == 0
    assert (await esource(*command, "--type", "Other")).exit_code == 2
    assert (await esource(*command[:3])).exit_code == 2


async def test_of_many_findings_the_first_are_shown_and_the_others_counted(shared_database_url, shared_store):
    for event in (placed() for _ in range(integrity.SHOWN + 2)):
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
    done = await esource(
        "verify", "--url", shared_database_url, "--app", "support.application:without_classes"
    )
    assert done.stdout.count("decoding: ") == integrity.SHOWN
    assert "... and 2 more." in done.stdout


async def test_an_export_goes_through_a_pipe_without_a_word_beside_it(order, shared_database_url):
    done = await esource("export", "-", "--url", shared_database_url)
    assert (done.exit_code, done.stderr) == (0, "")
    head, *events, end = map(json.loads, done.stdout.splitlines())
    assert (head["esource"], end["esource"]) == ("begin", "end")
    assert [event["type"] for event in events] == ["OrderPlaced"] * 3


async def test_no_file_is_made_where_there_is_nothing_to_archive(order, shared_database_url, tmp_path):
    file = tmp_path / "closed.jsonl"
    for _ in range(2):
        done = await esource("archive", file, "--url", shared_database_url, "--yes")
        assert (done.exit_code, "nothing to be archived" in done.stdout) == (0, True)
        assert list(tmp_path.glob("closed*")) == []
    done = await esource("archive", file, "--url", shared_database_url, "--yes", "--json")
    assert json.loads(done.stdout)["streams"] == 0


async def test_a_stream_is_closed_archived_and_restored(order, shared_store, shared_database_url, tmp_path):
    file, url = tmp_path / "closed.jsonl", ("--url", shared_database_url)
    done = await esource("close", f"{order}:Order", *url)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    done = await esource("close", f"{order}:Order", *url, "--yes", "--reason", "done")
    assert done.stdout == f"Order {order} is closed, at version 4.\n"
    done = await esource("archive", file, *url, "--keep")
    assert done.stdout == f"3 events of 1 closed streams archived in {file}.\n"
    assert await shared_store.get_global_position() == 4
    done = await esource("archive", file, *url, "--yes")
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    done = await esource("archive", file, *url, "--resume", "--yes", "--json")
    assert json.loads(done.stdout)["events"] == 3
    assert len((await shared_store.get_events(order, "Order")).events) == 1
    done = await esource("archive", file, *url, "--resume", "--keep", "--yes")
    assert done.exit_code == 2
    assert "no other choice" in done.stderr
    done = await esource("restore", file, *url)
    assert done.exit_code == 0
    assert len((await shared_store.get_events(order, "Order")).events) == 4
    done = await esource("archive", tmp_path / "x", *url, "--stream", "nonsense", "--yes")
    assert done.exit_code == 2
    assert "stream id" in done.stderr


async def test_a_stream_that_is_not_there_cannot_be_closed(order, shared_store, shared_database_url):
    for stream in (f"{uuid4()}:Order", f"{order}:Parcel"):
        done = await esource("close", stream, "--url", shared_database_url, "--yes")
        assert (done.exit_code, done.stdout) == (4, "")
        assert "found no stream. Check the id and the aggregate type" in done.stderr
        assert "Another writer" not in done.stderr
    assert await shared_store.get_global_position() == 3
