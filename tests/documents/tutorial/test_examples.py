"""Every example runs, and prints what the tutorial says."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from support.orders import placed

from esource import SQLiteEventStore

# The listing under "Expected output" of the tutorial.
EXPECTED_OUTPUT = """\
======================================================================
In-Memory SQLite Demo
======================================================================

1. Created order: [UUID]
   Version: 1
   Customer: customer-123
   Total: $99.99

2. Shipped order
   Version: 2
   Status: shipped
   Tracking: TRACK-ABC123

3. Verified order version: 2

4. Database cleaned up automatically (in-memory)

======================================================================
File-Based SQLite Demo
======================================================================

1. Created order: [UUID]
   Saved to: ./tutorial_orders.db
   File exists: True

2. Reopening database (simulating restart)...
   Loaded order: customer-456
   Total: $149.99
   Version: 1

3. Cleaning up database files...
   Removed: ./tutorial_orders.db
   Removed: ./tutorial_orders.db-wal
   Removed: ./tutorial_orders.db-shm

======================================================================
Configuration Options Demo
======================================================================

1. Default configuration:
   Database: :memory:
   WAL mode: False
   Busy timeout: 5000ms
   Connected: True

2. Custom configuration:
   WAL mode: False
   Busy timeout: 10000ms

3. Strict UUID detection:
   Using explicit UUID fields only

======================================================================
Tutorial Complete!
======================================================================

Key Takeaways:
- Use :memory: for tests (fast, isolated)
- Use file-based for development (persistent)
- WAL mode improves concurrency (file-based only)
- Schema created with initialize() (idempotent)
- Migrate to PostgreSQL when scaling up
"""

# The tutorial's error: SQLite itself removes both when the last connection closes cleanly.
REMOVED_BY_SQLITE = {"   Removed: ./tutorial_orders.db-wal", "   Removed: ./tutorial_orders.db-shm"}


def test_the_complete_example_prints_what_the_tutorial_says(run_example, tmp_path):
    expected = [line for line in EXPECTED_OUTPUT.splitlines() if line not in REMOVED_BY_SQLITE]
    assert len(expected) == len(EXPECTED_OUTPUT.splitlines()) - 2

    assert run_example("tutorial_12_sqlite.py").splitlines() == expected
    assert list(tmp_path.iterdir()) == []


def test_verify_installation(run_example):
    assert run_example("verify_installation.py") == "SQLite backend is ready!\n"


def test_in_memory(run_example, tmp_path):
    assert run_example("in_memory.py").splitlines() == [
        "Order created: [UUID]",
        "Version: 1",
        "Loaded: customer-123 - $99.99",
        "Database automatically cleaned up",
    ]
    assert list(tmp_path.iterdir()) == []


def test_file_based(run_example, tmp_path):
    assert run_example("file_based.py").splitlines() == [
        "Created order: [UUID]",
        "Database saved to: ./my_events.db",
        "File exists: True",
        "Loaded from disk: $149.99",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["my_events.db"]


def test_schema(run_example):
    lines = [line.strip() for line in run_example("schema.py").splitlines()]
    tables = lines[lines.index("table:") + 1 : lines.index("index:")]
    assert tables == [
        "dead_letter_queue",
        "esource_alembic_version",
        "event_outbox",
        "event_tags",
        "events",
        "projection_checkpoints",
        "snapshots",
        "tag_fillings",
    ]
    assert "idx_events_type_tenant_timestamp" in lines


def test_the_printed_sql_runs_as_it_stands(examples):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((examples / "events_table.sql").read_text())
        indexes = {row[1] for row in connection.execute("PRAGMA index_list(events)")}
    assert {name for name in indexes if name.startswith("idx_")} == {
        "idx_events_aggregate_id",
        "idx_events_aggregate_type",
        "idx_events_event_type",
        "idx_events_timestamp",
        "idx_events_tenant_id",
        "idx_events_type_tenant_timestamp",
        "idx_events_aggregate_version",
    }


@pytest.mark.slow
def test_configuration(run_example, tmp_path):
    assert run_example("configuration.py").splitlines() == [
        "Database: ./configuration.db",
        "WAL mode: True",
        "Busy timeout: 5000ms",
        "Connected: False",
    ]
    assert list(tmp_path.iterdir()) == []


def test_wal_mode(run_example):
    assert run_example("wal_mode.py").splitlines() == [
        "File database: True",
        "While open: ['wal_mode.db', 'wal_mode.db-shm', 'wal_mode.db-wal']",
        "Closed: ['wal_mode.db']",
        "In memory: False",
        "In memory, asked for: False",
    ]


@pytest.mark.slow
def test_busy_timeout(run_example):
    assert run_example("busy_timeout.py").splitlines() == [
        "Patient: 10000ms",
        "Hasty: gave up after 100ms",
    ]


def test_uuid_fields(run_example):
    assert [line.split(": ")[-1] for line in run_example("uuid_fields.py").splitlines()] == [
        *("Default", "UUID", "str", "UUID"),
        *("With uuid_fields", "UUID", "UUID", "UUID"),
        *("With string_id_fields", "UUID", "str", "str"),
        *("Strict", "str", "str", "str"),
    ]


def test_repositories(run_example):
    assert run_example("repositories.py") == "Order status: placed\n"


def test_checkpoint(run_example):
    assert run_example("checkpoint.py").splitlines() == [
        "Resume from position: 1001",
        "OrderProjection: position 1000",
    ]


@pytest.mark.slow
def test_pytest_fixtures(examples, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "--override-ini"),
            *("asyncio_default_fixture_loop_scope=function", "--rootdir", str(tmp_path)),
            *("--config-file", os.devnull, "--quiet", str(examples / "pytest_fixtures")),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_cleanup(run_example, tmp_path):
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"cleanup.db{suffix}").touch()
    assert run_example("cleanup.py").splitlines() == [
        "Removed: ./cleanup.db",
        "Removed: ./cleanup.db-wal",
        "Removed: ./cleanup.db-shm",
    ]
    assert run_example("cleanup.py") == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_patterns_in_development(run_example, tmp_path):
    assert run_example("patterns.py", APP_ENV="development").splitlines() == [
        "SQLiteEventStore: connected True",
        "Events in the temporary database: 0",
    ]
    assert (tmp_path / "data" / "patterns.db").is_file()


@pytest.mark.slow
def test_patterns_in_a_test(run_example, tmp_path):
    assert "SQLiteEventStore: connected True" in run_example("patterns.py", APP_ENV="test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_patterns_in_production(run_example, engine_url):
    # Nobody disposes of the application's engine in the tutorial's pattern.
    output = run_example(
        "patterns.py", APP_ENV="production", DATABASE_URL=engine_url, ignoring="ResourceWarning"
    )
    assert "PostgreSQLEventStore: connected True" in output


ORDER_ON_EITHER_DATABASE = """\
1. Created order: [UUID]
   Version: 1
   Customer: customer-123
   Total: $99.99
2. Shipped order
   Version: 2
   Status: shipped
   Tracking: TRACK-ABC123
3. Verified order version: 2
"""


def test_the_order_on_postgresql(run_example, empty_postgres_url):
    assert run_example("on_postgresql.py", DATABASE_URL=empty_postgres_url) == ORDER_ON_EITHER_DATABASE


@pytest.mark.slow
def test_one_line_takes_the_order_back_to_sqlite(examples, run_code):
    code = (examples / "on_postgresql.py").read_text()
    postgresql = 'return PostgreSQLEventStore(os.environ["DATABASE_URL"])'
    sqlite = 'return SQLiteEventStore("./orders.db")'
    assert code.count(postgresql) == 1
    assert code.count(f"# On SQLite this line is: {sqlite}") == 1

    assert run_code(code.replace(postgresql, sqlite)) == ORDER_ON_EITHER_DATABASE


async def test_the_migration_script(run_example, run_code, tmp_path, engine_url):
    async with SQLiteEventStore(tmp_path / "to_migrate.db", enable_tracing=False) as store:
        await store.initialize()
        for _ in range(3):
            event = placed()
            await store.append_events(event.aggregate_id, "Order", [event])

    assert run_example("migrate_to_postgresql.py", DATABASE_URL=engine_url).splitlines() == [
        "Starting migration from ./to_migrate.db to PostgreSQL...",
        "Migration complete: 3 events transferred",
    ]


def test_every_example_is_tested(examples):
    source = Path(__file__).read_text()
    files = {file.name for file in examples.iterdir() if file.suffix in (".py", ".sql")}
    # The modules that the others share, and the documentation.
    untested = {name for name in files - {"shop.py", "accounts.py"} if f'"{name}"' not in source}
    assert not untested


def test_the_index_lists_every_example(examples):
    index = (examples / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([\w/.]+?)/?\)", index))
    for file in examples.iterdir():
        if file.name not in ("README.md", "__pycache__"):
            assert file.name in listed, file.name
    for program in re.findall(r"^\.venv/bin/python examples/(\S+)", index, flags=re.MULTILINE):
        assert (examples / program).is_file()


def test_no_two_examples_use_one_file(examples):
    users: dict[str, set[str]] = {}
    for file in examples.rglob("*.py"):
        for name in re.findall(r'"[./]*(?:data/)?(\w+\.db)"', file.read_text(encoding="utf-8")):
            users.setdefault(name, set()).add(file.name)
    assert [name for name, files in users.items() if len(files) > 1] == []
    # Nobody opens these two.
    index = (examples / "README.md").read_text(encoding="utf-8")
    assert [
        name for name in users if name not in ("orders.db", "configuration.db") and f"{name}`" not in index
    ] == []


SHOP = """\
1. Trading
  eve gets nothing: only 0 of espresso machine left
  14 events stored
2. The read model, in SQL
  espresso machine: 3 sold for $1947.00
  grinder: 3 sold for $297.00
3. Mails, one of which fails
  sent: PX-1, PX-2, PX-4
  dead letter: OrderShipped, ConnectionError: the mail server refuses the mail about PX-3
  retried: 1 resolved, sent: PX-3
4. The outbox
"""


@pytest.mark.slow
def test_the_shop_does_the_same_on_either_database(examples, empty_database_url):
    done = subprocess.run(
        [sys.executable, str(examples / "shop" / "main.py"), "--url", empty_database_url],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, published = done.stdout.split("4. The outbox\n")
    assert told + "4. The outbox\n" == SHOP
    *lines, last = published.splitlines()
    assert last == "  14 published, 0 waiting"
    assert len(lines) == 14
    assert [line for line in lines if "of Order" in line] == [
        "  published OrderPlaced of Order", "  published OrderShipped of Order",
    ] * 4  # fmt: skip


@pytest.mark.slow
def test_a_shop_that_was_closed_goes_on_where_it_stopped(examples, tmp_path):
    command = [
        sys.executable,
        str(examples / "shop" / "main.py"),
        "--url",
        f"sqlite:///{tmp_path / 'shop.db'}",
    ]
    for sold in (3, 6):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert f"espresso machine: {sold} sold for" in done.stdout
        assert "14 published, 0 waiting" in done.stdout
