"""docs/cli.md names every command and every option, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

from esource import schema
from esource.cli.app import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command with its options."""

    def walk(command, path: str) -> Iterator[tuple[str, list[str]]]:
        if hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, f"{path} {name}")
        else:
            yield path, [name for part in command.params for name in part.opts if name.startswith("--")]

    yield from walk(typer.main.get_command(app), "esource")


def sections() -> dict[str, str]:
    parts = re.split(r"^### `(esource [a-z -]+)`$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_examples_show_the_newest_revision():
    assert set(re.findall(r"^(?:schema +|.* at schema )(\d{4})", PAGE, flags=re.MULTILINE)) == {schema.HEAD}
    assert re.search(rf"^{schema.HEAD} +", sections()["esource history"], flags=re.MULTILINE)


def test_every_command_has_its_section_and_every_option_stands_in_it():
    found = sections()
    assert sorted(found) == sorted(path for path, _ in commands())
    for path, options in commands():
        named = set(re.findall(r"^\| `(--[a-z-]+)", found[path], flags=re.MULTILINE))
        assert named == set(options) - {"--help"}, path
