"""Stores with an outbox, and a publisher that remembers."""

from __future__ import annotations

import pytest
from support.relays import Sink


@pytest.fixture
async def store(database_url, open_stores):
    return await open_stores(database_url, outbox_enabled=True)


@pytest.fixture
def sink():
    return Sink()
