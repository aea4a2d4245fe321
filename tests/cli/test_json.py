"""What --json prints: one name for one thing in all commands, each of them listed in docs/cli.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.commands import esource
from support.orders import several
from support.schemas import execute

from esource import CheckpointRepository, DLQRepository, OutboxRepository, open_store
from esource.cli.app import app
from esource.cli.serving import write_health
from esource.telemetry import FollowerStats

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
TABLE = PAGE.split("\n## JSON\n")[1].split("\n## ")[0]
LISTED = set(
    re.findall(
        r"`(\w+)`", "\n".join(line.split("|")[1] for line in TABLE.splitlines() if line.startswith("| `"))
    )
)

BY_NAME = {"payload", "event_data", "streams", "rows", "changes", "checkpoints", "tags"}
"""Where the names inside are not ours: an event's fields, types, tables, projections."""

COMMANDS = """
current | history | check | info | streams | show {stream} | event {event} | tail | doctor | verify
projections list | projections lag | dlq list | dlq show 1 | outbox stats | outbox list | outbox list --failed
copy {file} {copy} --verify | verify-copy {file} {copy} | cut-over {file} {copy} | reopen
export {folder}/all.jsonl | init --url {fresh} | import {folder}/all.jsonl --url {fresh}
archive {folder}/closed.jsonl --url {old} --keep | restore {folder}/closed.jsonl --url {old}
dlq retry --app support.application:Seen | alive {folder}/health.json
logs create red --url {logs} | logs list --url {logs} | logs upgrade --url {logs} | logs verify --url {logs}
logs distribute --url {logs} | logs where red --url {logs} | logs move red {folder}/red.db --url {logs}
tag --app support.application:with_tags --dry-run --url {old} | info --url {untagged}
"""
ON_POSTGRESQL = {"schemas list"}
"""`schema/test_schemas.py` tries it."""


def commands() -> list[str]:
    return [command.strip() for command in COMMANDS.replace("\n", "|").strip("|").split("|")]


def names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from names(each)
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield name
            if name in BY_NAME and isinstance(inside, dict):
                for each in inside.values():
                    yield from names(each) if name == "changes" else ()
            else:
                yield from names(inside)


@pytest.fixture
async def store_of_everything(tmp_path: Path) -> dict[str, Any]:
    """A file with something for every command to tell."""
    [first, second] = events = several(2)
    file = tmp_path / "shop.db"
    async with open_store(file, outbox_enabled=True) as store:
        await store.initialize()
        await store.append_events(first.aggregate_id, "Order", events, 0)
        outbox = OutboxRepository(store)
        [row, _] = await outbox.get_pending_events()
        await outbox.mark_failed(row.id, "the broker is not there")
        await CheckpointRepository(store).save_position("totals", 1, first.event_id, first.event_type)
        await DLQRepository(store).add_failed_event(
            first.event_id, "totals", first.event_type, {}, ValueError("no")
        )
    async with open_store(tmp_path / "old.db") as store:
        await store.initialize()
        await store.append_events(first.aggregate_id, "Order", events, 0)
        await store.close_stream(first.aggregate_id, "Order", 2)
    async with open_store(tmp_path / "untagged.db") as store:
        await store.initialize()
    begun = "INSERT INTO tag_fillings (event_type, tag_name, global_position) VALUES ('Booked', 'room', 0)"
    await execute(f"sqlite:///{tmp_path}/untagged.db", begun)
    stats = FollowerStats("projection", "totals")
    write_health(tmp_path / "health.json", [stats.health(position=1, lag_events=0, lag_seconds=0.0)])
    await execute(f"sqlite:///{file}", "DROP INDEX idx_events_timestamp")  # a difference, and a symptom
    return {
        "file": file,
        "copy": tmp_path / "copy.db",
        "old": tmp_path / "old.db",
        "fresh": tmp_path / "fresh.db",
        "untagged": tmp_path / "untagged.db",
        "logs": tmp_path / "logs.db",
        "folder": tmp_path,
        "stream": f"{first.aggregate_id}:Order",
        "event": second.event_id,
    }


@pytest.mark.slow
async def test_every_name_is_listed_and_every_listed_name_is_used(store_of_everything: dict[str, Any]):
    found: set[str] = set()
    for command in commands():
        words = command.format(**store_of_everything).split()
        if "{file}" not in command and "--url" not in command and words[0] not in ("history", "alive"):
            words += ["--url", str(store_of_everything["file"])]
        json_too = [] if words[0] in ("reopen", "init") or words[:2] == ["logs", "create"] else ["--json"]
        done = await esource(*words, *json_too)
        assert done.exit_code in (0, 1), (command, done.stderr)
        if json_too:
            for text in done.stdout.splitlines() if words[0] == "tail" else [done.stdout]:
                found |= set(names(json.loads(text)))
    assert found <= LISTED, found - LISTED
    assert LISTED - found <= {"index", "scans", "check"}, (
        LISTED - found
    )  # of PostgreSQL, and of a damaged store


def test_every_command_that_prints_json_is_tried():
    def walk(command: Any, path: str) -> Iterator[str]:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, f"{path} {name}".strip())
        elif any("--json" in part.opts for part in command.params):
            yield path

    for path in walk(typer.main.get_command(app), ""):
        assert path in ON_POSTGRESQL or any(command.startswith(path) for command in commands()), path
