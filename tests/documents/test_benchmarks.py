"""The two tables of speed, in the README and in the documentation, are one."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def _figures(page: str) -> list[str]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| | eventsource-py 0.5.0 |"))
    return lines[start : lines.index("", start)]


def test_the_readme_shows_the_figures_of_the_page_about_benchmarks():
    shown = _figures("README.md")
    assert len(shown) > 2
    assert shown == _figures("docs/benchmarks.md")
