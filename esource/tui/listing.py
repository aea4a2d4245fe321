"""The rows of a pane, and what is known about one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Static

NEAR_END_ROWS = 10
"""How many rows before its end the next page is fetched."""


class Listing(DataTable[Text]):
    """The rows of a pane."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("home,g", "scroll_top", show=False),
        Binding("end,G", "scroll_bottom", show=False),
    ]

    class NearEnd(Message):
        """The next page is wanted."""

    def __init__(self, columns: Iterable[str]) -> None:
        super().__init__(cursor_type="row", zebra_stripes=True)
        self._titles = tuple(columns)

    def on_mount(self) -> None:
        for name in self._titles:
            self.add_column(Text(name), key=name)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """The mouse's wheel moves no cursor."""
        super().watch_scroll_y(old_value, new_value)
        if new_value > old_value and new_value >= self.max_scroll_y - NEAR_END_ROWS:
            self.post_message(self.NearEnd())


class Details(VerticalScroll):
    """What is known about one row."""

    BORDER_TITLE = "Details"

    def compose(self) -> ComposeResult:
        yield Static(id="text")

    def show(self, content: Content | str) -> None:
        self.query_one("#text", Static).update(content)
        self.scroll_home(animate=False)
