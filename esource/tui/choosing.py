"""Drop-down lists that filter a pane."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Select

from esource.browsing.units import plain

ALL = ""
"""The choice that filters nothing."""


def chooser(options: Iterable[tuple[str, str]], id: str) -> Select[str]:  # noqa: A002 - Textual's word
    """A choice above a list."""
    return Select(prompts(options), allow_blank=False, compact=True, id=id)


def prompts(options: Iterable[tuple[str, str]]) -> list[tuple[Content, str]]:
    """Choices whose names are shown as they are stored: a bracket in one is no markup."""
    return [(Content(plain(name)), value) for name, value in options]


def chosen(pane: Widget, selector: str) -> str | None:
    """The choice; None for all."""
    value = pane.query_one(selector, Select).value
    return value if isinstance(value, str) and value != ALL else None
