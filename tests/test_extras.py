"""An installation without extras: whatever needs one says, in a sentence, which to install."""

import json
import os
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from support.installed import hiding_all_but

FIRST_NEEDS = {
    "sqlite": [
        "esource.SQLiteEventStore('events.db')",
        "esource.InMemoryEventStore()",
        "esource.open_store('sqlite:///events.db')",
        "esource.SQLiteCheckpointRepository('sqlite:///events.db')",
        "esource.InMemoryOutboxRepository()",
        "asyncio.run(esource.schema.upgrade('sqlite:///events.db'))",
    ],
    "postgresql": [
        "esource.PostgreSQLEventStore('postgresql://host/database')",
        "esource.open_store('postgresql://host/database')",
        "esource.PostgreSQLDLQRepository('postgresql://host/database')",
        "asyncio.run(esource.schema.upgrade('postgresql://host/database'))",
    ],
    "privacy": [
        "esource.privacy.InMemoryKeyStore()",
        "esource.privacy.DatabaseKeyStore('sqlite:///keys.db', master_key=b'k' * 32)",
    ],
    "cloudevents": ["esource.to_cloud_event(None, '/shop')"],
    "faststream": ["esource.FastStreamPublisher(None, 'orders', source='/shop')"],
    "testing": ["esource.testing"],
    "zstd": ["esource.copying.files._zstandard()"],
}
"""By extra: what cannot be done without it."""

BY_ITSELF = {
    "cli": "a command, tested by itself below",
    "tui": "likewise",
    "telemetry": "without it there are no spans and no metrics, and nothing asks for them",
    "psycopg": "the application makes the connection, and has the driver then",
    "all": "the others together",
    **dict.fromkeys(("frameworks", "test", "lint", "docs", "dev"), "for work on esource itself"),
}
"""Extras without such a thing, and why."""

PROGRAM = """
import asyncio, json, sys
import esource
found = {}
for need in json.loads(sys.argv[1]):
    try: eval(need)
    except esource.EventSourceError as error: found[need] = str(error)
    except BaseException as error: found[need] = repr(error)
print(json.dumps(found))
"""


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_extra_is_looked_at():
    assert set(metadata("esource").get_all("Provides-Extra")) == FIRST_NEEDS.keys() | BY_ITSELF.keys()


@pytest.mark.slow
def test_without_extras_everything_that_needs_one_names_it(tmp_path):
    needs = [need for several in FIRST_NEEDS.values() for need in several]
    done = run(f"{hiding_all_but()}\n{PROGRAM}", json.dumps(needs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    said = json.loads(done.stdout)
    for extra, several in FIRST_NEEDS.items():
        for need in several:
            assert said[need].endswith(f" is not installed. Run: pip install 'esource[{extra}]'"), need
            assert "\n" not in said[need]


def test_the_bare_command_names_its_extra(tmp_path):
    done = run(f"{hiding_all_but()}\nfrom esource.cli import main; main()", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stderr == "Error: the esource command needs an extra. Run: pip install 'esource[cli]'\n"


COMMANDS = {
    ("info", "events.db"): ("aiosqlite", "sqlite"),
    ("info", "postgresql://host/database"): ("asyncpg", "postgresql"),
    ("inspect", "events.db"): ("textual", "tui"),
}
"""A command and its URL: the package that it lacks, and the extra that has it."""

EACH_COMMAND = """
from esource.cli import main
for command, url in json.loads(sys.argv[1]):
    sys.argv[1:] = [command, "--url", url]
    try: main()
    except SystemExit as end: assert end.code == 2, end.code
"""


@pytest.mark.slow
def test_a_command_that_needs_another_extra_names_it(tmp_path):
    code = f"import json\n{hiding_all_but('cli')}\n{EACH_COMMAND}"
    done = run(code, json.dumps(list(COMMANDS)), cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        f"Error: {package} is not installed. Run: pip install 'esource[{extra}]'."
        for package, extra in COMMANDS.values()
    ]


@pytest.mark.slow
def test_alembic_without_a_driver_names_the_drivers_extra(tmp_path):
    code = "import sys; from alembic.config import main; main(['-c', sys.argv[1], 'upgrade', 'head'])"
    ini = Path(__file__).parent.parent / "alembic.ini"
    done = run(f"{hiding_all_but()}\n{code}", str(ini), cwd=tmp_path, ESOURCE_URL="sqlite:///events.db")

    assert done.returncode != 0
    assert done.stdout + done.stderr == (
        "FAILED: aiosqlite is not installed. Run: pip install 'esource[sqlite]'\n"
    )
