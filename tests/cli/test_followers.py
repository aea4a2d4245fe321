"""Projections, dead letters and the outbox from the command line."""

from __future__ import annotations

import json

import pytest
from support import application
from support.application import Seen
from support.commands import esource
from support.orders import placed

from esource import CheckpointRepository, DLQRepository, EventStore, OutboxRepository, ProjectionRunner
from esource.database.sources import database_of


@pytest.fixture
def url(shared_database_url) -> tuple[str, str]:
    return "--url", shared_database_url


@pytest.fixture
async def events(shared_store: EventStore):
    found = [placed(customer_id=name) for name in ("a", "bad", "c")]
    for event in found:
        await shared_store.append_events(event.aggregate_id, "Order", [event], 0)
    return found


@pytest.fixture(autouse=True)
def unseen():
    application.seen.clear()
    application.published.clear()


APP = ("--app", "support.application:Seen")


@pytest.mark.slow
async def test_a_projection_is_listed_reset_and_rebuilt(events, shared_store, url):
    assert (await esource("projections", "list", *url)).stdout == "no checkpoints\n"
    await ProjectionRunner(shared_store, Seen()).run(live=False)
    [row] = json.loads((await esource("projections", "list", *url, "--json")).stdout)
    assert (row["projection_name"], row["global_position"]) == ("Seen", 3)
    [row] = json.loads((await esource("projections", "lag", *url, "--json")).stdout)
    assert row["lag_events"] == 0
    assert "Seen" in (await esource("projections", "lag", *url)).stdout
    done = await esource("projections", "reset", "Seen", *url)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert (await esource("projections", "reset", "Nobody", *url, "--yes")).exit_code == 4
    assert (await esource("projections", "reset", "Seen", *url, "--yes")).exit_code == 0
    assert await CheckpointRepository(shared_store).get_position("Seen") is None
    application.seen["left over"] = None
    done = await esource("projections", "rebuild", *APP, *url, "--yes")
    assert (done.exit_code, done.stdout) == (0, "Seen is at position 3.\n"), done.stderr
    assert list(application.seen) == [str(events[0].event_id), str(events[2].event_id)]
    done = await esource("projections", "rebuild", "--app", "support.orders:OrderPlaced", *url, "--yes")
    assert done.exit_code == 2
    assert "no Projection" in done.stderr


@pytest.mark.slow
async def test_dead_letters_are_shown_retried_resolved_and_purged(events, shared_store, url, monkeypatch):
    await ProjectionRunner(shared_store, Seen()).run(live=False)
    [row] = json.loads((await esource("dlq", "list", *url, "--json")).stdout)
    assert row["event_id"] == str(events[1].event_id)
    assert "a bad customer" in (await esource("dlq", "list", *url)).stdout
    number = row["id"]
    assert "Traceback" in (await esource("dlq", "show", number, *url)).stdout
    assert json.loads((await esource("dlq", "show", number, *url, "--json")).stdout)["id"] == number
    assert (await esource("dlq", "show", 999, *url)).exit_code == 4
    done = await esource("dlq", "retry", *APP, *url)
    assert (done.exit_code, done.stdout) == (1, "0 resolved, 1 failed again, 0 wait for an earlier one.\n")
    assert (await esource("dlq", "resolve", 999, *url)).exit_code == 4
    assert (await esource("dlq", "resolve", number, *url, "--by", "me")).exit_code == 0
    assert (await esource("dlq", "list", *url)).stdout == "no dead letters\n"
    assert (await DLQRepository(shared_store).get_failed_event(number)).resolved_by == "me"
    for status in ("any", "resolved"):
        [row] = json.loads((await esource("dlq", "list", *url, "--status", status, "--json")).stdout)
        assert (row["id"], row["status"]) == (number, "resolved")
    assert (await esource("dlq", "list", *url, "--status", "strange")).exit_code == 2
    assert (await esource("dlq", "purge", *url)).exit_code == 2
    assert (
        await esource("dlq", "purge", *url, "--days", 0, "--yes")
    ).stdout == "1 dead letters were deleted.\n"


async def test_a_mended_projection_takes_its_dead_letters_and_a_strict_one_ends_with_1(
    events, shared_store, url
):
    await ProjectionRunner(shared_store, Seen()).run(live=False)
    done = await esource("dlq", "retry", "--app", "support.application:Mended", *url, "--json")
    assert (done.exit_code, json.loads(done.stdout)["resolved"]) == (0, 1)
    assert str(events[1].event_id) in application.seen
    done = await esource("projections", "rebuild", "--app", "support.application:Strict", *url, "--yes")
    assert done.exit_code == 1
    assert "a bad customer" in done.stderr
    assert str(events[1].event_id) in done.stderr


async def test_a_dead_letter_of_another_program_is_shown_without_a_traceback(events, shared_store, url):
    letters = DLQRepository(shared_store)
    number = await letters.add_failed_event(
        events[0].event_id, "Seen", "OrderPlaced", {"a": 1}, ValueError("x")
    )
    await database_of(shared_store).run_script(["UPDATE dead_letter_queue SET error_stacktrace = NULL"])
    said = (await esource("dlq", "show", number, *url)).stdout
    assert "ValueError: x" in said
    assert said.endswith('{\n  "a": 1\n}\n')


async def test_the_outbox_is_counted_relayed_retried_and_purged(events, shared_store, url):
    outbox = OutboxRepository(shared_store)
    rows = [await outbox.add_event(event) for event in events]
    await outbox.mark_failed(rows[0], "no broker")
    stats = json.loads((await esource("outbox", "stats", *url, "--json")).stdout)
    assert (stats["pending"], stats["failed"]) == (2, 1)
    assert "pending" in (await esource("outbox", "stats", *url)).stdout
    assert len(json.loads((await esource("outbox", "list", *url, "--json")).stdout)) == 2
    assert "no broker" in (await esource("outbox", "list", *url, "--failed")).stdout
    done = await esource("outbox", "relay", *url)
    assert done.exit_code == 1
    assert "2 rows were dealt with, 1 are given up" in done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [
        str(e.event_id) for e in events[1:]
    ]
    assert (await esource("outbox", "retry", *url)).stdout == "1 rows wait again.\n"
    done = await esource("outbox", "relay", *url, "--publisher", "support.application:Broker")
    assert (done.exit_code, application.published) == (0, [str(events[0].event_id)])
    assert (await esource("outbox", "relay", *url, "--publisher", "support.application:seen")).exit_code == 2
    assert (await esource("outbox", "purge", *url)).exit_code == 2
    done = await esource("outbox", "purge", *url, "--days", 0, "--yes")
    assert done.stdout == "3 rows were deleted.\n"
