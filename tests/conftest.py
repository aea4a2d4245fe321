"""The databases that tests run on, and the leak check that every store goes through.

SQLite is a file in the test's own folder. PostgreSQL is a real server (`esource.testing.server`); one that cannot be had is a
failure, never a skip. No other test uses a test's database at the same time, and it starts out empty.

``ESOURCE_TEST_DATABASES`` (comma-separated: sqlite, memory, postgresql) narrows the matrix, as nox does.
``ESOURCE_TEST_EXECUTION=caller`` has SQLite work in the loop's own thread; ``sync`` has every store driven by
`esource.sync`, from threads.
``ESOURCE_TEST_APPEND_LOCK=row`` has the stores on PostgreSQL draw positions from a row, where a test does not say how.
``ESOURCE_TEST_CITUS`` has tests run on the Citus cluster of ``ESOURCE_TEST_CITUS_URL``, else on one in a container.
``ESOURCE_TEST_POOLER`` puts PgBouncer between the stores and the server, ``ESOURCE_TEST_REPLICA`` starts a PostgreSQL
with a replica, ``ESOURCE_TEST_POWERCUT`` takes the disk away under both databases; the tests that need one are left out
without it, and fail if what they need is not installed. nox has a session for each. With ``ESOURCE_TEST_INSTALLED``
the run stops unless esource is the installed package.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL, make_url
from support.clusters import Pair, citus_coordinator, pgbouncer, primary_and_replica
from support.leaks import close_without_leaks
from support.matrix import databases, without_memory
from support.servers import Databases
from support.threads import stand_in

import esource

APPEND_LOCK = os.environ.get("ESOURCE_TEST_APPEND_LOCK", "advisory")
EXECUTION = os.environ.get("ESOURCE_TEST_EXECUTION", "thread")
if EXECUTION == "sync":
    stand_in()

SYNCHRONOUSLY = (
    "tests/adversity/faults/test_clock.py",
    "tests/adversity/faults/test_exhaustion.py",
    "tests/adversity/faults/test_files.py",
    "tests/adversity/faults/test_network.py",
    "tests/adversity/faults/test_server.py",
    "tests/adversity/histories/test_histories.py",
    "tests/adversity/torture/test_torture.py",
    "tests/log/test_append.py",
    "tests/log/test_bad_input.py",
    "tests/log/test_bound_stores.py",
    "tests/log/test_concurrency.py",
    "tests/log/test_duplicates.py",
    "tests/log/test_expected_version.py",
    "tests/log/test_outbox_rows.py",
    "tests/log/test_reading.py",
    "tests/projections/test_by_query.py",
    "tests/projections/test_failures.py",
    "tests/projections/test_health.py",
    "tests/projections/test_limits.py",
    "tests/projections/test_running.py",
    "tests/projections/test_said.py",
    "tests/projections/test_sharing.py::test_a_worker_killed_at_any_moment_leaves_what_a_rebuild_gives",
    "tests/projections/test_supervision.py",
    "tests/projections/test_types.py",
    "tests/projections/test_versions.py",
    "tests/publishing/test_relays_together.py::test_what_a_killed_relay_had_claimed_is_published_by_the_next",
    "tests/repositories",
    "tests/store/test_aggregate_repository.py",
    "tests/store/test_memory_follows_transactions.py",
    "tests/store/test_reading.py",
    "tests/store/test_snapshot",
    "tests/store/test_subscription",
    "tests/store/test_transactions.py",
    "tests/sync",
)
"""The tests that run with ``ESOURCE_TEST_EXECUTION=sync``: the contract of stores, projections, and what may happen to a
store."""

from esource import EventStore, open_store, schema  # noqa: E402 - what stands there now
from esource.testing import server  # noqa: E402

StoreFactory = Callable[..., Awaitable[EventStore]]

DEPLOYMENTS = {
    "citus": "ESOURCE_TEST_CITUS",
    "pooler": "ESOURCE_TEST_POOLER",
    "replicated": "ESOURCE_TEST_REPLICA",
    "two_servers": "ESOURCE_TEST_REPLICA",
    "strace": "ESOURCE_TEST_POWERCUT",
    "small_disk": "ESOURCE_TEST_POWERCUT",
}
"""Fixtures that need more than a PostgreSQL server, and what asks for them."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core: half of the time a test waits for a server or for other processes."""
    return 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("ESOURCE_TEST_INSTALLED") and "site-packages" not in esource.__file__:
        raise pytest.UsageError(f"the tests are to run on the installed esource, not on {esource.__file__}")
    _keep_bytecode(config)


def _keep_bytecode(config: pytest.Config) -> None:
    """Where Python keeps no bytecode, let it keep some for the time of this run, outside of every checkout.

    The tests start hundreds of processes. Compiling the same modules anew takes each of them more than a second: more
    than half of what it costs.
    """
    if sys.dont_write_bytecode:
        folder = tempfile.mkdtemp(prefix="esource-bytecode-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder


def pytest_report_header() -> list[str]:
    """What the machine lacks, and which tests are left out for it."""
    return (
        [] if shutil.which("nats-server") else ["no nats-server: the relay is not tested against a real one"]
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of one database where that database is not in the matrix, and those that need more
    than a server where nobody asked for them."""
    left_out = {name for name, variable in DEPLOYMENTS.items() if not os.environ.get(variable)}
    if "postgresql" not in databases():
        left_out |= {"postgres_url", "empty_postgres_url"}
    wanted: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        is_out = left_out & set(getattr(item, "fixturenames", ())) or (
            EXECUTION == "sync" and not runs_synchronously(item)
        )
        (others if is_out else wanted).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = wanted


def runs_synchronously(item: pytest.Item) -> bool:
    """Whether a test is of the contract of stores, and needs no task of its own."""
    return item.nodeid.startswith(SYNCHRONOUSLY) and item.get_closest_marker("awaited") is None


# -- the PostgreSQL server --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A server on which the tests may create databases."""
    with server.postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def pooler(postgres_server: URL) -> Iterator[URL]:
    """PgBouncer in transaction mode before the server, with few connections for each database."""
    with pgbouncer(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def citus() -> Iterator[URL]:
    """The coordinator of a Citus cluster, on which databases may be created."""
    with citus_coordinator() as url:
        yield url


@pytest.fixture(scope="session")
def replicated() -> Iterator[Pair]:
    """A PostgreSQL 15 server and its streaming replica."""
    with primary_and_replica() as pair:
        yield pair


@pytest.fixture
def two_servers() -> Iterator[Pair]:
    """The same for one test, which may let the primary fail."""
    with primary_and_replica() as pair:
        yield pair


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: URL) -> Iterator[Databases]:
    databases = Databases(postgres_server)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The URL of a PostgreSQL database with our tables, all of them empty."""
    with postgres_databases.with_tables() as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_databases: Databases) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database without any tables."""
    with postgres_databases.without_tables() as url:
        yield url


# -- stores ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file: copying it takes a hundredth of the time of migrating another."""
    path = tmp_path_factory.mktemp("template") / "events.db"
    server.apart(lambda: schema.upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with our tables, all of them empty."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'events.db')}"


@pytest.fixture(params=databases())
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each kind in turn: a SQLite file, SQLite in memory, PostgreSQL."""
    return "sqlite://" if request.param == "memory" else _url_of(request)


@pytest.fixture(params=without_memory())
def shared_database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database that several stores can open."""
    return _url_of(request)


def _url_of(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgres_url" if request.param == "postgresql" else "sqlite_url")


@pytest.fixture(params=without_memory())
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database without any tables."""
    if request.param == "postgresql":
        return request.getfixturevalue("empty_postgres_url")
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
def through_pooler(request: pytest.FixtureRequest) -> Callable[[str], tuple[str, dict[str, Any]]]:
    """The URL and the options with which a store reaches a database: behind PgBouncer if that was asked for."""
    if not os.environ.get(DEPLOYMENTS["pooler"]):
        return lambda url: (url, {})
    pooler: URL = request.getfixturevalue("pooler")

    def route(url: str) -> tuple[str, dict[str, Any]]:
        if url.startswith("sqlite"):
            return url, {}
        behind = pooler.set(database=make_url(url).database).render_as_string(hide_password=False)
        return behind, {"transaction_pooling": True}

    return route


@pytest.fixture
async def open_stores(through_pooler: Any) -> AsyncIterator[StoreFactory]:
    """Opens stores on URLs; afterwards closes them and checks that every connection came back clean."""
    opened: list[EventStore] = []

    async def make(url: str, **options: Any) -> EventStore:
        chosen = {"enable_tracing": False, **options}
        if url.startswith("sqlite"):
            chosen.setdefault("synchronous", "NORMAL")  # nobody switches the machine off in a test
            chosen.setdefault("execution", EXECUTION)
        else:
            chosen.setdefault("append_lock", APPEND_LOCK)
        url, needed = through_pooler(url)
        store = open_store(url, **needed, **chosen)
        await store.initialize()
        opened.append(store)
        return store

    yield make
    for store in opened:
        await close_without_leaks(store)


@pytest.fixture
async def store(database_url: str, open_stores: StoreFactory) -> EventStore:
    """An open store on a fresh database, on each kind in turn."""
    return await open_stores(database_url)


@pytest.fixture
async def shared_store(shared_database_url: str, open_stores: StoreFactory) -> EventStore:
    """An open store on a fresh database that other stores can open as well."""
    return await open_stores(shared_database_url)
