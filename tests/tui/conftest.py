from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Static

from esource.cli.errors import explain
from esource.cli.opening import reading
from esource.tui.app import Inspector
from esource.tui.listing import Details

LONGEST_WAIT_SECONDS = 60
"""A bound for a loaded machine; what is waited for is there at once."""


HERE = Path(__file__).parent

DIFFER = ("test_the_log_shows_what_another_store_appends", "test_a_failure_is_a_sentence")


class Look:
    """The application as a person meets it: keys, the mouse, and what stands on the screen."""

    def __init__(self, app: Inspector, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until it holds."""
        until = time.monotonic() + LONGEST_WAIT_SECONDS
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError
            # The pilot's own pause asks every widget each time, which costs more than what is waited for.
            await asyncio.sleep(0.02)

    async def lists(self, *cells: str) -> None:
        """Wait until the list's rows hold these texts, one a row, in order, and no others."""

        def same() -> bool:
            found = self.rows()
            return len(found) == len(cells) and all(a in b for a, b in zip(cells, found, strict=True))

        try:
            await self.until(same)
        except TimeoutError:
            raise AssertionError(f"expected {cells}, found {self.rows()}") from None

    async def tells(self, *texts: str) -> None:
        """Wait until the details hold these texts."""
        try:
            await self.until(lambda: all(text in self.details() for text in texts))
        except TimeoutError:
            raise AssertionError(f"expected {texts}, found {self.details()}") from None

    def rows(self) -> list[str]:
        listing = self.app.pane.listing
        return ["  ".join(str(cell) for cell in listing.get_row_at(n)) for n in range(listing.row_count)]

    def details(self) -> str:
        return str(self.app.pane.query_one(Details).query_one(Static).content)

    def title(self) -> str:
        # Its public form is markup, which Textual itself could not always read again.
        title = self.app.pane.listing._border_title
        return title.plain if title else ""

    def banner(self) -> str:
        banner = self.app.frame.query_one("#trouble", Static)
        return str(banner.content) if banner.display else ""

    def text(self, selector: str) -> str:
        return str(self.app.frame.query_one(selector, Static).content)


@pytest.fixture
def look() -> Callable[..., Any]:
    """Opens the application on a database, as the command does."""

    @asynccontextmanager
    async def open_app(url: str, size: tuple[int, int] = (80, 24), **options: Any):
        async with reading(url) as store:
            app = Inspector(store, explain=lambda error: explain(error)[0], **options)
            app.animation_level = "none"  # drawing them is most of what a test costs
            async with app.run_test(size=size) as pilot:
                seen = Look(app, pilot)
                await seen.until(lambda: "position" in seen.text("#head"))
                yield seen

    return open_app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is read is tested on both databases beside `esource.browsing`. The screen is the same on both: by default
    PostgreSQL runs only what depends on how it follows, and how it fails."""
    for item in items:
        if item.path.parent == HERE and "[postgresql]" in item.name and not item.name.startswith(DIFFER):
            item.add_marker(pytest.mark.slow)
