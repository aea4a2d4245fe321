"""The streams, and the events of one of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Select

from esource import browsing
from esource.browsing.pages import Page
from esource.browsing.streams import StreamSummary
from esource.log.streams import ReadDirection, ReadOptions, StoredEvent
from esource.store.store import EventStore
from esource.tui.choosing import ALL, chooser, chosen, prompts
from esource.tui.details import age, below, cell, event_details, facts, heading, number, paragraphs, payload
from esource.tui.panes import Pane, StorePane

PREVIEW_EVENTS = 8
"""Events of a stream that its details name."""

PAGE_EVENTS = 100
"""Events of a page of one stream."""


async def stream_page(
    store: EventStore, stream_id: str, *, newest: bool, after: int | None, size: int
) -> Page[StoredEvent]:
    """Events of a stream past a version. One query."""
    direction = ReadDirection.BACKWARD if newest else ReadDirection.FORWARD
    options = ReadOptions(direction=direction, from_position=after or 0, limit=size)
    found = [stored async for stored in store.read_stream(stream_id, options)]
    return Page(found, found[-1].stream_position if len(found) == size else None)


class StreamsPane(StorePane[StreamSummary]):
    """The streams: the newest first, or by id where a prefix is given."""

    heading = "Streams"
    columns = ("aggregate id", "type", "version", "position", "age")
    empty = "No streams. Events that are appended appear here."

    def filters(self) -> Iterable[Widget]:
        yield chooser([("all types", ALL)], id="type")
        yield Input(placeholder="aggregate id begins with …", compact=True, id="prefix")

    @property
    def prefix(self) -> str:
        """As typed; of a whole stream id, the part before the colon."""
        return self.query_one("#prefix", Input).value.strip().partition(":")[0]

    def caption(self) -> str:
        return "by id" if self.prefix else "newest first"

    async def page(self, after: Any) -> Page[StreamSummary]:
        aggregate_type = chosen(self, "#type")
        if self.prefix:
            return await browsing.streams_by_id(
                self.database, self.prefix, aggregate_type=aggregate_type, after=after
            )
        return await browsing.newest_streams(self.database, aggregate_type=aggregate_type, after=after)

    def key(self, row: StreamSummary) -> str:
        return row.stream_id

    def cells(self, row: StreamSummary) -> tuple[Text, ...]:
        return (
            cell(row.stream_id.partition(":")[0]),
            cell(row.aggregate_type, "bold"),
            number(row.version),
            number(row.global_position),
            age(row.newest),
        )

    async def describe(self, row: StreamSummary) -> Content:
        page = await stream_page(self.store, row.stream_id, newest=True, after=None, size=PREVIEW_EVENTS)
        last = page.rows[0] if page.rows else None
        return paragraphs(
            heading(row.aggregate_type, f"version {row.version:,}, position {row.global_position:,}"),
            facts([("stream", row.stream_id), ("last event", row.newest)]),
            facts(
                (f"{stored.stored_at:%m-%d %H:%M:%S} {stored.stream_position:>7,}", stored.event_type)
                for stored in page.rows
            ),
            below(f"The last: {last.event_type}", payload(last.payload)) if last else None,
        )

    def selected(self, row: StreamSummary) -> None:
        self.post_message(self.OpenStream(row.stream_id))

    def enter(self, *, focus: bool = True) -> None:
        super().enter(focus=focus)
        self.list_types()

    @work(exclusive=True, group="types")
    async def list_types(self) -> None:
        """Offer the types that there are now."""
        await offer(self, "#type", "all types", browsing.aggregate_types(self.database))


async def offer(pane: Pane[Any], selector: str, everything: str, names: Any) -> None:
    """Offer these names in a choice, if they are others than before."""
    with pane.reporting("types"):
        options = [(everything, ALL), *((name, name) for name in await names)]
        select = pane.query_one(selector, Select)
        if options != getattr(pane, "_offered", None):
            pane._offered = options  # type: ignore[attr-defined]  # noqa: SLF001
            value = select.value
            with pane.prevent(Select.Changed):
                select.set_options(prompts(options))
                if value in [name for _, name in options]:
                    select.value = value


class StreamPane(StorePane[StoredEvent]):
    """The events of one stream."""

    columns = ("version", "event type", "position", "stored")
    empty = "There is no such stream."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "order", "Order"),
        Binding("escape", "app.step_back", "Back"),
    ]

    def __init__(self, store: EventStore, stream_id: str, *, version: int | None = None) -> None:
        super().__init__(store, id="stream")
        self.heading = stream_id
        self.stream_id = stream_id
        self.newest = False
        self._version = version

    def filters(self) -> Iterable[Widget]:
        far = "" if self._version is None or self._version <= PAGE_EVENTS else str(self._version)
        yield Input(far, placeholder="from version …", type="integer", compact=True, id="version")

    def caption(self) -> str:
        return "newest first" if self.newest else "oldest first"

    async def page(self, after: Any) -> Page[StoredEvent]:
        if after is None:
            after = self._first_key()
        return await stream_page(
            self.store, self.stream_id, newest=self.newest, after=after, size=PAGE_EVENTS
        )

    def _first_key(self) -> int | None:
        """Before the first version that is wanted."""
        typed = self.query_one("#version", Input).value.strip()
        if not typed.isdecimal():
            return None
        return int(typed) + 1 if self.newest else max(0, int(typed) - 1)

    async def _reload(self, *, top: bool) -> None:
        await super()._reload(top=top)
        if self._version is not None:  # once: the event that the stream was opened for
            for number, row in enumerate(self.rows.values()):
                if row.stream_position == self._version:
                    self.listing.move_cursor(row=number, animate=False)
            self._version = None

    def key(self, row: StoredEvent) -> str:
        return row.row[1]

    def cells(self, row: StoredEvent) -> tuple[Text, ...]:
        return (
            number(row.stream_position),
            cell(row.event_type, "bold"),
            number(row.global_position),
            cell(f"{row.stored_at:%Y-%m-%d %H:%M:%S}", "dim"),
        )

    async def describe(self, row: StoredEvent) -> Content:
        return event_details(row)

    def action_order(self) -> None:
        """The other end first."""
        self.newest = not self.newest
        self.reload(top=True)
