"""Code of the application that a command is given by name, and that cannot be used."""

from __future__ import annotations

import sys
from uuid import uuid4

import pytest
from support.commands import esource

COMMANDS = (
    ["verify", "--app"],
    ["projections", "rebuild", "--yes", "--app"],
    ["outbox", "relay", "--publisher"],
)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module with this text, which the command can import; its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(text: str) -> str:
        names.append(f"broken_{uuid4().hex[:8]}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("text", "raised", "code"),
    [
        ("raise RuntimeError('no settings')", "RuntimeError: no settings", 70),
        ("def (:", "SyntaxError: ", 70),
        ("import nonsense_mod", "ModuleNotFoundError: No module named 'nonsense_mod'", 2),
        ("from support.orders import Nothing", "ImportError: cannot import name 'Nothing'", 2),
        ("import sys; sys.exit(3)", "SystemExit: 3", 70),
    ],
    ids=["raises", "syntax", "imports nothing", "imports no name", "exits"],
)
async def test_a_module_that_cannot_be_imported_is_named_with_what_it_raised(
    command, text, raised, code, module, sqlite_url
):
    """On SQLite: no database is opened before."""
    name = module(text)
    done = await esource(*command, f"{name}:thing", "--url", sqlite_url)
    assert (done.exit_code, done.stdout) == (code, "")
    assert f"unexpected {raised}" in done.stderr
    assert f"raised by the module {name} when it was imported" in done.stderr
    assert "module:object" not in done.stderr


@pytest.mark.parametrize(
    "app", ["nowhere", "nowhere.at_all:thing", "support.orders:nothing", ":thing", ".orders", "a..b"]
)
async def test_the_form_is_the_remedy_where_the_name_is_wrong(app, sqlite_url):
    done = await esource("verify", "--app", app, "--url", sqlite_url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{app!r} cannot be loaded: " in done.stderr
    assert "Write it as module:object" in done.stderr


@pytest.mark.parametrize("command", COMMANDS[1:], ids=" ".join)
async def test_a_class_that_needs_arguments_is_named(command, module, sqlite_url):
    name = module(
        "from esource import Projection\n"
        "class Needy(Projection):\n"
        "    def __init__(self, settings): self.settings = settings\n"
    )
    done = await esource(*command, f"{name}:Needy", "--url", sqlite_url)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"'{name}:Needy' cannot be called without arguments: it raised TypeError" in done.stderr
