"""The README's code runs, and its commands are those that the project's own checks run."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from support.documents import blocks


@pytest.fixture
def readme(root):
    return (root / "README.md").read_text()


def test_the_first_screen_has_exactly_two_commands(readme):
    first_screen = readme.split("\n## ")[0]
    assert len(blocks(first_screen, "sh")) == 2
    assert len(first_screen.splitlines()) < 25


def test_the_readmes_test_command_is_the_one_that_the_checks_run(readme, root):
    _, tests = blocks(readme, "sh")[:2]
    script = (root / ".ci" / "run").read_text().splitlines()
    commands = [line for line in script if line and not line.startswith(("#", "set ", "cd "))]
    the_same = tests.strip().split(" && ")
    assert commands[: len(the_same)] == the_same
    assert commands[len(the_same)] == f"{the_same[-1]} -m slow"


def test_the_readmes_example_command_names_what_is_there(readme, root):
    make, install, run = (shlex.split(part) for part in blocks(readme, "sh")[0].strip().split(" && "))
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install[:-1] == [".venv/bin/pip", "install", "--quiet", "--editable"]
    assert install[-1] == ".[sqlite]"
    assert run[0] == ".venv/bin/python"
    assert (root / run[1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("from_a_checkout", [True, False])
def test_the_deployment_commands_migrate(readme, root, tmp_path, empty_database_url, from_a_checkout):
    page = (root / "docs" / "how-to" / "migrate.md").read_text(encoding="utf-8")
    command, *_ = blocks(page, "sh")
    ini, *_ = blocks(page, "ini")
    assert command in readme
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
