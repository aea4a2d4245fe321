"""Opening a SQLite database can be given up at any moment, and no connection is left to the garbage collector."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from adversity.faults.stepping import cancelled_at

from esource import open_store


@pytest.fixture
def open_connections(monkeypatch) -> Callable[[], int]:
    """Counts the connections that are open. It holds each of them: Python would close one that is forgotten."""
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connect_and_hold(*arguments, **options) -> sqlite3.Connection:
        made.append(connect(*arguments, **options))
        return made[-1]

    def is_open(connection: sqlite3.Connection) -> bool:
        try:
            return connection.total_changes >= 0
        except sqlite3.ProgrammingError:  # it is closed
            return False

    monkeypatch.setattr(sqlite3, "connect", connect_and_hold)
    return lambda: sum(map(is_open, made))


@pytest.mark.parametrize("kind", ["file", "memory", "read only"])
async def test_a_store_that_is_cancelled_while_it_opens_closes_what_it_opened(
    sqlite_url: str, open_connections: Callable[[], int], kind: str
):
    url = "sqlite://" if kind == "memory" else sqlite_url
    options = {"read_only": True} if kind == "read only" else {}
    got_there, number = True, 0
    while got_there:
        number += 1
        store = open_store(url, enable_tracing=False, **options)
        got_there, _ = await cancelled_at(number, store.open)
        if got_there:
            assert open_connections() == 0, f"cancelled at suspension {number}"
        else:
            assert open_connections() > 0
        await store.close()
        assert open_connections() == 0
    assert number == 2, "connecting is one wait, which comes to its end in a task of its own"
