"""Web servers of the examples, as processes of their own, and requests to them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from typing_extensions import Self

from support.documents import ROOT

FOLDER = ROOT / "examples" / "web"


class Answer(NamedTuple):
    status: int
    body: Any


class Client:
    """One connection to a server, for one thread."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        self._connection.request(method, path, None if body is None else json.dumps(body), sent)
        found = self._connection.getresponse()
        text = found.read()
        is_json = "json" in found.headers.get("Content-Type", "")
        return Answer(found.status, json.loads(text) if is_json else text.decode())


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def environment(database_url: str, **more: str) -> dict[str, str]:
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "ESOURCE_URL": database_url,
        "PYTHONPATH": path,
        **more,
    }


PROJECTIONS = ["-m", "esource", "projections", "run", "--restart", "orders:OrderList"]
FLASK_TABLES = ["-m", "flask", "--app", "flask_app", "init-db"]
DJANGO_TABLES = ["-m", "django", "migrate", "--run-syncdb", "--settings", "django_site.settings"]


def once(command: list[str], database_url: str) -> None:
    """A command of Python that has to succeed before the next is begun."""
    subprocess.run([sys.executable, *command], cwd=FOLDER, env=environment(database_url), check=True)


@contextmanager
def working(command: list[str], database_url: str) -> Iterator[None]:
    """A worker process of Python, until the block ends: it has to end well after SIGTERM."""
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=FOLDER,
            env=environment(database_url),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)
        assert process.returncode == 0, _read(said)


@contextmanager
def serving(
    command: list[str], port: int, database_url: str, health: str = "/health", **more: str
) -> Iterator[str]:
    """A server until the block ends: it has to answer at first, and to end well after SIGTERM."""
    with TemporaryFile("w+") as said:  # a pipe that nobody reads would stop it when it is full
        yield from _serving(command, port, said, environment(database_url, **more), health)


def _serving(
    command: list[str], port: int, said: IO[str], variables: dict[str, str], health: str
) -> Iterator[str]:
    process = subprocess.Popen(
        command,
        cwd=FOLDER,
        env=variables,
        stdout=said,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None, _read(said)
            try:
                with Client(url) as client:
                    if client.ask("GET", health).status == 200:
                        break
            except OSError:
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        yield url
        process.terminate()
        process.wait(60)
        assert process.returncode in (0, -signal.SIGTERM), _read(said)
        assert "Traceback" not in _read(said), _read(said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(said: IO[str]) -> str:
    said.seek(0)
    return said.read()
