"""What importing esource loads, in an interpreter of its own; how long it takes, `bench/imports.py` measures."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.synchronous import written

import esource

EXTRAS = {
    *("aiosqlite", "asyncpg", "opentelemetry", "cloudevents", "faststream", "rich", "typer", "textual"),
    *("zstandard", "cachetools", "cryptography", "pytest"),
}
"""What only extras install."""


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a fresh interpreter."""
    code = (
        f"import json, sys\nbefore = set(sys.modules)\n{statement}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_the_package_alone_loads_nothing_but_itself():
    loaded = loaded_by("import esource")

    assert {module for module in loaded if module.startswith("esource")} == {"esource"}
    assert packages(loaded) - set(sys.stdlib_module_names) == {"esource"}
    assert packages(loaded) & {"asyncio", "sqlite3", "ssl", "socket", "email", "logging", "http"} == set()


def test_alembic_in_another_program_loads_little_of_esource():
    """Its plugins are loaded by whoever imports it."""
    loaded = loaded_by("import alembic.autogenerate, alembic.script")

    assert {module for module in loaded if module.startswith("esource")} <= {
        *("esource", "esource.schema", "esource.schema.protection")
    }
    assert "pydantic" not in loaded


def test_what_an_extra_installs_is_loaded_when_it_is_used_not_before():
    loaded = loaded_by("from esource import *\nimport esource.copying, esource.privacy, esource.schema")

    assert "esource.store" in loaded
    assert packages(loaded) & (EXTRAS | {"alembic", "tenacity"}) == set()


def test_every_public_name_has_the_home_that_type_checkers_are_told():
    tree = ast.parse(Path(esource.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert {name: f"esource.{home}" for name, home in esource._HOME_OF.items()} == told
    assert set(told) | {"SQLITE_AVAILABLE", "POSTGRESQL_AVAILABLE"} == set(esource.__all__)


def test_a_name_is_the_same_object_as_in_its_module():
    from esource.store import EventStore

    assert esource.EventStore is EventStore


def test_names_and_modules_are_reached_without_an_import_of_their_own():
    loaded = loaded_by(
        "import esource\n"
        "assert set(esource.__all__) <= set(dir(esource))\n"
        "assert issubclass(esource.OptimisticLockError, esource.errors.EventSourceError)"
    )

    assert "esource.errors" in loaded


def test_a_name_that_is_nowhere_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'esource' has no attribute 'open_stores'"):
        _ = esource.open_stores
    with pytest.raises(ImportError, match="cannot import name 'EventStores' from 'esource'"):
        from esource import EventStores  # noqa: F401


def test_what_is_generated_is_what_the_asynchronous_side_has():
    for path, text in written().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name}: run python tests/support/synchronous.py"
        )
