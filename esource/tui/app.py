"""The frame: tabs, the end of the log, and what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static, TabbedContent, TabPane

from esource import browsing
from esource.browsing.followers import Pending
from esource.browsing.units import plain
from esource.database.sources import database_of
from esource.store.store import EventStore
from esource.tui.dead_letters import DeadLettersPane
from esource.tui.details import MUTED
from esource.tui.help import HelpScreen
from esource.tui.log import LogPane
from esource.tui.outbox import OutboxPane
from esource.tui.panes import Pane
from esource.tui.projections import ProjectionsPane
from esource.tui.streams import StreamPane, StreamsPane

WATCH_SECONDS = 1.0
"""How often the end of the log, and what waits, is read."""

TABS = ("streams", "log", "projections", "letters", "outbox")


class Inspector(App[bool]):
    """A look inside an open store. Reads only; the store stays the caller's.

    Args:
        store: An open store.
        explain: What to say about an error.
        check: Called before each look at the end of the log; raises if the database is gone without that the
            store could notice.
        is_one_of_many: Whether a step back from the lists ends it, with True: to choose another log.
    """

    TITLE = "esource inspect"
    CSS_PATH = "inspector.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - as Textual declares them
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"tab('{tab}')", show=False) for number, tab in enumerate(TABS, start=1)),
        Binding("escape", "step_back", "Back", show=False),
        Binding("l", "logs", "Logs"),
        Binding("t", "light_or_dark", "Light / dark", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        store: EventStore,
        *,
        explain: Callable[[Exception], str] = str,
        check: Callable[[], object] = lambda: None,
        is_one_of_many: bool = False,
    ) -> None:
        super().__init__()
        self._is_one_of_many = is_one_of_many
        self.store = store
        self._explain = explain
        self._check = check
        self._troubles: dict[tuple[str, str], str] = {}
        """What is wrong: by pane ("" is the store) and by part of it."""
        self._head = -1
        self._opened: StreamPane | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Static(
                Content.assemble(("esource ", "bold $primary"), plain(self.store.name)), id="database"
            )
            yield Static(id="head")
        yield Static(id="trouble")
        with TabbedContent(id="tabs"):
            with TabPane("Streams", id="streams-tab"):
                yield StreamsPane(self.store, id="streams")
            with TabPane("Log", id="log-tab"):
                yield LogPane(self.store, id="log")
            with TabPane("Projections", id="projections-tab"):
                yield ProjectionsPane(self.store, id="projections")
            with TabPane("Dead letters", id="letters-tab"):
                yield DeadLettersPane(self.store, id="letters")
            with TabPane("Outbox", id="outbox-tab"):
                yield OutboxPane(self.store, id="outbox")
        yield Footer()

    def on_mount(self) -> None:
        self.watch_store()

    @property
    def frame(self) -> Screen[Any]:
        """The screen with the tabs, whatever is before it: help, or the palette."""
        return self.screen_stack[0]

    @property
    def is_shown(self) -> bool:
        """Whether the frame is there. At the end it is removed before the readers have ended."""
        return bool(self.screen_stack and self.frame.query("#trouble"))

    @property
    def tabs(self) -> TabbedContent:
        return self.frame.query_one("#tabs", TabbedContent)

    @property
    def pane(self) -> Pane[Any]:
        """What is in front; the first, before the tabs know of one."""
        tab = self.tabs.active.removesuffix("-tab") or TABS[0]
        if tab == "streams" and self._opened is not None:
            return self._opened
        return self.frame.query_one(f"#{tab}", Pane)

    def _bring_to_front(self) -> None:
        """Tell every pane whether it is what is seen."""
        front = self.pane
        for pane in self.frame.query(Pane):
            pane.in_front = pane is front

    @on(TabbedContent.TabActivated)
    def _activated(self) -> None:
        self._bring_to_front()
        self.pane.enter()
        self.show_troubles()

    @on(Pane.OpenStream)
    def _asked_for_stream(self, asked: Pane.OpenStream) -> None:
        self.open_stream(asked.stream_id, asked.version)

    def action_tab(self, tab: str) -> None:
        if len(self.screen_stack) == 1:
            self.tabs.active = f"{tab}-tab"

    @work(exclusive=True, group="opening")
    async def open_stream(self, stream_id: str, version: int | None = None) -> None:
        """Show one stream's events, in place of the list of streams."""
        await self._close_stream()
        opened = StreamPane(self.store, stream_id, version=version)
        await self.frame.query_one("#streams-tab").mount(opened)
        self.frame.query_one(StreamsPane).display = False
        self._opened = opened
        if self.tabs.active == "streams-tab":
            self._bring_to_front()
            self.pane.enter()
        else:
            self.tabs.active = "streams-tab"

    @work(exclusive=True, group="opening")
    async def action_step_back(self) -> None:
        """A step back: out of a filter or a zoom, then out of a stream, then to the logs of the directory."""
        pane = self.pane
        if pane.back():
            return
        if not isinstance(pane, StreamPane):
            self.action_logs()
            return
        await self._close_stream()
        self._bring_to_front()
        self.pane.listing.focus()
        self.show_troubles()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is offered: other logs only where there are some."""
        return self._is_one_of_many if action == "logs" else True

    def action_logs(self) -> None:
        """Back to the logs of the directory."""
        if self._is_one_of_many:
            self.exit(True)

    async def _close_stream(self) -> None:
        opened, self._opened = self._opened, None
        self.frame.query_one(StreamsPane).display = True
        if opened is not None:
            await opened.remove()

    def action_light_or_dark(self) -> None:
        """The other one of Textual's own two themes; the palette has all of them."""
        self.theme = "textual-dark" if self.theme == "textual-light" else "textual-light"

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    @work(exclusive=True, group="watch")
    async def watch_store(self) -> None:
        """Look at the end of the log and at what waits, again and again; mend the screen after a failure."""
        database = database_of(self.store)
        while True:
            try:
                self._check()
                head = await browsing.last_position(database)
                pending = await browsing.pending(database)
            except Exception as error:
                self.trouble(error, "")
            else:
                if not self.is_shown:
                    return
                is_back = ("", "") in self._troubles
                self.trouble(None, "")
                self._show_head(head, pending)
                if is_back or self._is_troubled(self.pane):
                    # Also a pane alone: it may have met what was over before this looked.
                    self.pane.enter(focus=False)
            await asyncio.sleep(WATCH_SECONDS)

    def _show_head(self, head: int, pending: Pending) -> None:
        if head != self._head:
            self._say_head(head)
        self._label("letters-tab", "Dead letters", pending.dead_letters, "$text-error")
        given_up = "$text-error" if pending.failed else "$text-warning"
        self._label("outbox-tab", "Outbox", pending.pending + pending.failed, given_up)
        if head != self._head and not self.pane.rows:
            self.pane.enter(focus=False)
        self._head = head

    def _say_head(self, head: int) -> None:
        self.frame.query_one("#head", Static).update(
            Content.assemble(("position ", MUTED), (f"{head:,}", "bold"), ("  read-only", MUTED))
        )

    def _label(self, tab: str, name: str, count: int, style: str) -> None:
        more = "+" if count >= browsing.MOST_COUNTED else ""
        counted = Content.styled(f" {count:,}{more}", style) if count else Content("")
        label = Content.assemble(name, counted)
        found = self.tabs.get_tab(tab)
        if found.label.plain != label.plain:
            found.label = label

    @on(Pane.Trouble)
    def _pane_in_trouble(self, said: Pane.Trouble) -> None:
        self.trouble(said.error, said.pane.id or "", said.part)

    def trouble(self, error: Exception | None, pane: str, part: str = "") -> None:
        """Say what is wrong with a part of a pane (by its id) or the store (""), or that nothing is any more."""
        if not self.is_shown:
            return
        before = dict(self._troubles)
        if error is None:
            self._troubles.pop((pane, part), None)
        else:
            self._troubles[pane, part] = plain(" ".join(self._explain(error).split()))
        if before != self._troubles:
            self.show_troubles()

    def _is_troubled(self, pane: Pane[Any]) -> bool:
        return any(source == pane.id for source, _ in self._troubles)

    def show_troubles(self) -> None:
        """The sentences about the store and the pane in front."""
        shown = ("", self.pane.id)
        said = [sentence for (pane, _), sentence in sorted(self._troubles.items()) if pane in shown]
        banner = self.frame.query_one("#trouble", Static)
        banner.update(Content("\n").join(Content(sentence) for sentence in dict.fromkeys(said)))
        banner.display = bool(said)
