"""The rooms of the code: few, in few floors, without a circle, and no file that is too long to be read at once.

`lint-imports` checks which room may import which. This counts over the repository, and looks inside the rooms, too.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("esource", "bench", "migrations")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [
        *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))),
        ROOT / "noxfile.py",
    ]
}
PACKAGE = [path for name, path in MODULES.items() if name.startswith("esource")]
LONG = {
    "esource/errors.py": 570,
    "esource/testing/conformance.py": 400,
}
"""Every error is in one place, and every promise of a store in one class. The others are at the limit."""


@cache
def imports() -> dict[str, set[str]]:
    """Which module imports which, inside functions and for type checkers, too. Whoever imports a name from `esource` imports
    a module behind it, but not all that `esource` hands on."""
    found = {}
    for name, path in MODULES.items():
        named = {
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        found[name] = {module for module in map(module_of, named) if module not in (None, name)}
    return found


def module_of(name: str) -> str | None:
    """The module that a dotted name is, or is in."""
    while name not in MODULES:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def room_of(module: str) -> str:
    return ".".join(module.split(".")[: 2 if module.startswith("esource.") else 1])


def between_rooms() -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {room_of(module): set() for module in MODULES}
    for module, others in imports().items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    return rooms


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when everything that leads nowhere is taken away, again and again."""
    left = {name: set(others) for name, others in arrows.items()}
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


def test_no_module_leads_back_to_itself():
    # `esource` hands on the names of all modules, and imports them when they are asked for.
    modules = {name: others - {"esource"} for name, others in imports().items() if name != "esource"}
    assert circle_in(modules) == []


def test_rooms_floors_and_arrows_are_few():
    rooms = between_rooms()
    assert circle_in({name: others - {"esource"} for name, others in rooms.items()}) == []

    @cache
    def floor(room: str) -> int:
        return 1 + max((floor(other) for other in rooms[room] - {"esource"}), default=0)

    inside = [room for room in rooms if room.startswith("esource.")]
    assert len(rooms) <= 28
    assert max(map(floor, inside)) <= 15  # `inspect` stands on the directory of logs
    assert (
        sum(len(others) for others in rooms.values()) <= 195
    )  # the synchronous side has 16 of them, the directory of logs 16


def test_the_contract_has_few_layers_and_leaves_nothing_out():
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [layers] = re.findall(r"^layers = \[\n(.*?)^\]", settings, flags=re.MULTILINE | re.DOTALL)
    assert len(layers.splitlines()) <= 15  # the synchronous side and `inspect` know the directory of logs
    assert "exclude_type_checking_imports" not in settings
    assert "ignore_imports" not in settings


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_has_no_banners(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONG.get(path.relative_to(ROOT).as_posix(), 350)
    assert re.findall(r"^\s*# ?[-=#*]{2,}.*$", text, flags=re.MULTILINE) == []
