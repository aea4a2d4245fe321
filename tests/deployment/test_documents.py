"""What the documents on deployment name exists: links, imports, options, sessions of nox."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from esource import EventStore, PostgreSQLEventStore, SQLiteEventStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["deployment.md", "growth.md", "moving.md", "privacy.md"])
def page(request):
    return ROOT / "docs" / request.param


@pytest.fixture
def document(page):
    return page.read_text(encoding="utf-8")


def heading(line):
    return re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")


def test_every_link_inside_the_project_leads_somewhere(page, document):
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document)
    assert links
    for path, anchor in links:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            lines = target.read_text().splitlines()
            assert anchor in {heading(line) for line in lines if line.startswith("#")}, anchor


def test_every_python_block_compiles_and_imports_and_passes_what_exists(document):
    blocks = re.findall(r"^```python\n(.*?)^```$", document, flags=re.MULTILINE | re.DOTALL)
    assert blocks or "```console" in document
    options = {
        name
        for door in (PostgreSQLEventStore, SQLiteEventStore)
        for name in inspect.signature(door).parameters
    }
    for block in blocks:
        for node in ast.walk(
            compile(block, document[:40], "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    exec(f"from {node.module} import {alias.name}")  # a name in it, or a module
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "open_store",
                "PostgreSQLEventStore",
            ):
                assert {keyword.arg for keyword in node.keywords} <= options


def test_every_session_and_test_file_that_is_named_exists(document):
    noxfile = (ROOT / "noxfile.py").read_text()
    for session in re.findall(r"nox -s (\w+)", document):
        assert f"def {session}(" in noxfile
    for path in re.findall(r"`(tests/[\w/.]+)`", document):
        assert (ROOT / path).exists()


def test_every_method_of_the_store_that_is_named_exists(document):
    for name in re.findall(r"store\.(\w+)\(", document):
        assert hasattr(EventStore, name)
