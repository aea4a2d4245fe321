"""A service that is told to stop comes to an end, whatever it was doing, and has lost nothing that it acknowledged."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

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
    for after in (1, 200):
        acknowledged, errors, code = run(shared_database_url, loop, number, end, after)
        assert (code, errors) == (0, "")
        stored = {event.event_id async for event in shared_store.read_all()}
        assert stored.issuperset(acknowledged)
    if shared_database_url.startswith("postgresql"):
        async with shared_store.transaction() as tx:
            found = await tx.connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'service'"
            )
            assert found.scalar_one() == 0, "a session of a service that has ended is left"


def run(url: str, loop: str, number: signal.Signals, end: str, after: int) -> tuple[list[UUID], str, int]:
    """Start a service, let it acknowledge so many events, and send it a signal."""
    if url.startswith("postgresql"):
        url += ("&" if "?" in url else "?") + "application_name=service"
    with subprocess.Popen(
        [sys.executable, str(TESTS / "support" / "service.py"), url, loop, end],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            lines = [service.stdout.readline() for _ in range(after + 1)]
            service.send_signal(number)
            rest, errors = service.communicate(timeout=60)
        except BaseException:
            service.kill()
            raise
    told = "".join([*lines[1:], rest]).split()
    return [UUID(line) for line in told if len(line) == 36], errors, service.returncode
