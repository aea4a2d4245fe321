"""The log, the newest events first, followed live."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from esource import browsing
from esource.browsing.pages import Page
from esource.log.streams import ReadDirection, ReadOptions, StoredEvent
from esource.store.store import EventStore
from esource.tui.choosing import ALL, chooser, chosen
from esource.tui.details import cell, event_details, number
from esource.tui.panes import StorePane
from esource.tui.streams import offer

PAGE_EVENTS = 100
"""Events of a page."""

SHOW_SECONDS = 0.25
"""How often new events are put on the screen, however many come."""

RETRY_SECONDS = 1.0
"""The pause after the log could not be followed."""


class LogPane(StorePane[StoredEvent]):
    """The log. New events appear at its top while the cursor is there; further down the list stands still,
    and only says how many are newer."""

    heading = "Log"
    columns = ("position", "stored", "event type", "aggregate", "version", "aggregate id")
    empty = "No events. They appear here as they are appended."

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "pause", "Pause / follow")]

    def __init__(self, store: EventStore, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(store, id=id)
        self.paused = False
        self.newer = 0
        """Events that are stored and not shown, past the newest that is."""
        self._fresh: deque[StoredEvent] = deque(maxlen=PAGE_EVENTS)

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(SHOW_SECONDS, self._show_fresh)

    def filters(self) -> Iterable[Widget]:
        yield chooser([("all event types", ALL)], id="event-type")
        yield Input(placeholder="back from position …", type="integer", compact=True, id="position")

    @property
    def start(self) -> int | None:
        """The position that was asked for."""
        typed = self.query_one("#position", Input).value.strip()
        return int(typed) if typed.isdecimal() else None

    @property
    def following(self) -> bool:
        """Whether new events are shown as they come."""
        return not self.paused and self.start is None and self.listing.cursor_row <= 0

    def caption(self) -> str:
        if self.following:
            return "● following"
        newer = f", {self.newer:,} newer" if self.newer else ""
        return f"‖ paused{newer}: space follows"

    async def page(self, after: Any) -> Page[StoredEvent]:
        if after is None and self.start is not None:
            after = self.start + 1
        found = [stored async for stored in self.store.read_all(self._options(after))]
        return Page(found, found[-1].global_position if len(found) == PAGE_EVENTS else None)

    def _options(self, before: int | None) -> ReadOptions:
        event_type = chosen(self, "#event-type")
        return ReadOptions(
            direction=ReadDirection.BACKWARD,
            from_position=before or 0,
            limit=PAGE_EVENTS,
            event_types=None if event_type is None else [event_type],
        )

    async def _reload(self, *, top: bool) -> None:
        try:
            # First: what is appended while the page is read is followed, and recognised.
            head = await browsing.last_position(self.database)
        except Exception as error:
            self.trouble(error)
            return
        self._fresh.clear()
        self.newer = 0
        await super()._reload(top=top)
        self.follow(head)

    def key(self, row: StoredEvent) -> str:
        return row.row[1]

    def cells(self, row: StoredEvent) -> tuple[Text, ...]:
        return (
            number(row.global_position),
            cell(f"{row.stored_at:%m-%d %H:%M:%S}", "dim"),
            cell(row.event_type, "bold"),
            cell(row.aggregate_type),
            number(row.stream_position),
            cell(row.row[2], "dim"),
        )

    async def describe(self, row: StoredEvent) -> Content:
        return event_details(row)

    def selected(self, row: StoredEvent) -> None:
        self.post_message(self.OpenStream(row.stream_id, row.stream_position))

    @work(exclusive=True, group="follow")
    async def follow(self, position: int) -> None:
        """Keep the newest events at hand, and count the others."""
        while True:
            position = await self._listen(position)
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, position: int) -> int:
        """Follow from a position until that fails; the position reached."""
        event_type = chosen(self, "#event-type")
        try:
            async with self.store.subscribe(
                position, event_types=None if event_type is None else [event_type]
            ) as subscription:
                async for stored in subscription:
                    position = stored.global_position
                    if stored.row[1] not in self.rows:
                        self._fresh.append(stored)
                        self.newer += 1
        except Exception as error:
            self.trouble(error)
        return position

    def _show_fresh(self) -> None:
        if not self.in_front:
            return  # it is read anew when it comes to the front
        if self.newer and self.following:
            rows = [*reversed(self._fresh), *(self.rows.values() if self.newer == len(self._fresh) else ())]
            more = self.after is not None or len(rows) > PAGE_EVENTS or self.newer > len(self._fresh)
            shown = rows[:PAGE_EVENTS]
            self._fresh.clear()
            self.newer = 0
            self.begin(shown, shown[-1].global_position if more else None)
        else:
            self.retitle()

    def action_pause(self) -> None:
        """Stand still, or go back to the end of the log and follow it."""
        if self.following:
            self.paused = True
            self.retitle()
            return
        self.paused = False
        position = self.query_one("#position", Input)
        with position.prevent(Input.Changed):
            position.value = ""
        self.reload(top=True)

    def enter(self, *, focus: bool = True) -> None:
        super().enter(focus=focus)
        self.list_types()

    @work(exclusive=True, group="types")
    async def list_types(self) -> None:
        """Offer the types that there are now."""
        await offer(self, "#event-type", "all event types", browsing.event_types(self.database))
