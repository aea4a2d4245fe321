"""Projections and a relay as processes of their own, as a supervisor runs them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import esource
from support.orders import placed
from support.read_models import append, until

from esource import CheckpointRepository, EventStore, OutboxRepository
from esource.cli.serving import write_health
from esource.telemetry import FollowerStats

TESTS = Path(__file__).resolve().parents[1]


async def service(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "esource",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )


@pytest.mark.slow
async def test_projections_run_until_sigterm_and_let_their_leases_go(
    shared_store: EventStore, shared_database_url
):
    store = shared_store
    await append(store, "a", "b")
    apps = "support.application:Seen", "support.application:Strict"
    process = await service("projections", "run", *apps, "--url", shared_database_url)
    checkpoints = CheckpointRepository(store)

    async def reached() -> bool:
        assert process.returncode is None
        return await checkpoints.get_position("Seen") == await checkpoints.get_position("Strict") == 3

    await append(store, "c")
    await until(reached)
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b"Running Seen, Strict." in said
    again = await esource("projections", "run", *apps, "--once", "--url", shared_database_url)
    assert again.exit_code == 0


async def test_a_projection_that_fails_ends_all_with_its_error(shared_store: EventStore, shared_database_url):
    await append(shared_store, "bad")
    done = await esource(
        *("projections", "run", "support.application:Seen", "support.application:Strict"),
        *("--url", shared_database_url),
    )
    assert done.exit_code == 1
    assert "a bad customer" in done.stderr


@pytest.mark.slow
async def test_a_relay_ends_on_sigterm_after_what_it_has_published(
    open_stores, shared_database_url, tmp_path
):
    store: EventStore = await open_stores(shared_database_url, outbox_enabled=True)
    health = tmp_path / "health.json"
    process = await service(
        *("outbox", "relay", "--follow", "--restart", "--url", shared_database_url),
        *("--health-file", str(health)),
    )
    assert process.stdout is not None
    for _ in range(2):
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event])
        assert str(event.event_id).encode() in await process.stdout.readline()
    await until(lambda: json.loads(health.read_text())["followers"][0]["state"] == "running")
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b"0 are given up" in said


@pytest.mark.parametrize("app", ["support.application:Broker", "support.application:nothing"])
async def test_what_is_no_projection_is_refused(shared_database_url, app):
    done = await esource("projections", "run", app, "--url", shared_database_url)
    assert done.exit_code == 2


async def alive(path: Path, *options: str):
    return await esource("alive", str(path), *options)


@pytest.mark.slow
async def test_a_service_with_restarts_tells_its_health_until_it_ends(
    shared_store: EventStore, shared_database_url, tmp_path
):
    await append(shared_store, "bad")
    health = tmp_path / "health.json"
    process = await service(
        *("projections", "run", "support.application:Seen", "support.application:Strict", "--restart"),
        *("--url", shared_database_url, "--health-file", str(health), "--log-format", "json"),
    )

    def strict_has_failed() -> bool:
        assert process.returncode is None
        return health.exists() and json.loads(health.read_text())["followers"][1]["state"] == "restarting"

    await until(strict_has_failed)
    document = json.loads((await alive(health, "--json")).stdout)
    assert document["pid"] == process.pid
    assert [each["name"] for each in document["followers"]] == ["Seen", "Strict"]
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    records = [json.loads(line) for line in said.splitlines()]
    ends = [record for record in records if record["level"] == "error"]
    assert "projection Strict has ended, and begins again" in ends[0]["message"]
    assert "a bad customer" in ends[0]["error"]
    gone = await alive(health)
    assert gone.exit_code == 1
    assert "has ended" in gone.stdout


async def test_a_service_that_stands_still_is_not_alive(tmp_path):
    path = tmp_path / "health.json"
    stats = FollowerStats("projection", "Strict")
    with stats.running(metrics=False):
        write_health(path, [stats.noted()])
    assert (await alive(path, "--ready")).exit_code == 0
    stats.failed(ValueError("a bad customer"))
    stats.restarts()
    write_health(path, [stats.noted()])
    assert (await alive(path)).exit_code == 0
    not_ready = await alive(path, "--ready")
    assert not_ready.exit_code == 1
    assert "projection Strict is restarting: ValueError: a bad customer" in not_ready.stdout
    with stats.running(metrics=False):
        write_health(path, [replace(stats.noted(), unreachable="the server is away")])
    not_ready = await alive(path, "--ready")
    assert not_ready.exit_code == 1
    assert "projection Strict cannot reach its database: the server is away" in not_ready.stdout
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "written_at": "2026-01-01T00:00:00.000000+00:00"}))
    found = await alive(path)
    assert found.exit_code == 1
    assert "stands still" in found.stdout
    path.write_text("[]")
    assert (await alive(path)).exit_code == 2


async def test_a_health_file_that_cannot_be_written_is_refused_at_once(shared_database_url, tmp_path):
    done = await esource(
        *("projections", "run", "support.application:Seen", "--url", shared_database_url),
        *("--health-file", str(tmp_path / "nowhere" / "health.json")),
    )
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


async def test_the_limits_of_handlers_and_publishes_are_options(open_stores, shared_database_url):
    store = await open_stores(shared_database_url, outbox_enabled=True)
    await append(store, "a")
    url = "--url", shared_database_url
    handled = await esource(
        *("projections", "run", "support.application:Hanging", "--once", "--handler-seconds", "0.05", *url)
    )
    assert handled.exit_code == 1
    assert "handler_seconds = 0.05 s" in handled.stderr
    relay = "outbox", "relay", "--publisher", "support.application:Stuck", "--publish-seconds", "0.05"
    assert (await esource(*relay, *url)).exit_code == 0
    [entry] = await OutboxRepository(store).get_pending_events()
    assert "publish_seconds = 0.05 s" in entry.last_error
    for option in ("--handler-seconds", "--publish-seconds"):
        words = relay[:4] if "publish" in option else ("projections", "run", "support.application:Hanging")
        assert (await esource(*words, option, "0", *url)).exit_code == 2


async def test_once_and_restart_exclude_each_other(shared_database_url):
    done = await esource("projections", "run", "support.application:Seen", "--once", "--restart")
    assert done.exit_code == 2


async def test_a_health_file_is_for_a_service(shared_database_url, tmp_path):
    options = "--health-file", str(tmp_path / "health.json"), "--url", shared_database_url
    done = await esource("outbox", "relay", *options)
    assert done.exit_code == 2
    assert "add --follow" in done.stderr
