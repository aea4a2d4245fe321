"""The README's code runs, and its commands are those that the project's own checks run."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from documents import blocks, printed_by_python_blocks

from esource import PostgreSQLEventStore, SQLiteEventStore, errors


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text()


def test_every_python_block_runs(readme, tmp_path, empty_postgres_url):
    printed = printed_by_python_blocks(readme, tmp_path, DATABASE_URL=empty_postgres_url)
    # What the comments beside print() promise.
    for promised in ("balance=120 2", "1 2", "0 events behind"):
        assert promised in printed
    assert "Deposited 5" in printed
    assert [line for line in printed if line.startswith("following")] == [
        f"following {position} {amount}" for position, amount in enumerate((100, 20, 5, 7), 1)
    ]


def test_the_first_screen_has_exactly_two_commands(readme):
    first_screen = readme.split("\n## ")[0]
    assert len(blocks(first_screen, "sh")) == 2
    assert len(first_screen.splitlines()) < 25


def test_the_readmes_test_command_is_the_one_that_the_checks_run(readme, root):
    _, tests = blocks(readme, "sh")[:2]
    script = (root / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    *the_same, slow = commands
    assert tests.strip().split(" && ") == the_same
    assert slow == f"{the_same[-1]} -m slow"


def test_the_readmes_example_command_names_what_is_there(readme, root):
    make, install, run = (shlex.split(part) for part in blocks(readme, "sh")[0].strip().split(" && "))
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install[:-1] == [".venv/bin/pip", "install", "--quiet", "--editable"]
    assert install[-1] == ".[sqlite]"
    assert run[0] == ".venv/bin/python"
    assert (root / run[1]).is_file()


@pytest.mark.parametrize("from_a_checkout", [True, False])
def test_the_deployment_commands_migrate(readme, root, tmp_path, empty_database_url, from_a_checkout):
    (command,) = blocks(readme.split("## Migrations")[1], "sh")
    ini, _ = blocks(readme, "ini")
    setting, *arguments = shlex.split(command)
    assert setting.startswith("ESOURCE_URL=postgresql://")
    assert arguments == ["alembic", "upgrade", "head"]
    (tmp_path / "alembic.ini").write_text(ini)
    # The package as the wheel lays it out: with its scripts inside.
    shutil.copytree(root / "esource", tmp_path / "installed" / "esource")
    shutil.copytree(root / "migrations", tmp_path / "installed" / "esource" / "migrations")
    environment = {**os.environ, "ESOURCE_URL": empty_database_url}
    if not from_a_checkout:
        environment["PYTHONPATH"] = str(tmp_path / "installed")

    alembic = [sys.executable, "-m", *arguments[:1]]
    options = {
        "cwd": root if from_a_checkout else tmp_path,
        "env": environment,
        "capture_output": True,
        "text": True,
        "timeout": 120,
    }
    upgraded = subprocess.run([*alembic, *arguments[1:]], **options)
    assert upgraded.returncode == 0, upgraded.stderr
    current = subprocess.run([*alembic, "current"], **options)
    assert "(head)" in current.stdout, current.stderr


def test_every_option_in_the_table_exists_with_its_default(readme):
    table = readme.split("## Options")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", table, flags=re.MULTILINE)
    parameters = {
        name: parameter.default
        for door in (PostgreSQLEventStore, SQLiteEventStore)
        for name, parameter in inspect.signature(door).parameters.items()
        if name not in ("database", "engine_options")
    }
    assert {name for name, _ in rows} == set(parameters)
    for name, default in rows:
        if name not in ("event_registry", "limits"):
            stated = None if default == "none" else ast.literal_eval(default.strip("`"))
            assert stated == parameters[name]


def test_every_error_in_the_table_exists(readme):
    table = readme.split("## Errors")[1].split("```")[0]
    named = set(re.findall(r"`(\w+Error)`", table))
    assert len(named) > 8
    assert all(issubclass(getattr(errors, name), errors.EventSourceError) for name in named)


def test_every_link_leads_somewhere(readme, root):
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links
    assert all((root / link).exists() for link in links)
