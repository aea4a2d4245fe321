"""The logs of a directory, of which one is opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Footer, Static

from esource.browsing.pages import Page
from esource.browsing.units import plain, size
from esource.directory import Directory, LogEntry, LogReport
from esource.store.store import EventStore
from esource.tui.details import MUTED, cell, facts, heading, number, paragraphs
from esource.tui.panes import Pane

REFRESH_SECONDS = 5.0
"""How often the logs are looked at. A look that takes longer is not begun anew before its end."""

LOOKING = "looking"
"""The group of what looks at the logs."""


class LogsPane(Pane[LogEntry]):
    """The logs as they are noted, and what they say themselves as soon as they have answered."""

    heading = "Logs"
    columns = ("log", "state", "position", "behind", "size", "keys", "server")
    empty = "No logs. `esource logs create` makes them."

    class Open(Message):
        """A log is to be opened."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, directory: Directory, *, at: str | None = None) -> None:
        super().__init__(id="logs")
        self.directory = directory
        self._at = at
        """The log that the cursor is on at first."""
        self._reports: dict[str, LogReport] = {}

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(REFRESH_SECONDS, self._again)

    def _again(self) -> None:
        if not self.is_reading and not any(
            worker.group == LOOKING and not worker.is_finished for worker in self.workers
        ):
            self.reload()

    def begin(self, rows: list[LogEntry], after: Any) -> None:
        super().begin(rows, after)
        at, self._at = self._at, None
        if at in self.rows:
            self.listing.move_cursor(row=self.listing.get_row_index(at), animate=False)

    async def page(self, after: Any) -> Page[LogEntry]:
        entries = await self.directory.logs()
        self._look()
        return Page(entries, None)

    @work(exclusive=True, group=LOOKING)
    async def _look(self) -> None:
        with self.reporting(LOOKING):
            await self.directory.report(on_report=self._told)

    def _told(self, report: LogReport) -> None:
        self._reports[report.name] = report
        row = self.rows.get(report.name)
        if row is None:
            return
        for column, text in zip(self.listing.columns, self.cells(row), strict=True):
            self.listing.update_cell(report.name, column, text, update_width=True)
        if self.row is row:
            self._describe(row)

    def key(self, row: LogEntry) -> str:
        return row.name

    def cells(self, row: LogEntry) -> tuple[Text, ...]:
        report = self._reports.get(row.name)
        if report is None:
            return (
                cell(row.name, "bold"),
                cell(row.state),
                *(cell("…", "dim", right=True),) * 4,
                self._where(row),
            )
        if report.error is not None:
            state = cell("no answer" if report.revision is None else row.state, "bold red")
        else:
            state = cell(row.state, "green" if row.state == "open" else "yellow")
        return (
            cell(row.name, "bold"),
            state,
            number(report.position),
            number(report.behind, "yellow" if report.behind else "green"),
            cell(None if report.size is None else size(report.size), right=True),
            number(report.keys),
            self._where(row),
        )

    def _where(self, row: LogEntry) -> Text:
        return cell(server_of(self.directory, row), "dim")

    async def describe(self, row: LogEntry) -> Content:
        report = self._reports.get(row.name)
        known: list[tuple[str, Any]] = [
            ("place", row.place),
            ("server", server_of(self.directory, row)),
            ("moving to", row.target),
            ("takes keys", "yes, those that are assigned nowhere" if row.takes_keys else None),
            ("schema", row.revision if report is None else report.revision),
        ]
        if report is None:
            return paragraphs(heading(row.name, row.state), facts(known))
        known += [
            ("position", None if report.position is None else f"{report.position:,}"),
            (
                "behind",
                None if report.behind is None else f"{report.behind:,} positions, the slowest follower",
            ),
            ("size", None if report.size is None else size(report.size)),
            ("keys", f"{report.keys:,}"),
        ]
        trouble = report.error and Content.styled(plain(report.error), "$text-error")
        return paragraphs(heading(row.name, row.state), trouble or None, facts(known))

    def selected(self, row: LogEntry) -> None:
        self.post_message(self.Open(row.name))


def server_of(directory: Directory, entry: LogEntry) -> str:
    """The server that a log lies on, or that it lies in a file."""
    url = directory.places.resolve(entry.place)
    if directory.places.server(url).backend.in_files:
        return "a file"
    host = url.host or url.query.get("host") or "this machine"
    return f"{host}:{url.port}" if url.port else str(host)


class Logs(App[EventStore]):
    """The logs of a directory; ends with the store of the one that is chosen, or with None. Reads only.

    Args:
        directory: An open directory.
        opened: Opens a log by its name.
        explain: What to say about an error.
        at: The log that the cursor is on.
    """

    TITLE = "esource inspect"
    CSS_PATH = "inspector.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012 - as Textual declares them
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]  # noqa: RUF012

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "step_back", "Back", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        directory: Directory,
        opened: Callable[[str], Awaitable[EventStore]],
        *,
        explain: Callable[[Exception], str] = str,
        at: str | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self._opened = opened
        self._explain = explain
        self._at = at
        self._troubles: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        with Horizontal(id="top"):
            yield Static(
                Content.assemble(("esource ", "bold $primary"), plain(self.directory.name)), id="database"
            )
            yield Static(Content.styled("Enter opens a log  read-only", MUTED), id="head")
        yield Static(id="trouble")
        yield LogsPane(self.directory, at=self._at)
        yield Footer()

    @property
    def pane(self) -> LogsPane:
        return self.screen_stack[0].query_one(LogsPane)

    def on_mount(self) -> None:
        self.pane.in_front = True
        self.pane.enter()

    @on(LogsPane.Open)
    @work(exclusive=True, group="opening")
    async def open_log(self, asked: LogsPane.Open) -> None:
        """End with the store of a log, if it can be read."""
        try:
            store = await self._opened(asked.name)
        except Exception as error:
            self._trouble(error, "opening")
        else:
            self.exit(store)

    def action_step_back(self) -> None:
        """A step back in the list."""
        self.pane.back()

    @on(Pane.Trouble)
    def _pane_in_trouble(self, said: Pane.Trouble) -> None:
        self._trouble(said.error, said.part)

    def _trouble(self, error: Exception | None, part: str) -> None:
        """Say what is wrong, or that nothing is any more."""
        self._troubles.pop(part, None)
        if error is not None:
            self._troubles[part] = plain(" ".join(self._explain(error).split()))
        if not self.screen_stack or not (found := self.screen_stack[0].query("#trouble")):
            return
        banner = found.only_one(Static)
        banner.update(Content("\n").join(map(Content, dict.fromkeys(self._troubles.values()))))
        banner.display = bool(self._troubles)
