"""The web applications in `examples/web`, each started as its page says: its own server, several workers, a real database."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.web import DJANGO_TABLES, FLASK_TABLES, PROJECTIONS, Client, free_port, once, serving, working

pytestmark = pytest.mark.slow


def fastapi(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", str(port), "--workers", "2"]


def flask(port: int, application: str = "flask_app:app") -> list[str]:
    workers = ["--workers=2", "--threads=4"]
    return [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *workers, application]


def django(port: int) -> list[str]:
    return flask(port, "django_site.wsgi")


TABLES: dict[Any, list[str]] = {flask: FLASK_TABLES, django: DJANGO_TABLES}
"""What makes the tables of an application."""
DJANGO = ["-m", "django", "run_projections", "--settings", "django_site.settings"]
BESIDE: dict[Any, list[str] | None] = {fastapi: None, flask: PROJECTIONS, django: DJANGO}
"""The applications, and what runs the projection in a process beside them."""


@pytest.fixture(params=BESIDE, ids=lambda command: command.__name__)
def url(request, shared_database_url):
    """The address of an application that runs."""
    port, beside = free_port(), BESIDE[request.param]
    if request.param in TABLES:
        once(TABLES[request.param], shared_database_url)
    with serving(request.param(port), port, shared_database_url) as address, ExitStack() as stack:
        if beside is not None:
            stack.enter_context(working(beside, shared_database_url))
        yield address


def test_an_application_does_what_its_page_says(url):
    with Client(url) as client:
        an_order_is_placed_paid_and_listed(client)
        a_tenant_sees_its_own_orders(client)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: what_was_written_is_read(url, f"c{number}"), range(8)))


def an_order_is_placed_paid_and_listed(client: Client) -> None:
    while client.ask("POST", "/orders", {"customer": "first", "cents": 1}).status == 202:
        pass  # the projection is about to begin
    correlation = uuid4()
    placed = client.ask("POST", "/orders", {"customer": "ada", "cents": 500}, X_Request_ID=str(correlation))
    assert placed.status == 201
    [row] = client.ask("GET", "/orders?customer=ada").body
    assert row["id"] == placed.body["id"]
    assert (row["cents"], row["state"], UUID(row["correlation"])) == (500, "placed", correlation)
    assert client.ask("POST", f"/orders/{row['id']}/pay").status == 200
    assert client.ask("GET", "/orders?customer=ada").body[0]["state"] == "paid"
    assert client.ask("POST", f"/orders/{row['id']}/pay").status == 409
    assert client.ask("POST", f"/orders/{uuid4()}/pay").status == 404


def a_tenant_sees_its_own_orders(client: Client) -> None:
    red, blue = str(uuid4()), str(uuid4())
    order = client.ask("POST", "/orders", {"customer": "ada", "cents": 1}, X_Tenant=red).body["id"]
    assert [row["id"] for row in client.ask("GET", "/orders?customer=ada", X_Tenant=red).body] == [order]
    assert client.ask("GET", "/orders?customer=ada", X_Tenant=blue).body == []
    assert client.ask("POST", f"/orders/{order}/pay", X_Tenant=blue).status == 404


def what_was_written_is_read(url: str, customer: str) -> None:
    """By whichever worker: each request has a connection of its own."""
    for _ in range(5):
        with Client(url) as writer, Client(url) as reader:
            answer = writer.ask("POST", "/orders", {"customer": customer, "cents": 1})
            assert answer.status in (201, 202)
            found = [row["id"] for row in reader.ask("GET", f"/orders?customer={customer}").body]
            assert answer.status == 202 or answer.body["id"] in found
