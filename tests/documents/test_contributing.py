"""What CONTRIBUTING.md names exists, and its commands are those that the project's own checks run."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import blocks

import esource
from esource.dialect.backend import Backend
from esource.dialect.inspection import Inspection
from esource.dialect.moving import Moving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def document():
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_set_up_is_one_command_with_an_extra_that_exists(document):
    make, install = (shlex.split(part) for part in blocks(document, "sh")[0].strip().split(" && "))

    assert make == ["python3", "-m", "venv", ".venv"]
    assert install[:-1] == [".venv/bin/pip", "install", "--quiet", "--editable"]
    assert install[-1] == ".[dev]"


def test_the_checks_are_those_of_the_sessions(document):
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    tests, *checks = blocks(document, "sh")[1].splitlines()

    assert tests in script
    for check in checks:
        words = check.removeprefix(".venv/bin/").split()
        arguments = ", ".join(f'"{word}"' for word in words)
        assert f"session.run({arguments}" in sessions
        assert check in script


def test_the_checks_know_every_supported_python():
    [pythons] = re.findall(
        r"^PYTHONS = (.*)$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"supported=({' '.join(ast.literal_eval(pythons))})" in script


def test_every_path_session_and_link_exists(document):
    made = ("migrations/versions/NNNN_what_it_is_for.py", "esource/migrations")
    for path in re.findall(r"`((?:\.ci|bench|docs|esource|examples|migrations|tests)/[\w/.]*)`", document):
        assert (ROOT / path).exists() or path in made, path
    for command in blocks(document, "sh"):
        assert all((ROOT / path).exists() for path in re.findall(r"tests/[\w/.]+", command))
    sessions = re.findall(r"nox -s (\w+)", document)
    assert len(sessions) > 5
    for session in sessions:
        assert f"def {session}(" in (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert all((ROOT / link).exists() for link in re.findall(r"\]\(([^)#:]+)\)", document))


def test_what_a_backend_is_made_of_is_still_abstract():
    for part in (Backend, Moving, Inspection):
        assert part.__abstractmethods__


@pytest.mark.slow
def test_the_conformance_suite_is_used_as_shown(document, tmp_path):
    [code] = blocks(document, "python")
    (tmp_path / "test_backend.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "repeated", "test_backend.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_of_a_release_stands_in_both_places():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.*)"$', project, flags=re.MULTILINE)[1] == esource.__version__
