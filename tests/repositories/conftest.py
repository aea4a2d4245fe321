"""Every way to a repository: what people have, on every database."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


@pytest.fixture(
    params=["store", "engine", "session factory", "url", "transaction", "connection", "aiosqlite"]
)
async def source(request, shared_store, shared_database_url):
    """A store, an engine, and so on, on a database with our tables."""
    from sqlalchemy.engine import make_url

    url = make_url(shared_database_url)
    async with AsyncExitStack() as stack:
        engine = create_async_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))
        stack.push_async_callback(engine.dispose)
        if request.param == "store":
            yield shared_store
        elif request.param == "engine":
            yield engine
        elif request.param == "session factory":
            yield async_sessionmaker(engine, expire_on_commit=False)
        elif request.param == "url":
            yield shared_database_url
        elif request.param == "transaction":
            yield await stack.enter_async_context(shared_store.transaction())
        elif request.param == "connection":
            yield await stack.enter_async_context(engine.begin())
        elif url.get_backend_name() == "sqlite":
            import aiosqlite

            yield await stack.enter_async_context(aiosqlite.connect(url.database))
        else:  # nothing more that only PostgreSQL has
            yield url
