"""UmaDB: the server of its wheel in a process of its own, and its client; every append is synced to the disk."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from umadb import AppendCondition, Client, Event, IntegrityError, Query, QueryItem, TransportError

from bench.contenders.base import CONTENT, FOLDER, BlockingContender, Items, Target

TYPE = "LineAdded"


class UmaDB(BlockingContender):
    conflicts = (IntegrityError,)

    async def open(self, target: Target) -> None:
        """A server for the turn, on files beside those of the others."""
        name = "".join(letter if letter.isalnum() else "-" for letter in target.address)
        folder = Path(os.environ[FOLDER]) / f"uma-{name[-60:]}"
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        program = Path(sys.executable).with_name("umadb")
        self.server = subprocess.Popen(
            [str(program), "--listen", address, "--db-path", str(folder / "uma.db")],
            stdout=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - no other thread is there yet
        )
        self.client = _connected(f"http://{address}")

    async def close(self) -> None:
        self.client.close()
        self.server.terminate()
        self.server.wait()

    async def durability(self) -> dict[str, str]:
        return {"fdatasync": "each commit"}

    def versions(self) -> dict[str, str]:
        return {"umadb": version("umadb")}

    def event(self, stream: Any, version: int) -> Any:
        return {**CONTENT, "reference": str(CONTENT["reference"])}

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        made = Event(TYPE, json.dumps(event).encode(), list(tags))
        # It counts from 1, and takes None for the start.
        return self.client.append([made], AppendCondition(_query(items), after or None))

    async def read_decision(self, items: Items) -> int:
        found, head = self.client.read(_query(items)).collect_with_head()
        assert head is not None
        return sum([json.loads(each.event.data)["quantity"] > 0 for each in found])


def _query(items: Items) -> Query:
    return Query([QueryItem([TYPE], list(tags)) for tags in items])


def _connected(url: str) -> Client:
    """A client, as soon as the server listens."""
    for _ in range(200):
        try:
            client = Client(url)
            client.head()
            return client
        except TransportError:
            time.sleep(0.05)
    raise TimeoutError("the server of UmaDB did not start")


def _end_with_parent() -> None:
    """A worker that is killed takes its server with it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
