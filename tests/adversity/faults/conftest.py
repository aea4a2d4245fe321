"""A proxy before the tests' PostgreSQL server, and stores that reach it only through that."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.engine import make_url

from adversity.faults.proxy import Proxy


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(make_url(postgres_url)) as running:
        yield running
