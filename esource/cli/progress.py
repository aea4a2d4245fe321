"""A progress bar with a rate and the time that is left."""

from __future__ import annotations

import sys

from rich import progress
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from esource.copying.progress import Progress


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class Bar:
    """A progress bar on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self.progress = progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._steps: dict[str, int] = {}

    def tell(self, said: Progress) -> None:
        if said.step not in self._steps:
            self._steps[said.step] = self.progress.add_task(said.step, total=None)
        task = self._steps[said.step]
        self.progress.update(task, completed=said.done, total=said.total or None)  # type: ignore[arg-type]
