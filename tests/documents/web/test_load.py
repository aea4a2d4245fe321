"""Under load an application loses no request that it has answered, and its projection passes no event over.

``ESOURCE_TEST_EFFORT=100`` makes it 20 000 requests.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from support.effort import examples
from support.schemas import rows
from support.web import DJANGO_TABLES, FLASK_TABLES, PROJECTIONS, Client, free_port, once, serving, working

REQUESTS = examples(200)
CLIENTS = 8

UVICORN = [sys.executable, "-m", "uvicorn", "--workers", "4", "fastapi_app:app", "--port"]
GUNICORN = [sys.executable, "-m", "gunicorn", "--threads=8"]
SERVERS = {
    "FastAPI in 4 processes": lambda port: [*UVICORN, str(port)],
    "Flask in 4 processes": lambda port: [
        *GUNICORN,
        "--workers=4",
        f"--bind=127.0.0.1:{port}",
        "flask_app:app",
    ],
    "Django in 8 threads": lambda port: [*GUNICORN, f"--bind=127.0.0.1:{port}", "django_site.wsgi"],
}


TABLES = {"Flask": FLASK_TABLES, "Django": DJANGO_TABLES}


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
@pytest.mark.parametrize("server", SERVERS)
async def test_under_load_nothing_is_lost_and_nothing_passed_over(server, shared_database_url):
    port = free_port()
    for name, tables in TABLES.items():
        if name in server:
            once(tables, shared_database_url)
    with ExitStack() as stack:
        url = stack.enter_context(serving(SERVERS[server](port), port, shared_database_url))
        if "FastAPI" not in server:  # which runs the projection itself
            stack.enter_context(working(PROJECTIONS, shared_database_url))
        with ThreadPoolExecutor(CLIENTS) as threads:
            known = list(threads.map(lambda number: trade(url, f"c{number}"), range(CLIENTS)))
        with Client(url) as last:
            while last.ask("POST", "/orders", {"customer": "last", "cents": 1}).status == 202:
                pass  # not all is in the list yet
            for number, expected in enumerate(known):
                found = last.ask("GET", f"/orders?customer=c{number}").body
                assert {row["id"]: row["state"] == "paid" for row in found} == expected
                assert len(found) == len(expected)
    events = await rows(shared_database_url, "SELECT count(*) FROM events WHERE event_type = 'OrderPaid'")
    assert events == [(sum(sum(each.values()) for each in known),)]
