"""Names that other programs stored: no character of them reaches the terminal as a command."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from support.commands import esource
from support.orders import placed

from esource import CheckpointRepository, DLQRepository, EventStore

NASTY = "\x1b[31m\x9b2Jred\x07\u202e\u2066\nOrder"
COMMANDS = [
    ("tail",),
    ("tail", "--json"),
    ("streams",),
    ("info",),
    ("info", "--json"),
    ("projections", "list"),
    ("projections", "lag"),
    ("dlq", "list"),
    ("dlq", "show", "1"),
    ("show", "{stream}"),
]


@pytest.fixture
async def stream(shared_store: EventStore) -> str:
    event = placed(actor_id=NASTY).model_copy(update={"aggregate_type": NASTY})
    await shared_store.append_events(event.aggregate_id, NASTY, [event])
    await CheckpointRepository(shared_store).save_position(NASTY, 1, event.event_id, "OrderPlaced")
    letters = DLQRepository(shared_store)
    await letters.add_failed_event(event.event_id, NASTY, NASTY, {"a": NASTY}, ValueError(NASTY))
    return f"{event.aggregate_id}:{NASTY}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_a_name_is_shown_and_not_obeyed(stream, shared_database_url, command):
    arguments = [part.format(stream=stream) for part in command]
    done = await esource(*arguments, "--url", shared_database_url)
    assert done.exit_code == 0, done.stderr
    assert "red" in done.stdout
    assert not set(done.stdout) & set("\x1b\x9b\x07")
    assert "--json" in arguments or not set(done.stdout) & set("\u202e\u2066")


async def test_a_name_stays_on_its_line(stream, shared_database_url):
    assert len((await esource("tail", "--url", shared_database_url)).stdout.splitlines()) == 1
    assert len((await esource("streams", "--url", shared_database_url)).stdout.splitlines()) == 2


async def test_json_holds_the_name_as_it_is_stored(stream, shared_database_url):
    done = await esource("tail", "--json", "--url", shared_database_url)
    assert json.loads(done.stdout)["stream_id"] == stream


async def test_an_error_does_not_hand_on_what_was_typed(shared_store, shared_database_url):
    done = await esource("show", f"{uuid4()}:{NASTY}", "--url", shared_database_url)
    assert done.exit_code == 4
    assert not set(done.stderr) & set("\x1b\x9b\x07")
