"""An application under four processes loses no request that it has answered, and its projection passes no event over.

``ESOURCE_TEST_EFFORT=50`` makes it 20 000 requests.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.effort import examples
from support.schemas import rows
from support.web import Client, free_port, serving

REQUESTS = examples(400)
CLIENTS = 8


def trade(url: str, customer: str) -> dict[str, bool]:
    """Place orders, and pay every other one; the ids, and whether the order is paid."""
    known: dict[str, bool] = {}
    requests = 0
    with Client(url) as client:
        while requests < REQUESTS // CLIENTS:
            placed = client.ask("POST", "/orders", {"customer": customer, "cents": 1})
            assert placed.status in (201, 202), placed
            requests += 1
            known[placed.body["id"]] = pays = len(known) % 2 == 0
            if pays:
                paid = client.ask("POST", f"/orders/{placed.body['id']}/pay")
                assert paid.status in (200, 202), paid
                requests += 1
    return known


@pytest.mark.slow
@pytest.mark.timeout(300 + REQUESTS)
async def test_four_processes_lose_and_skip_nothing(shared_database_url):
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--workers", "4"]
    with serving(command, port, shared_database_url) as url:
        with ThreadPoolExecutor(CLIENTS) as threads:
            known = list(threads.map(lambda number: trade(url, f"c{number}"), range(CLIENTS)))
        last = Client(url)
        with last:
            answer = last.ask("POST", "/orders", {"customer": "last", "cents": 1})
            while answer.status == 202:  # not all is in the list yet
                answer = last.ask("POST", "/orders", {"customer": "last", "cents": 1})
            for number, expected in enumerate(known):
                found = last.ask("GET", f"/orders?customer=c{number}").body
                assert {row["id"]: row["state"] == "paid" for row in found} == expected
                assert len(found) == len(expected)
    events = await rows(shared_database_url, "SELECT count(*) FROM events WHERE event_type = 'OrderPaid'")
    assert events == [(sum(sum(each.values()) for each in known),)]
