"""A list that is read page by page, with the details of the row under the cursor beside or below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantFocus
from textual.message import Message
from textual.widget import Widget
from textual.widgets import DataTable, Input, Select

from esource.browsing.pages import Page, Row
from esource.browsing.units import plain
from esource.database.sources import database_of
from esource.store.store import EventStore
from esource.tui.details import MUTED
from esource.tui.listing import NEAR_END_ROWS, Details, Listing

MOST_ROWS = 5_000
"""Rows of a list: memory stays bounded, however far the user scrolls. A filter leads to the others."""

LISTING = "listing"
"""The group of those workers of a pane that read pages."""


class Pane(Vertical, Generic[Row]):
    """One tab. Subclasses say what a page is, and how a row looks."""

    heading: str
    columns: ClassVar[tuple[str, ...]]
    empty: ClassVar[str]
    """What to say where there are no rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("r", "refresh", "Refresh"),
        Binding("z", "zoom", "Zoom"),
        Binding("c", "copy", "Copy id", show=False),
    ]

    class Trouble(Message):
        """A part of the pane cannot be read, or can be again: then the error is None."""

        def __init__(self, pane: Pane[Any], error: Exception | None, part: str) -> None:
            super().__init__()
            self.pane = pane
            self.error = error
            self.part = part

    class OpenStream(Message):
        """The events of one stream are to be shown, the cursor on a version."""

        def __init__(self, stream_id: str, version: int | None = None) -> None:
            super().__init__()
            self.stream_id = stream_id
            self.version = version

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self._title = ""
        self.in_front = False
        """Whether it is what is seen: the app says so."""
        self.rows: dict[str, Row] = {}
        """What is listed, by the rows' keys, in order."""
        self.after: Any = None
        """Where the next page begins; None at the end."""

    def filters(self) -> Iterable[Widget]:
        """What stands above the list."""
        return ()

    async def page(self, after: Any) -> Page[Row]:
        """The first page (None), or the next."""
        raise NotImplementedError

    def key(self, row: Row) -> str:
        """What tells a row from the others; it is copied as well."""
        raise NotImplementedError

    def cells(self, row: Row) -> tuple[Text, ...]:
        """A row, one text a column."""
        raise NotImplementedError

    async def describe(self, row: Row) -> Content:
        """The details of a row."""
        raise NotImplementedError

    def selected(self, row: Row) -> None:
        """Enter, or a click on the row under the cursor."""
        self.query_one(Details).focus()

    def caption(self) -> str:
        """What the list's title says besides its name."""
        return ""

    def compose(self) -> ComposeResult:
        filters = list(self.filters())
        if filters:
            yield Horizontal(*filters, classes="filters")
        with Container(classes="split"):
            yield Listing(self.columns)
            yield Details()

    def on_mount(self) -> None:
        self.retitle()

    @property
    def listing(self) -> Listing:
        return self.query_one(Listing)

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        if not self.rows:
            return None
        key = self.listing.coordinate_to_cell_key(self.listing.cursor_coordinate).row_key.value
        return self.rows.get(key or "")

    def retitle(self) -> None:
        """Say in the list's border what it shows."""
        more = "" if self.after is None else "+"
        if self.after is not None and len(self.rows) >= MOST_ROWS:
            more = ", the others are found by the filter"
        parts = [self.heading, f"{len(self.rows):,}{more}" if self.rows else "", self.caption()]
        title = "  ".join(filter(None, parts))
        if title != self._title:  # setting it draws the list again
            self._title = title
            # As content: no way of escaping makes text of every bracket and backslash.
            self.listing.border_title = Content(plain(title))

    def enter(self, *, focus: bool = True) -> None:
        """Come to the front, with what there is now."""
        if focus:
            self.listing.focus()
        self.reload()

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Let keys and clicks alone change the tab: Textual's own would bring the tab back that was focused last,
        when another was asked for before it heard of that."""
        event.stop()

    @property
    def is_reading(self) -> bool:
        """Whether a page is being read."""
        return any(
            worker.node is self and worker.group == LISTING and not worker.is_finished
            for worker in self.workers
        )

    @property
    def is_near_end(self) -> bool:
        """Whether the next page is wanted: there is one, and the cursor is not far from it."""
        return (
            self.after is not None
            and len(self.rows) < MOST_ROWS
            and self.listing.cursor_row >= len(self.rows) - NEAR_END_ROWS
        )

    @work(exclusive=True, group=LISTING)
    async def reload(self, *, top: bool = False) -> None:
        """Read the first page anew; the cursor stays on its row if that is still there."""
        await self._reload(top=top)

    async def _reload(self, *, top: bool) -> None:
        with self.reporting():
            page = await self.page(None)
            # Not before the reading: a key may move the cursor meanwhile.
            before = None if top or self.row is None or self.listing.cursor_row == 0 else self.key(self.row)
            self.begin(page.rows, page.after)
            while before is None and self.after is not None and self.listing.row_count <= self.size.height:
                page = await self.page(self.after)
                self._add(page)
            if before in self.rows:
                self.listing.move_cursor(row=self.listing.get_row_index(before), animate=False)
            if not self.rows:
                self.query_one(Details).show(Content.styled(self.empty, MUTED))

    def begin(self, rows: list[Row], after: Any) -> None:
        """Show these rows, and no others."""
        self.listing.clear()
        self.rows.clear()
        self._add(Page(rows, after))

    def _add(self, page: Page[Row]) -> None:
        fresh = {self.key(row): row for row in page.rows}
        for key, row in fresh.items():
            if key not in self.rows:
                self.listing.add_row(*self.cells(row), key=key)
        known = len(self.rows)
        self.rows |= fresh
        # A page of rows that are all here already would come for ever.
        self.after = None if page.rows and len(self.rows) == known else page.after
        self.retitle()

    @on(Listing.NearEnd)
    def _near_end(self) -> None:
        if not self.is_reading and self.after is not None and len(self.rows) < MOST_ROWS:
            self._further()

    @work(group=LISTING)
    async def _further(self) -> None:
        with self.reporting():
            self._add(await self.page(self.after))
            while self.is_near_end:  # a page may hold few rows, or none
                self._add(await self.page(self.after))

    def trouble(self, error: Exception | None, part: str = LISTING) -> None:
        """Say what is wrong with a part of the pane, or that nothing is any more."""
        self.post_message(self.Trouble(self, error, part))

    @contextmanager
    def reporting(self, part: str = LISTING) -> Iterator[None]:
        """Read a part of the pane and show it: a failure is said, and a success ends what was said before.

        The showing belongs inside: a pane that closes loses its parts first, while it still reads.
        """
        try:
            yield
        except Exception as error:
            self.trouble(error, part)
        else:
            self.trouble(None, part)

    @on(DataTable.RowHighlighted)
    def _highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        if self.is_near_end:
            self._near_end()
        row = self.row  # the list may have moved on since the message was sent
        if row is not None:
            self._describe(row)

    @work(exclusive=True, group="details")
    async def _describe(self, row: Row) -> None:
        with self.reporting("details"):
            content = await self.describe(row)
            if self.row is not None and self.key(self.row) == self.key(row):  # the list may have moved on
                self.query_one(Details).show(content)

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if self.row is not None:
            self.selected(self.row)

    def action_filter(self) -> None:
        """The text to type comes first; a choice has its own keys."""
        for widget in (*self.query(Input), *self.query(Select)):
            widget.focus()
            return

    def action_refresh(self) -> None:
        self.reload()

    def action_zoom(self) -> None:
        """The details alone, or the list and the details."""
        zoomed = not self.has_class("zoomed")
        self.set_class(zoomed, "zoomed")
        (self.query_one(Details) if zoomed else self.listing).focus()

    def action_copy(self) -> None:
        if self.row is not None:
            self.app.copy_to_clipboard(self.key(self.row))
            self.app.notify(f"{self.key(self.row)} is copied", timeout=2, markup=False)

    def back(self) -> bool:
        """One step back: to the list and its top left of it; False if this is where the pane began."""
        if self.has_class("zoomed"):
            self.action_zoom()
        elif self.listing.has_focus:
            return False
        else:
            self.listing.focus()
        return True

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.listing.focus()

    @on(Input.Changed)
    @on(Select.Changed)
    def _filtered(self) -> None:
        if self.is_mounted and self.listing.is_mounted:
            self.reload(top=True)


class StorePane(Pane[Row]):
    """A pane that shows a part of a store."""

    def __init__(self, store: EventStore, *, id: str) -> None:  # noqa: A002 - Textual's word
        super().__init__(id=id)
        self.store = store
        self.database = database_of(store)
