"""`esource inspect` on a directory: its logs, of which one is opened into the panes of a store."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from support.orders import several
from textual.widgets import Static

from esource.cli.errors import explain
from esource.directory import Directory
from esource.schema.versions import require_head
from esource.tui.app import Inspector
from esource.tui.listing import Details
from esource.tui.logs import Logs


@pytest.fixture
async def directory(empty_database_url):
    options = {"synchronous": "NORMAL"} if empty_database_url.startswith("sqlite") else {}
    async with Directory(empty_database_url, enable_tracing=False, **options) as opened:
        for name in ("blue", "red"):
            await opened.create(name)
        batch = several(3)
        await (await opened.log("red")).append_events(batch[0].aggregate_id, "Order", batch, 0)
        yield opened


async def until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(0.02)


@asynccontextmanager
async def shown(directory: Directory, at: str | None = None):
    async def opened(name: str):
        store = await directory.log(name)
        await require_head(store)
        return store

    app = Logs(directory, opened, explain=lambda error: explain(error)[0], at=at)
    app.animation_level = "none"
    async with app.run_test(size=(110, 30)) as pilot:
        yield app, pilot


def rows(app: Logs) -> list[str]:
    listing = app.pane.listing
    return ["  ".join(str(cell) for cell in listing.get_row_at(n)) for n in range(listing.row_count)]


async def test_logs_are_listed_with_their_places_and_one_is_opened(directory):
    async with shown(directory) as (app, pilot):
        await until(lambda: len(rows(app)) == 2 and not any("…" in row for row in rows(app)))
        blue, red = rows(app)
        assert blue.startswith("blue  open  0")
        assert red.startswith("red  open  3")
        assert ("a file" in red) is directory.places.in_files
        await pilot.press("down")
        details = app.pane.query_one(Details).query_one(Static)
        await until(lambda: directory.places.usual("red") in str(details.content))
        await pilot.press("enter")
        await until(lambda: app.return_value is not None)
    store = app.return_value
    inspector = Inspector(store, is_one_of_many=True)
    inspector.animation_level = "none"
    async with inspector.run_test() as pilot:
        await until(lambda: inspector.pane.rows)
        await pilot.press("enter")
        await until(lambda: inspector.pane.id == "stream")
        await pilot.press("escape")
        await until(lambda: inspector.pane.id == "streams")
        await pilot.press("escape")
        await until(lambda: inspector.return_value is True)


@pytest.mark.slow
async def test_a_log_that_does_not_answer_is_shown_and_not_opened(directory):
    entry = await directory.records.add("far", "postgresql://127.0.0.1:1/far", takes_keys=False)
    await directory.records.set_state(entry, "open")
    directory.places._options["retry_seconds"] = 0.1
    async with shown(directory, at="far") as (app, pilot):
        await until(lambda: len(rows(app)) == 3 and "no answer" in rows(app)[1])
        assert "127.0.0.1:1" in rows(app)[1]
        await until(lambda: app.pane.row is not None and app.pane.row.name == "far")
        await pilot.press("enter")
        await until(lambda: app.query_one("#trouble", Static).display)
        assert app.return_value is None
        await pilot.press("down", "enter")
        await until(lambda: app.return_value is not None)


async def test_a_store_that_is_no_log_of_a_directory_has_no_logs_to_go_back_to(directory):
    inspector = Inspector(await directory.log("red"))
    async with inspector.run_test() as pilot:
        await until(lambda: inspector.pane.rows)
        await pilot.press("escape", "l")
        assert inspector.return_value is None
        assert inspector.is_running
