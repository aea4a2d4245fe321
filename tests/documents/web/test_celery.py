"""The Celery worker in `examples/web`, started for real beside the relay that fills its queue."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import pytest
from support.schemas import rows
from support.web import FOLDER, environment, working

from esource import open_store

WORKER = ["-m", "celery", "--app", "celery_app", "worker", "--concurrency", "2", "--loglevel", "WARNING"]
RELAY = ["-m", "esource", "outbox", "relay", "--follow", "--restart", "--publisher", "celery_app:ToCelery"]
PLACED = """
import sys
from uuid import UUID, uuid4
from orders import Order
from esource.sync import AggregateRepository, correlated, open_store
with open_store(sys.argv[1], outbox_enabled=True) as store, correlated(UUID(sys.argv[2])):
    for tenant in [None, UUID(int=1)] * 5:
        repository = AggregateRepository(store if tenant is None else store.for_tenant(tenant), Order)
        order = repository.create_new(uuid4())
        order.place("ada", 500)
        repository.save(order)
"""


@pytest.mark.slow
async def test_what_the_outbox_tells_celery_is_done_once(shared_database_url, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKER_FOLDER", str(tmp_path / "broker"))
    async with open_store(shared_database_url, unknown_events="untyped") as store:
        await store.initialize()
        correlation = uuid4()
        program = [sys.executable, "-c", PLACED, shared_database_url, str(correlation)]
        subprocess.run(program, cwd=FOLDER, env=environment(shared_database_url), check=True, timeout=120)
        with working(WORKER, shared_database_url), working(RELAY, shared_database_url):
            paid = 0
            async for stored in store.subscribe(event_types=["OrderPaid"]):
                assert (stored.stream_position, stored.event.correlation_id) == (2, correlation)
                paid += 1
                if paid == 10:
                    break
    repeated = "SELECT count(*), count(DISTINCT aggregate_id) FROM events WHERE event_type = 'OrderPaid'"
    assert await rows(shared_database_url, repeated) == [(10, 10)]
