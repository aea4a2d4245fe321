"""What somebody types after a command is a value, a name of something, or refused: never a statement or a traceback."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.commands import esource
from support.effort import examples
from support.orders import placed, several
from support.tally import chance

from adversity.hostile.corpus import INJECTIONS, REFUSED_TEXTS
from esource import CheckpointRepository, InvalidOptionError, schema
from esource.browsing import overview

WITH_A_TEXT = [
    ["streams", "--type"],
    ["show"],
    ["event"],
    ["tail", "--type"],
    ["tail", "--aggregate-type"],
    ["tail", "--tenant"],
    ["dlq", "list", "--projection"],
    ["dlq", "list", "--status"],
    ["dlq", "show"],
    ["dlq", "resolve"],
    ["projections", "reset", "--yes"],
    ["upgrade"],
    ["downgrade", "--yes"],
    ["sql", "--from"],
    ["sql", "--to"],
    ["close", "--yes"],
    ["verify", "--app"],
    ["outbox", "relay", "--publisher"],
    ["outbox", "relay", "--source"],
]
"""Commands and options that take a text, which comes behind."""
TEXTS = [*INJECTIONS.values(), *REFUSED_TEXTS.values(), ""]


@pytest.mark.slow
@pytest.mark.parametrize("command", WITH_A_TEXT, ids=" ".join)
async def test_no_text_behind_a_command_is_a_statement(
    command, sqlite_url, open_stores, tmp_path, monkeypatch
):
    """On SQLite: the same texts reach PostgreSQL as parameters, which `test_values` sends."""
    monkeypatch.chdir(tmp_path)
    store = await open_stores(sqlite_url)
    order = uuid4()
    await store.append_events(order, "Order", several(3, order), 0)
    await CheckpointRepository(store).save_position("totals", 1, order, "OrderPlaced")
    before = sorted(tmp_path.iterdir())
    for text in chance(" ".join(command)).sample(TEXTS, min(examples(3), len(TEXTS))):
        *options, last = command
        if last.startswith("--") and last != "--yes":
            typed = [*options, f"{last}={text}", "--url", sqlite_url]
        else:
            typed = [*command, "--url", sqlite_url, "--", text]
        done = await esource(*typed)
        assert done.exception is None or isinstance(done.exception, SystemExit), (
            f"{typed}: {done.exception!r}"
        )
        assert "Traceback" not in done.output
    assert await schema.current(store) == schema.HEAD
    assert len([event async for event in store.read_all()]) == 3
    assert await CheckpointRepository(store).get_position("totals") == 1
    event = placed(order)
    assert (await store.append_events(order, "Order", [event], 3)).new_version == 4
    assert sorted(tmp_path.iterdir()) == before


WITH_A_NUMBER = [
    ["streams", "--limit"],
    ["show", f"{uuid4()}:Order", "--limit"],
    ["show", f"{uuid4()}:Order", "--from"],
    ["tail", "--limit"],
    ["tail", "--from"],
    ["dlq", "list", "--limit"],
    ["outbox", "list", "--limit"],
]


@pytest.mark.parametrize("command", WITH_A_NUMBER, ids=lambda command: f"{command[0]} {command[-1]}")
async def test_a_number_that_no_database_can_count_to_is_refused(command, shared_store, shared_database_url):
    done = await esource(*command, 2**63, "--url", shared_database_url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{command[-1]} must be at most {2**63 - 1}, not {2**63}" in done.stderr
    done = await esource(*command, 2**63 - 1, "--url", shared_database_url)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.exit_code in (0, 4)  # there is no such stream


async def test_a_list_of_streams_has_a_limit_that_can_be_reached(shared_store):
    for limit in (0, 2**63):
        with pytest.raises(InvalidOptionError, match="limit must be"):
            await overview.streams(shared_store, limit=limit)
