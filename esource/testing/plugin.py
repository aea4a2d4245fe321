"""The fixtures of the pytest plugin. Nothing is started, created or imported before a test asks for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy.engine import URL

from esource import EventStore, PostgreSQLEventStore, SQLiteEventStore, schema
from esource.testing import server


@pytest.fixture(scope="session")
def esource_sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with our tables, to be copied."""
    path = tmp_path_factory.mktemp("esource") / "template.db"
    server.apart(lambda: schema.upgrade(f"sqlite:///{path}"))
    return path


@pytest_asyncio.fixture
async def event_store(esource_sqlite_template: Path, tmp_path: Path) -> AsyncIterator[EventStore]:
    """An open store on a fresh SQLite file in the test's own folder."""
    path = tmp_path / "events.db"
    shutil.copy(esource_sqlite_template, path)
    async with SQLiteEventStore(path) as store:
        yield store


@pytest.fixture(scope="session")
def esource_postgres_server() -> Iterator[URL]:
    """A PostgreSQL server for the session; see `esource.testing.server`."""
    with server.postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def esource_postgres_template(esource_postgres_server: URL) -> str:
    """A database with our tables, to be copied. Each worker of pytest-xdist has one of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return server.make_template(esource_postgres_server, f"esource_plugin_template_{worker}")


@pytest.fixture
def esource_postgres_url(esource_postgres_server: URL, esource_postgres_template: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database with our tables."""
    with server.new_database(esource_postgres_server, esource_postgres_template) as url:
        yield url


@pytest_asyncio.fixture
async def postgres_event_store(esource_postgres_url: str) -> AsyncIterator[EventStore]:
    """An open store on a fresh PostgreSQL database."""
    async with PostgreSQLEventStore(esource_postgres_url) as store:
        yield store
