"""The keys, on one screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from esource.tui.details import MUTED

KEYS = (
    (
        "Everywhere",
        (
            ("1 … 5", "streams, log, projections, dead letters, outbox"),
            ("↑ ↓  j k", "move; the next page comes by itself"),
            ("Enter", "open: a stream's events, or the details"),
            ("Tab", "filter, list, details"),
            ("/", "filter; Escape leaves it"),
            ("z", "the details alone, and back"),
            ("r", "read anew"),
            ("c", "copy the row's id"),
            ("Escape", "a step back"),
            ("l", "of a directory: all its logs; Enter opens one"),
            ("t", "light or dark; ^p has all themes"),
            ("q", "quit"),
        ),
    ),
    ("The log", (("space", "pause, or follow the end again"), ("Home", "up to the newest: follows again"))),
    ("A stream", (("o", "oldest or newest first"),)),
)

MOUSE = "The mouse: click a tab, a row, twice to open it; the wheel scrolls; drag selects text."
READ_ONLY = "Nothing here changes the store."


class HelpScreen(ModalScreen[None]):
    """What can be pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Close", show=False)
    ]

    def compose(self) -> ComposeResult:
        parts = [
            Content("\n").join(
                [
                    Content.styled(name, "bold $text-primary"),
                    *(
                        Content.assemble((f"  {key:<10}", "bold $text-accent"), meaning)
                        for key, meaning in keys
                    ),
                ]
            )
            for name, keys in KEYS
        ]
        parts += [Content.styled(f"{MOUSE}\n{READ_ONLY}", MUTED)]
        with VerticalScroll(id="help") as box:
            box.border_title = "Keys"
            box.border_subtitle = "Escape closes"
            yield Static(Content("\n").join(parts))

    def on_click(self) -> None:
        self.dismiss()
