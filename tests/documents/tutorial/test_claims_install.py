"""The tutorial's claims about installing and importing (1-7)."""

import ast
import sys
from importlib.metadata import distribution

import pytest
from support.installed import hiding_all_but, needed

import esource

SQLITE_EXAMPLES = [
    *("verify_installation.py", "in_memory.py", "file_based.py", "schema.py", "configuration.py"),
    *("wal_mode.py", "busy_timeout.py", "uuid_fields.py", "repositories.py", "checkpoint.py", "cleanup.py"),
    *("patterns.py", "tutorial_12_sqlite.py"),
]


def test_python_3_10_is_enough(root):
    assert distribution("esource").metadata["Requires-Python"] == ">=3.10"
    for file in [*root.glob("esource/**/*.py"), *root.glob("migrations/**/*.py")]:
        ast.parse(file.read_text(), str(file), feature_version=(3, 10))


@pytest.mark.slow  # the examples run elsewhere, too, with everything installed
def test_the_sqlite_extra_alone_runs_every_sqlite_example(run_code, examples):
    run_code(
        f"{hiding_all_but('sqlite')}; sys.modules['asyncpg'] = None\n"
        "import esource, os, pathlib, runpy\n"
        f"for example in {SQLITE_EXAMPLES!r}:\n"
        "    folder = pathlib.Path(example + ' runs').absolute()\n"
        "    folder.mkdir()\n"
        "    before = os.getcwd()\n"
        "    os.chdir(folder)\n"
        f"    runpy.run_path({str(examples)!r} + '/' + example, run_name='__main__')\n"
        "    os.chdir(before)\n"
        "    sys.modules.pop('shop', None)\n"
        "    esource.default_registry.clear()\n"
    )


@pytest.mark.slow  # likewise
def test_the_postgresql_extra_alone_runs_the_order_on_postgresql(run_code, examples, empty_postgres_url):
    output = run_code(
        f"{hiding_all_but('postgresql')}; sys.modules['aiosqlite'] = None\n"
        f"import runpy; runpy.run_path({str(examples / 'on_postgresql.py')!r}, run_name='__main__')",
        DATABASE_URL=empty_postgres_url,
    )
    assert "Verified order version: 2" in output


def test_the_sqlite_extra_installs_aiosqlite():
    assert "aiosqlite" in needed("esource", frozenset({"sqlite"}))
    assert "aiosqlite" not in needed("esource", frozenset())


def test_sqlite_available_tells_whether_the_driver_is_there(run_code):
    assert esource.SQLITE_AVAILABLE
    hidden = "import sys; sys.modules['aiosqlite'] = None\nimport esource; print(esource.SQLITE_AVAILABLE)"
    assert run_code(hidden) == "False\n"


def test_without_the_driver_the_error_names_the_extra(run_code):
    output = run_code(
        "import sys; sys.modules['aiosqlite'] = None\n"
        "import esource\n"
        "try: esource.SQLiteEventStore(':memory:')\n"
        "except ImportError as error: print(error)"
    )
    assert "pip install 'esource[sqlite]'" in output


def test_the_names_that_the_tutorial_imports():
    for name in (
        *("SQLiteEventStore", "AggregateRepository", "DomainEvent", "register_event", "AggregateRoot"),
        *("EventRegistry", "InMemoryCheckpointRepository", "PostgreSQLEventStore", "ExpectedVersion"),
        "SQLITE_AVAILABLE",
    ):
        assert name in esource.__all__
        assert hasattr(esource, name)


def test_the_checkpoint_repository_has_the_tutorials_import_path():
    from esource.repositories.checkpoint import SQLiteCheckpointRepository

    assert SQLiteCheckpointRepository is esource.SQLiteCheckpointRepository


def test_sqlite_needs_no_server_no_network_and_no_other_program(run_code, examples):
    output = run_code(
        "import sys, runpy\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn'):\n"
        "        raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        f"runpy.run_path({str(examples / 'tutorial_12_sqlite.py')!r}, run_name='__main__')"
    )
    assert "Tutorial Complete!" in output


def test_sqlite_itself_ships_with_python():
    assert "sqlite3" in sys.stdlib_module_names
