"""The picture of the seven tables, drawn from `esource.tables`: ``python docs/schema_diagram.py`` writes it anew."""

from __future__ import annotations

from html import escape
from pathlib import Path

from sqlalchemy import Column, Table, UniqueConstraint
from sqlalchemy.dialects import postgresql

from esource.tables import (
    dead_letter_queue,
    event_outbox,
    event_tags,
    events,
    projection_checkpoints,
    snapshots,
    tag_fillings,
)

PICTURE = Path(__file__).parent / "reference" / "schema.svg"
COLUMNS = [
    [event_outbox, event_tags],
    [events, snapshots, tag_fillings],
    [dead_letter_queue, projection_checkpoints],
]
"""Which tables stand above each other."""

REFERENCES = [
    (event_outbox, "event_id", events, "event_id"),
    (event_outbox, "global_position", events, "global_position"),
    (event_tags, "global_position", events, "global_position"),
    (dead_letter_queue, "event_id", events, "event_id"),
    (projection_checkpoints, "global_position", events, "global_position"),
    (snapshots, "aggregate_id", events, "aggregate_id"),
]
"""What refers to what. No foreign keys: a row beside the log may outlive an archived event."""

WIDTH, GAP, HEADER, ROW, MARGIN = 290, 70, 30, 20, 12
GREEN, GREY, LINE = "#1f6f54", "#5d646e", "#8a8f98"


def svg() -> str:
    """The picture as text, the same for the same tables."""
    places = _places()
    width = 2 * MARGIN + len(COLUMNS) * WIDTH + (len(COLUMNS) - 1) * GAP
    height = max(y + _height(table) for table, (_, y) in places.items()) + MARGIN
    parts = [_reference(places, *reference) for reference in REFERENCES]
    parts += [_box(table, *places[table]) for table in places]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="12">\n'
        f"<title>The seven tables of esource</title>\n"
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _places() -> dict[Table, tuple[int, int]]:
    """Where the upper left corner of each table is."""
    places = {}
    for number, tables in enumerate(COLUMNS):
        y = MARGIN
        for table in tables:
            places[table] = (MARGIN + number * (WIDTH + GAP), y)
            y += _height(table) + 3 * MARGIN
    return places


def _height(table: Table) -> int:
    return HEADER + ROW * len(table.columns) + 8


def _row_of(table: Table, name: str, y: int) -> int:
    return y + HEADER + ROW * list(table.columns.keys()).index(name) + ROW // 2 + 4


def _box(table: Table, x: int, y: int) -> str:
    unique = {
        column.name
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
        for column in constraint.columns
    }
    fill = f'fill="{GREEN}"'
    lines = [
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{_height(table)}" rx="6" fill="#fff" stroke="{LINE}"/>',
        f'<path d="M{x} {y + HEADER} v-{HEADER - 6} q0 -6 6 -6 h{WIDTH - 12} q6 0 6 6 v{HEADER - 6} z" {fill}/>',
        f'<text x="{x + 10}" y="{y + 20}" fill="#fff" font-weight="bold" font-size="13">{table.name}</text>',
    ]
    for column in table.columns:
        middle = _row_of(table, column.name, y) + 4
        key = "PK" if column.primary_key else "U" if column.name in unique or column.unique else ""
        weight = ' font-weight="bold"' if key else ""
        lines.append(
            f'<text x="{x + 10}" y="{middle}" fill="{GREY}" font-size="9">{key}</text>'
            f'<text x="{x + 30}" y="{middle}"{weight}>{column.name}{"?" if column.nullable else ""}</text>'
            f'<text x="{x + WIDTH - 10}" y="{middle}" text-anchor="end" fill="{GREY}" font-size="11">'
            f"{escape(_type_of(column))}</text>"
        )
    return "\n".join(lines)


def _type_of(column: Column[object]) -> str:
    return {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}.get(
        name := column.type.compile(postgresql.dialect()), name
    )


def _reference(
    places: dict[Table, tuple[int, int]], source: Table, column: str, target: Table, referred: str
) -> str:
    """A dashed line from a column to the one that it refers to, with a dot at its end."""
    (from_x, from_y), (to_x, to_y) = places[source], places[target]
    start, end = _row_of(source, column, from_y), _row_of(target, referred, to_y)
    if from_x < to_x:
        begin, stop, bend = from_x + WIDTH, to_x, from_x + WIDTH + GAP // 2 + 5 * (start % 3)
    elif from_x > to_x:
        begin, stop, bend = from_x, to_x + WIDTH, from_x - GAP // 2 - 5 * (start % 3)
    else:
        begin, stop, bend = from_x, to_x, from_x - GAP // 4
    return (
        f'<path d="M{begin} {start} H{bend} V{end} H{stop}" fill="none" stroke="{LINE}" stroke-dasharray="4 3"/>'
        f'<circle cx="{stop}" cy="{end}" r="3" fill="{LINE}"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
