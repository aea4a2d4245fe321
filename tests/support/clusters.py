"""Servers that only some tests need: PgBouncer, and a PostgreSQL with a replica. Both run as another user than root,
reached through sockets in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.engine import URL, make_url

SERVER_CONNECTIONS = 8
"""What PgBouncer opens for a database at most: fewer than two stores' connections, more than open transactions."""
CITUS_IMAGE = "citusdata/citus:13.0"
POSTGRESQL_15 = Path("/usr/lib/postgresql/15/bin")


class Pair(NamedTuple):
    primary: str
    replica: str
    fail_over: Callable[[], None]
    """Stops the primary at once, and promotes the replica; blocks until that takes writes."""


@contextmanager
def _folder(name: str, owner: str = "nobody") -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix=f"esource-{name}-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, owner)
        yield folder


@contextmanager
def pgbouncer(server: URL) -> Iterator[URL]:
    """PgBouncer in transaction mode before a server, for every database on it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "PgBouncer is not installed: apt-get install pgbouncer"
    host, port = str(server.host or server.query["host"]), server.port or server.query.get("port", 5432)
    # The folder of an embedded server's socket is closed to all but the server's own user.
    owner = Path(host).owner() if host.startswith("/") else "nobody"
    with _folder("pgbouncer", owner) as folder:
        password = f" password={server.password}" if server.password else ""
        Path(folder, "users").write_text(f'"{server.username}" ""\n')
        settings = Path(folder, "pgbouncer.ini")
        settings.write_text(
            f"[databases]\n* = host={host} port={port} user={server.username}{password}\n"
            f"[pgbouncer]\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nquery_wait_timeout = 20\nmax_client_conn = 200\n"
            f"auth_type = any\nauth_file = {folder}/users\n"
            f"listen_addr =\nunix_socket_dir = {folder}\nlisten_port = 6432\nlogfile = {folder}/log\n"
        )
        user = ["-u", owner] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, "-q", *user, str(settings)], stderr=subprocess.DEVNULL)
        try:
            _await(lambda: Path(folder, ".s.PGSQL.6432").exists(), process)
            yield make_url(f"postgresql://{server.username}@/postgres?host={folder}&port=6432")
        finally:
            process.terminate()
            process.wait()


@contextmanager
def citus_coordinator() -> Iterator[URL]:
    """The cluster that ``ESOURCE_TEST_CITUS_URL`` names (a superuser on its coordinator), else one of one node in a container."""
    given = os.environ.get("ESOURCE_TEST_CITUS_URL")
    if given:
        yield make_url(given)
        return
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(CITUS_IMAGE) as container:
        yield make_url(container.get_connection_url(driver=None))


def _await(ready, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while not ready():
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < until, "it did not start within 20 seconds"
        time.sleep(0.01)


@contextmanager
def primary_and_replica() -> Iterator[Pair]:
    """A PostgreSQL 15 server, and a replica of it that `pg_basebackup` made and that streams from it."""
    assert (POSTGRESQL_15 / "pg_basebackup").exists(), (
        "PostgreSQL 15 is not installed: apt-get install postgresql-15"
    )
    with _folder("replica") as folder:
        as_user = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [*as_user, str(POSTGRESQL_15 / program), *arguments],
                cwd=folder,
                check=True,
                stdout=subprocess.DEVNULL,
            )

        def start(name: str, port: int) -> None:
            settings = (
                f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c port={port} -c fsync=off "
                "-c shared_buffers=32MB -c max_connections=60"
            )
            call(
                "pg_ctl",
                "-D",
                f"{folder}/{name}",
                "-w",
                "-o",
                settings,
                "-l",
                f"{folder}/{name}.log",
                "start",
            )

        def stop(name: str) -> None:
            if Path(folder, name, "postmaster.pid").exists():
                call("pg_ctl", "-D", f"{folder}/{name}", "-w", "-m", "immediate", "stop")

        def fail_over() -> None:
            stop("primary")
            call("pg_ctl", "-D", f"{folder}/replica", "-w", "promote")

        call("initdb", "-D", f"{folder}/primary", "-U", "esource", "-A", "trust")
        start("primary", 5401)
        try:
            connection = ("-h", folder, "-p", "5401", "-U", "esource")
            call("pg_basebackup", "-D", f"{folder}/replica", "-R", "-X", "stream", "-c", "fast", *connection)
            start("replica", 5402)
            try:
                yield Pair(
                    *(f"postgresql://esource@/postgres?host={folder}&port={port}" for port in (5401, 5402)),
                    fail_over,
                )
            finally:
                stop("replica")
        finally:
            stop("primary")
