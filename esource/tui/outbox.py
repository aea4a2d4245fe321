"""The outbox: what waits to be published, what was given up, what is published."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from rich.text import Text
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Select

from esource import browsing
from esource.browsing.followers import OutboxStatus
from esource.browsing.pages import Page
from esource.browsing.units import plain
from esource.repositories.outbox_entries import OutboxEntry
from esource.tui.choosing import chooser
from esource.tui.details import age, cell, facts, first_line, heading, number, paragraphs, payload
from esource.tui.panes import StorePane


class OutboxPane(StorePane[OutboxEntry]):
    """Rows of one status."""

    heading = "Outbox"
    columns = ("event type", "aggregate", "position", "tries", "age", "last error")
    empty = "No such rows in the outbox."

    def filters(self) -> Iterable[Widget]:
        yield chooser([("pending", "pending"), ("failed", "failed"), ("published", "published")], id="status")

    @property
    def status(self) -> OutboxStatus:
        return cast("OutboxStatus", self.query_one("#status", Select).value)

    def caption(self) -> str:
        return "newest first" if self.status == "published" else "oldest first"

    async def page(self, after: Any) -> Page[OutboxEntry]:
        return await browsing.outbox_page(self.database, self.status, after=after)

    def key(self, row: OutboxEntry) -> str:
        return str(row.id)

    def cells(self, row: OutboxEntry) -> tuple[Text, ...]:
        return (
            cell(row.event_type, "bold"),
            cell(row.aggregate_type),
            number(row.global_position),
            number(row.retry_count),
            age(row.published_at or row.created_at),
            cell((first_line(row.last_error) or "-")[:60], "red" if row.last_error else "dim"),
        )

    async def describe(self, row: OutboxEntry) -> Content:
        return paragraphs(
            heading(row.event_type, row.status),
            Content.styled(plain(row.last_error), "bold $text-error") if row.last_error else None,
            facts(
                [
                    ("row", row.id),
                    ("stream", f"{row.aggregate_id}:{row.aggregate_type}"),
                    ("event id", row.event_id),
                    ("position", row.global_position),
                    ("tenant", row.tenant_id),
                    ("created", row.created_at),
                    ("published", row.published_at),
                    ("tries", row.retry_count),
                ]
            ),
            payload(row.event_data),
        )
