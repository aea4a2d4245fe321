"""The picture for the documentation: one bar for each contender and workload, written as SVG by hand."""

from __future__ import annotations

from html import escape
from typing import Any

COLOURS = {
    "esource": "#1f6f54",
    "esource, no hop": "#3fa37f",
    "esource.sync": "#8ccfb4",
    "esource, plain append": "#c5e3d6",
    "raw": "#8a8f98",
    "raw, no hop": "#b9bdc4",
    "raw asyncpg": "#8a8f98",
    "eventsource-py 0.5.0": "#c98a2b",
    "eventsource-py newest": "#e3b668",
    "eventsourcing": "#4a6fa5",
    "eventsourcing, DB functions": "#8fb0dc",
    "eventsourcing DCB": "#6f5aa8",
    "UmaDB": "#b0506a",
}
TITLES = {
    "sqlite-full": "SQLite, synchronous=FULL",
    "sqlite-normal": "SQLite, synchronous=NORMAL",
    "postgresql": "PostgreSQL",
    "memory": "in memory",
}
WIDTH, LABEL, BAR, GAP, LINE = 900, 250, 11, 14, 18
PLOT = WIDTH - LABEL - 110


def svg(document: dict[str, Any]) -> str:
    """Rates relative to the fastest of each workload, with the rate at the end of each bar."""
    parts: list[str] = []
    y = 28
    machine = document["machine"]
    about = ", ".join(sorted(set(document["databases"].values())))
    parts.append(_text(10, y, "esource beside its peers: medians, longer is faster", size=16, weight="bold"))
    y += LINE
    parts.append(_text(10, y, f"{machine['cpus']} CPUs, Python {machine['python']}, {about}", colour="#555"))
    y += LINE
    y = _legend(parts, document, y)
    for kind in document["databases"]:
        results = [r for r in document["results"] if r["database"] == kind and "contenders" in r]
        results = [r for r in results if any("median" in c for c in r["contenders"].values())]
        if not results:
            continue
        y += LINE + 6
        parts.append(_text(10, y, TITLES[kind], size=14, weight="bold"))
        y += 10
        for result in results:
            y = _group(parts, result, y)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" '
        f'viewBox="0 0 {WIDTH} {y + 10}" font-family="system-ui, sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _legend(parts: list[str], document: dict[str, Any], y: int) -> int:
    shown = {name for r in document["results"] for name in r.get("contenders", {})}
    x = 10
    for name, colour in COLOURS.items():
        if name in shown and name != "raw asyncpg":
            label = "raw driver" if name == "raw" else name
            parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
            parts.append(_text(x + 14, y, label))
            x += 32 + 6 * len(label)
    return y


def _group(parts: list[str], result: dict[str, Any], y: int) -> int:
    rated = {
        name: c["median"] for name, c in result["contenders"].items() if "median" in c and not c.get("failed")
    }
    if not rated:
        return y
    fastest = max(rated.values())
    parts.append(_text(LABEL - 8, y + BAR * len(rated) // 2 + 4, result["title"], anchor="end"))
    for name, rate in rated.items():
        length = max(1.0, PLOT * rate / fastest)
        parts.append(
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR - 1}" fill="{COLOURS[name]}">'
            f"<title>{escape(name)}: {rate:,.0f} {result['unit']}</title></rect>"
        )
        parts.append(
            _text(LABEL + length + 4, y + BAR - 2, f"{rate:,.0f} {result['unit']}", size=9, colour="#555")
        )
        y += BAR
    return y + GAP


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 11,
    weight: str = "normal",
    colour: str = "#111",
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
