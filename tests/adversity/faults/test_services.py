"""A service under load, each of whose followers raises, hangs, is cancelled, dies and loses its database in turn.

Every fault is in the log and in the health file, everything catches up by itself, and nothing is handled twice or passed
over. ``ESOURCE_TEST_EFFORT`` says how many rounds there are; ``-s`` shows how long after its limit each fault was in the log, in
`health()` and in the health file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select
from support.effort import examples
from support.faulty_service import BUSY_SECONDS, MAILS, ROWS
from support.orders import placed
from support.read_models import until
from support.tally import chance

from adversity.faults.proxy import Proxy
from esource import EventStore

TESTS = Path(__file__).resolve().parents[2]
FOLLOWERS = ("projection", "subscription", "relay")
FAULTS = ("raise", "hang", "cancel")
LOSS = "loses its database"
CLOCKS_SECONDS = 0.05
"""A limit of the service may have been passed so much earlier than the test's own reckoning has it."""


class Lines:
    """The lines of a file that grows. Each is read once: whoever reads all of them a hundred times a second has no time for
    anything else, and the proxy lives in the same loop."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0

    def new(self) -> list[str]:
        with self._file.open("rb") as file:
            file.seek(self._at)
            whole, end, _ = file.read().rpartition(b"\n")
        self._at += len(whole + end)
        return whole.decode().splitlines()


class Service:
    """The process, and what can be seen of it from outside."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.log = folder / "log"
        self.process: asyncio.subprocess.Process | None = None
        self._log, self._records = Lines(self.log), []
        self._moments, self._seen = Lines(folder / "moments"), []

    async def start(self) -> None:
        with self.log.open("a") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "support.faulty_service", self.url, str(self.folder)),
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(TESTS)},
            )

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.process.wait()

    def health(self, follower: str) -> dict[str, Any]:
        """What the health file says of a follower; nothing while there is none."""
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        try:
            found = json.loads((self.folder / "health.json").read_text())["followers"]
        except FileNotFoundError:
            return {}
        return next((each for each in found if each["kind"] == follower), {})

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait for something that the service does; else say what it said."""
        try:
            await until(condition, seconds)
        except asyncio.TimeoutError:
            fault = self.folder / "fault"
            pytest.fail(
                f"{fault.read_text() if fault.exists() else 'no fault'}\n{(self.folder / 'health.json').read_text()}\n"
                f"{(self.folder / 'moments').read_text()[-500:]}\n{self.log.read_text()[-8000:]}"
            )

    def failures(self, follower: str) -> int:
        return self.health(follower).get("failures", 0)

    def records(self) -> list[dict[str, Any]]:
        """The log records of the level of a warning and above."""
        found = (json.loads(line) for line in self._log.new() if line.startswith("{"))
        self._records += [record for record in found if record["level"] in ("warning", "error")]
        return self._records

    def told(self, follower: str, since: int) -> bool:
        return any(record["message"].startswith(follower) for record in self.records()[since:])

    def moment(self, what: str, follower: str, since: float) -> float | None:
        """The first moment of a kind that the service has noted of a follower; None if there is none."""
        lines = (line.split() for line in self._moments.new())
        self._seen += [(kind, name, float(at)) for kind, name, at in lines]
        found = [at for kind, name, at in self._seen if (kind, name) == (what, follower)]
        return min((at for at in found if at >= since), default=None)

    def logged(self, about: str, since: float) -> float | None:
        """The moment of the first log record about a follower, or about anything."""
        of_it = (record["at"] for record in self.records() if record["message"].startswith(about))
        found = [datetime.fromisoformat(at).timestamp() for at in of_it]
        return min((at for at in found if at >= since), default=None)

    @asynccontextmanager
    async def fault(self, follower: str, what: str):
        (self.folder / "fault").write_text(f"{follower} {what}")
        yield
        (self.folder / "fault").unlink()


@dataclass
class Figures:
    """How long after its limit each fault was seen, in seconds."""

    found: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))

    async def see(self, service: Service, follower: str, fault: str, passed: float) -> None:
        """Wait until a fault whose limit was passed at this moment is in the log, in the health and in its file."""
        since = passed - CLOCKS_SECONDS
        about = "" if fault == LOSS else follower

        def is_in_file() -> bool:
            found = service.health(follower)
            at = found.get("last_error_at")
            return found.get("unreachable") is not None or bool(
                at and datetime.fromisoformat(at).timestamp() >= since
            )

        await service.until(is_in_file)
        seen = time.time()
        await service.until(
            lambda: service.logged(about, since) and service.moment("health", follower, since)
        )
        logged, healthy = service.logged(about, since), service.moment("health", follower, since)
        assert logged is not None
        assert healthy is not None
        self.found[f"{follower} {fault}"].append((logged - passed, healthy - passed, seen - passed))

    def show(self) -> None:
        print(
            f"\n{'seconds after the limit, the longest of all (median)':56} {'log':>14} {'health()':>14} {'file':>14}"
        )
        for name, rows in sorted(self.found.items()):
            cells = [
                f"{max(column):6.3f} ({statistics.median(column):.3f})" for column in zip(*rows, strict=True)
            ]
            print(f"{name:50} {len(rows):5} " + " ".join(f"{cell:>14}" for cell in cells))


class Load:
    """Events that are appended all the time, and what has become of them."""

    def __init__(self, store: EventStore, service: Service) -> None:
        self.store = store
        self.service = service
        self.positions: list[int] = []

    async def append(self, count: int = 3) -> None:
        for _ in range(count):
            event = placed()
            result = await self.store.append_events(event.aggregate_id, "Order", [event])
            self.positions.append(result.global_position)

    async def handled(self, table: Any) -> list[int]:
        async with self.store.reading() as connection:
            return list((await connection.execute(select(table.c.position))).scalars())

    def published(self) -> Counter[int]:
        return Counter(int(line) for line in (self.service.folder / "published").read_text().split())

    async def is_caught_up(self) -> bool:
        wanted = set(self.positions)
        return (
            wanted <= set(self.published())
            and len(await self.handled(ROWS)) >= len(wanted)
            and len(await self.handled(MAILS)) >= len(wanted)
        )

    async def catch_up(self, after: str) -> None:
        """Wait until everybody has handled all; else say who has not, and what the service said."""
        try:
            await until(self.is_caught_up, 120.0)
        except asyncio.TimeoutError:
            wanted = set(self.positions)
            missing = {
                "rows": sorted(wanted - set(await self.handled(ROWS))),
                "mails": sorted(wanted - set(await self.handled(MAILS))),
                "relay": sorted(wanted - set(self.published())),
            }
            health = (self.service.folder / "health.json").read_text()
            pytest.fail(f"after {after}: {missing}\n{health}\n{self.service.log.read_text()[-8000:]}")


@asynccontextmanager
async def lost_database(url: str, proxy: Proxy | None):
    """The database cannot be reached; on SQLite another program keeps it locked."""
    if proxy is not None:
        assert proxy._server is not None
        proxy._server.close()
        proxy.cut_all()
        yield
        await proxy.listen()
        return
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300 * examples(1))
@pytest.mark.skipif(sys.version_info < (3, 11), reason="the service's own loop asks its task who cancels it")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_service_survives_every_fault_of_its_handlers_and_its_database(
    request, database, open_stores, tmp_path
):
    proxy = None
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
        proxy = await Proxy(make_url(url)).__aenter__()
    else:
        url = request.getfixturevalue("sqlite_url")
    store = await open_stores(url, outbox_enabled=True)
    async with store.transaction() as transaction:
        await transaction.connection.run_sync(ROWS.create)
        await transaction.connection.run_sync(MAILS.create)
    service = Service(url if proxy is None else proxy.url, tmp_path)
    load = Load(store, service)
    (tmp_path / "published").touch()
    await service.start()
    draw, figures = chance("service"), Figures()
    try:
        for _ in range(examples(1)):
            rounds = [(follower, fault) for follower in FOLLOWERS for fault in FAULTS]
            rounds += [("", "kill"), ("", "database")]
            draw.shuffle(rounds)
            for follower, fault in rounds:
                await load.append()
                if fault == "kill":
                    await service.end(signal.SIGKILL)
                    await load.append()
                    await service.start()
                elif fault == "database":
                    await service.until(lambda: service.health("projection").get("state") == "running")
                    failures, since = service.failures("projection"), len(service.records())

                    def is_noted(failures: int = failures) -> bool:
                        found = service.health("projection")
                        return found.get("failures", 0) > failures or found.get("unreachable") is not None

                    async with lost_database(url, proxy):
                        began = time.time()
                        await service.until(is_noted, 60.0)
                        await service.until(lambda since=since: service.told("", since))
                        wait = 0.0 if proxy is not None else BUSY_SECONDS
                        await figures.see(service, "projection", LOSS, began + wait)
                else:
                    failures, since = service.failures(follower), len(service.records())
                    async with service.fault(follower, fault):
                        began = time.time()
                        await load.append()
                        await service.until(
                            lambda since=since, follower=follower: service.told(follower, since), 60.0
                        )
                        if follower != "subscription":  # its failures are those of the application
                            await service.until(
                                lambda f=follower, failures=failures: service.failures(f) > failures
                            )
                            assert service.health(follower)["last_error"]
                            await service.until(
                                lambda f=follower, began=began: service.moment("passed", f, began)
                            )
                            passed = service.moment("passed", follower, began)
                            assert passed is not None
                            await figures.see(service, follower, fault, passed)
                await load.append()
                await load.catch_up(f"{follower} {fault}")
        await service.until(lambda: service.health("projection").get("state") == "running")
        assert await service.end(signal.SIGTERM) == 0
    finally:
        if service.process is not None and service.process.returncode is None:
            await service.end(signal.SIGKILL)
        if proxy is not None:
            await proxy.__aexit__(None, None, None)
    figures.show()
    assert sorted(await load.handled(ROWS)) == load.positions
    assert sorted(await load.handled(MAILS)) == load.positions
    assert set(load.published()) == set(load.positions)
