"""The projections, and how far they are behind."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual.content import Content

from esource import browsing
from esource.browsing.followers import CheckpointState
from esource.browsing.overview import unfilled
from esource.browsing.pages import Page
from esource.browsing.units import duration
from esource.tui.details import MUTED, age, cell, facts, heading, number, paragraphs
from esource.tui.panes import StorePane

LATE_SECONDS = 60.0
"""An event that waits for so long is marked."""

REFRESH_SECONDS = 2.0
BAR_CELLS = 30


class ProjectionsPane(StorePane[CheckpointState]):
    """The checkpoints, read anew all the time."""

    heading = "Projections"
    columns = ("projection", "position", "behind", "for", "moved", "worker")
    empty = "No projections: no checkpoint was saved."

    _fillings = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(REFRESH_SECONDS, self._again)

    def _again(self) -> None:
        # A reading that takes longer than the pause is not begun anew before its end.
        if self.in_front and not self.is_reading:
            self.reload()

    async def page(self, after: Any) -> Page[CheckpointState]:
        fillings = await unfilled(self.database)
        head = await browsing.last_position(self.database) if fillings else 0
        self._fillings = ", ".join(
            f"filling {filling.tag_name}:… of {filling.event_type} {filling.global_position:,} of {head:,}"
            for filling in fillings
        )
        return Page(await browsing.checkpoint_states(self.database), None)

    def caption(self) -> str:
        return self._fillings

    def key(self, row: CheckpointState) -> str:
        return row.name

    def cells(self, row: CheckpointState) -> tuple[Text, ...]:
        style = _style(row)
        return (
            cell(row.name, "bold"),
            number(row.position),
            number(None if row.position is None else row.behind, style),
            cell("-" if row.position is None else duration(row.lag_seconds), style, right=True),
            age(row.last_processed_at),
            cell(row.worker or "-", "dim"),
        )

    async def describe(self, row: CheckpointState) -> Content:
        known = [
            ("position", None if row.position is None else f"{row.position:,}"),
            ("behind", None if row.position is None else f"at most {row.behind:,} events, of all types"),
            ("oldest waits for", duration(row.lag_seconds) if row.behind else None),
            ("last event", row.last_event_type),
            ("moved", row.last_processed_at),
            ("steps", f"{row.events_processed:,}"),
            ("worker", row.worker or "none holds it"),
            ("version in use", row.active_version),
        ]
        return paragraphs(heading(row.name, _state(row)), _bar(row), facts(known))


def _style(row: CheckpointState) -> str:
    if not row.behind:
        return "green"
    return "bold red" if row.lag_seconds > LATE_SECONDS else "yellow"


def _state(row: CheckpointState) -> str:
    if row.position is None:
        return "names the version in use"
    return f"{duration(row.lag_seconds)} behind" if row.behind else "up to date"


def _bar(row: CheckpointState) -> Content | None:
    """How much of the log it has seen."""
    if row.position is None:
        return None
    head = row.position + row.behind
    part = row.position / head if head else 1.0
    done = min(int(part * BAR_CELLS), BAR_CELLS)
    colour = "$text-success" if not row.behind else "$text-warning"
    percent = f"{part:.1%}" if not row.behind else f"{min(part, 0.999):.1%}"
    return Content.assemble(
        ("━" * done, colour),
        ("━" * (BAR_CELLS - done), "$foreground 20%"),
        (f"  {percent} of the log", MUTED),
    )
