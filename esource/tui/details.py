"""What is stored, as text for people: cells of a list, and details beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pygments.token import Token
from rich.text import Text
from textual.content import Content
from textual.highlight import HighlightTheme, highlight

from esource.browsing.units import duration, plain, size
from esource.domain.events import DomainEvent
from esource.log.streams import StoredEvent
from esource.moments import utc_now

LONGEST_TEXT = 64 * 1024
"""Characters of a payload or traceback that are shown: more would take too long to colour."""

MUTED = "$foreground 60%"
"""The style of what is read second."""

COMMON_FIELDS = frozenset({*DomainEvent.model_fields, "aggregate_version"})
"""What every event has."""


def cell(value: Any, style: str = "", *, right: bool = False) -> Text:
    """A value in a list: one line."""
    text = plain(shown(value)).replace("\n", " ")
    return Text(text, style=style, justify="right" if right else "left", no_wrap=True, end="")


def number(value: int | None, style: str = "") -> Text:
    """A number in a list."""
    return cell(None if value is None else f"{value:,}", style, right=True)


def age(moment: datetime | None) -> Text:
    """How long ago."""
    passed = None if moment is None else duration(max(0.0, round((utc_now() - moment).total_seconds())))
    return cell(passed, "dim", right=True)


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return str(value)


def first_line(text: str | None) -> str | None:
    """The first line of a text that may have several, or none."""
    return text and next(iter(text.strip().splitlines()), "")


def heading(title: str, more: str = "") -> Content:
    """The first line of the details."""
    return Content.assemble((plain(title), "bold $text-primary"), "  ", (plain(more), MUTED))


def facts(named: Iterable[tuple[str, Any]]) -> Content:
    """Names and values, one a line; what is None is left out."""
    known = [(name, shown(value)) for name, value in named if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    return Content("\n").join(
        Content.assemble((name.ljust(width + 2), MUTED), plain(value)) for name, value in known
    )


def payload(value: Any) -> Content:
    """A JSON value, or the text of one, indented and coloured; of an event, its own fields first."""
    if isinstance(value, str):
        if len(value) > LONGEST_TEXT:
            return _coloured(value, "json")
        try:
            value = json.loads(value)
        except ValueError:
            return Content(plain(value))
    if isinstance(value, dict):
        value = dict(sorted(value.items(), key=lambda item: item[0] in COMMON_FIELDS))
    return _coloured(json.dumps(value, indent=2, ensure_ascii=False), "json")


def traceback(text: str) -> Content:
    """A Python traceback, coloured."""
    return _coloured(text.rstrip(), "pytb", TracebackTheme)


class TracebackTheme(HighlightTheme):
    """As Textual colours code, and what only tracebacks have."""

    STYLES = {  # noqa: RUF012 - as Textual declares it
        **HighlightTheme.STYLES,
        Token.Generic.Traceback: MUTED,
        Token.Generic.Error: "bold $text-error",
        Token.Name.Exception: "bold $text-error",
        Token.Name.Builtin: "$text-secondary",
    }


def _coloured(text: str, language: str, theme: type[HighlightTheme] = HighlightTheme) -> Content:
    shortened = plain(text[:LONGEST_TEXT])
    content = highlight(shortened, language=language, theme=theme)
    if len(text) > LONGEST_TEXT:
        rest = size(len(text) - LONGEST_TEXT)
        return Content.assemble(content, ("\n… ", MUTED), (f"{rest} more are not shown", "$text-warning"))
    return content


def paragraphs(*parts: Content | None) -> Content:
    """Parts with an empty line between them."""
    return Content("\n\n").join(part for part in parts if part)


def below(name: str, content: Content) -> Content:
    """A part under its title."""
    return Content("\n").join([Content.styled(name, "bold $text-secondary"), content])


def event_details(stored: StoredEvent) -> Content:
    """An event with its payload and its places."""
    places = f"version {stored.stream_position:,}, position {stored.global_position:,}"
    return paragraphs(
        heading(stored.event_type, places),
        payload(stored.payload),
        facts(
            [
                ("stream", stored.stream_id),
                ("event id", stored.row[1]),
                ("occurred", stored.occurred_at),
                ("stored", stored.stored_at),
                ("tenant", stored.row[5]),
                ("actor", stored.actor_id),
                ("tags", ", ".join(sorted(stored.tags)) or None),
            ]
        ),
    )
