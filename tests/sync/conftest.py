"""The store that synchronous tests have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from esource.sync import EventStore, open_store


@pytest.fixture
def store(database_url: str) -> Iterator[EventStore]:
    options = {"synchronous": "NORMAL"} if database_url.startswith("sqlite") else {}
    with open_store(database_url, enable_tracing=False, **options) as store:
        store.initialize()
        yield store
