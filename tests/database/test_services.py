"""A service that is told to stop comes to an end, whatever it was doing, and has lost nothing that it acknowledged.

``ESOURCE_TEST_EFFORT=25`` sends fifty signals of each kind to each service.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID

import pytest
from support.effort import examples, seed

import esource
from esource import EventStore

LOOPS = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "end"),
    [(signal.SIGTERM, "cancel"), (signal.SIGINT, "cancel"), (signal.SIGINT, "interrupt")],
)
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_service_that_gets_a_signal_ends_and_has_lost_nothing(
    shared_database_url: str, shared_store: EventStore, loop: str, number: signal.Signals, end: str
):
    for step in range(examples(2)):
        after = (1, 200)[step] if step < 2 else random.Random(seed() + step).randint(1, 300)
        acknowledged, errors, code = run(shared_database_url, loop, number, end, after)
        assert (code, errors) == (0, "")
        stored = {event.event_id async for event in shared_store.read_all()}
        assert stored.issuperset(acknowledged)
    print(f"{len(seconds)} services, the slowest ended {max(seconds):.2f} s after its signal")
    if shared_database_url.startswith("postgresql"):
        async with shared_store.transaction() as tx:
            found = await tx.connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'service'"
            )
            assert found.scalar_one() == 0, "a session of a service that has ended is left"


seconds: list[float] = []
"""How long each service went on after its signal: told, and not asserted, since a busy machine decides it."""


def run(url: str, loop: str, number: signal.Signals, end: str, after: int) -> tuple[list[UUID], str, int]:
    """Start a service, let it acknowledge so many events, and send it a signal."""
    if url.startswith("postgresql"):
        url += ("&" if "?" in url else "?") + "application_name=service"
    with subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "service.py"), url, loop, end],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(Path(esource.__file__).parents[1])]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            lines = [service.stdout.readline() for _ in range(after + 1)]
            service.send_signal(number)
            sent = time.monotonic()
            rest, errors = service.communicate(timeout=60)
            seconds.append(time.monotonic() - sent)
        except BaseException:
            service.kill()
            raise
    told = "".join([*lines[1:], rest]).split()
    return [UUID(line) for line in told if len(line) == 36], errors, service.returncode
