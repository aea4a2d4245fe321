"""What a command says: tables and facts for people, or JSON for programs.

On a terminal with colours and in its width; elsewhere plain text, one row a line, nothing cut off.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from esource.browsing.units import one_line, plain

WIDE = 100_000
"""Columns where there is no terminal: nothing is wrapped."""


_TERMINAL = re.compile("[\x7f-\x9f]")

GAP = 2
"""Blanks between columns."""

LEAST = 24
"""Columns that a sentence needs at least."""


class _Column:
    """A column of a table, and the room that it needs."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self.cells = [one_line(shown(value)) for value in values]
        self.is_number = all(isinstance(value, (int, float)) or value is None for value in values)
        self.is_sentence = any(isinstance(value, str) and " " in value for value in values)
        self.least = max(map(cell_len, (name, *self.cells)))
        if self.is_sentence:
            longest_word = max(cell_len(word) for text in (name, *self.cells) for word in text.split())
            self.least = min(self.least, max(longest_word, LEAST))


class Output:
    """Standard output, as text or as JSON."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, markup=False, emoji=False, width=WIDE, no_color=True)

    def document(self, value: Any) -> None:
        """One JSON document."""
        sys.stdout.write(_json(value, indent=2) + "\n")

    def json_line(self, value: Any) -> None:
        """One JSON value on a line of its own, at once."""
        sys.stdout.write(_json(value, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def say(self, text: str = "", style: str | None = None) -> None:
        """A line of text, or several."""
        self.console.print(Text(plain(text), style=style or ""), soft_wrap=not self.console.is_terminal)

    def heading(self, text: str) -> None:
        """The title of what follows."""
        self.say()
        self.say(text, "bold")

    def facts(self, facts: Iterable[tuple[str, Any]]) -> None:
        """Names and values, one a line."""
        grid = Table.grid(padding=(0, 2))
        for name, value in facts:
            grid.add_row(Text(name, style="dim"), Text(plain(shown(value)), overflow="fold"))
        self.console.print(grid)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        empty: str = "nothing",
        spare: Sequence[str] = (),
    ) -> None:
        """Rows under their columns' names; numbers to the right.

        Only sentences are broken over lines: an id stays in one piece, to be copied. Where a terminal is too
        narrow for that, the ``spare`` columns are left out, one after the other; then each row is a list of facts.
        """
        listed = [list(row) for row in rows]
        if not listed:
            self.say(empty)
            return
        shown_columns = [_Column(name, [row[place] for row in listed]) for place, name in enumerate(columns)]
        for name in ("", *spare):
            shown_columns = [column for column in shown_columns if column.name != name]
            if sum(column.least + GAP for column in shown_columns) - GAP <= self.console.width:
                self._grid(shown_columns)
                return
        for row in listed:
            self.facts(zip(columns, row, strict=True))
            self.say()

    def _grid(self, columns: Sequence[_Column]) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(
                Text(column.name),
                justify="right" if column.is_number else "left",
                overflow="fold",
                no_wrap=not column.is_sentence,
                min_width=column.least,
            )
        for cells in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*map(Text, cells))
        self.console.print(table)

    def json_text(self, value: Any) -> None:
        """A JSON value to be read by a person: indented, with colours on a terminal."""
        text = _json(value, indent=2)
        if self.console.is_terminal:
            self.console.print(
                Syntax(text, "json", background_color="default", word_wrap=True, theme="ansi_dark")
            )
        else:
            self.say(text)


def _json(value: Any, **style: Any) -> str:
    """JSON in which no character is one that a terminal would obey: those that JSON allows as they are become escapes."""
    text = json.dumps(jsonable(value), ensure_ascii=False, **style)
    return _TERMINAL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_NAMES = {
    "position": "global_position",
    "pending_count": "pending",
    "published_count": "published",
    "failed_count": "failed",
    "total_failed": "failed",
    "total_retrying": "retrying",
    "error_message": "last_error",
    "error_stacktrace": "traceback",
    "CopyResult.tables": "changes",
    "Revision.id": "schema",
    "LogSchema.version": "schema",
    "LogReport.revision": "schema",
    "LogReport.size": "bytes",
}
"""What JSON calls a field, where the classes of the library have several names for one thing, or one for several."""


def _name_of(value: Any, field: str) -> str:
    return _NAMES.get(f"{type(value).__name__}.{field}") or _NAMES.get(field, field)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: ids as text, moments in ISO 8601, and one name for one thing (docs/cli.md lists them)."""
    if is_dataclass(value) and not isinstance(value, type):
        return {_name_of(value, field.name): jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return jsonable(value._asdict())
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return str(value)
