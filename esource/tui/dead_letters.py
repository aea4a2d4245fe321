"""The dead letters, with what went wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text
from textual.content import Content
from textual.widget import Widget

from esource import browsing
from esource.browsing.pages import Page
from esource.browsing.units import plain
from esource.repositories.dlq import DLQEntry
from esource.tui.choosing import ALL, chooser, chosen
from esource.tui.details import (
    age,
    below,
    cell,
    facts,
    first_line,
    heading,
    number,
    paragraphs,
    payload,
    traceback,
)
from esource.tui.panes import StorePane


class DeadLettersPane(StorePane[DLQEntry]):
    """What projections gave up on, the newest first."""

    heading = "Dead letters"
    columns = ("id", "projection", "event type", "tries", "age", "error")
    empty = "No dead letters."

    def filters(self) -> Iterable[Widget]:
        yield chooser([("waiting", ALL), ("resolved", "resolved")], id="letters")

    def caption(self) -> str:
        return "newest first"

    async def page(self, after: Any) -> Page[DLQEntry]:
        resolved = chosen(self, "#letters") is not None
        return await browsing.dead_letters_page(self.database, resolved=resolved, after=after)

    def key(self, row: DLQEntry) -> str:
        return str(row.id)

    def cells(self, row: DLQEntry) -> tuple[Text, ...]:
        return (
            cell(row.id, right=True),
            cell(row.projection_name, "bold"),
            cell(row.event_type),
            number(row.retry_count),
            age(row.first_failed_at),
            cell((first_line(row.error_message) or "")[:80], "red"),
        )

    async def describe(self, row: DLQEntry) -> Content:
        return paragraphs(
            heading(f"{row.projection_name} gave up on {row.event_type}", row.status),
            Content.styled(plain(row.error_message), "bold $text-error"),
            facts(
                [
                    ("event id", row.event_id),
                    ("tries", row.retry_count),
                    ("first failed", row.first_failed_at),
                    ("last failed", row.last_failed_at),
                    ("resolved", row.resolved_at),
                    ("by", row.resolved_by),
                ]
            ),
            below("Event", payload(row.event_data)),
            below("Traceback", traceback(row.error_stacktrace)) if row.error_stacktrace else None,
        )
