"""Projections and a relay as processes of their own, as a supervisor runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from support.commands import esource
from support.orders import placed
from support.read_models import append, until

from esource import CheckpointRepository, EventStore

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


async def test_a_relay_ends_on_sigterm_after_what_it_has_published(open_stores, shared_database_url):
    store: EventStore = await open_stores(shared_database_url, outbox_enabled=True)
    process = await service("outbox", "relay", "--follow", "--url", shared_database_url)
    assert process.stdout is not None
    for _ in range(2):
        event = placed()
        await store.append_events(event.aggregate_id, "Order", [event])
        assert str(event.event_id).encode() in await process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b"0 are given up" in said


@pytest.mark.parametrize("app", ["support.application:Broker", "support.application:nothing"])
async def test_what_is_no_projection_is_refused(shared_database_url, app):
    done = await esource("projections", "run", app, "--url", shared_database_url)
    assert done.exit_code == 2
