"""Events and keys in databases of their own, on each kind in turn."""

from __future__ import annotations

import pytest

from esource.privacy import DatabaseKeyStore, new_master_key


@pytest.fixture
def key_url(request, shared_database_url, tmp_path):
    """An empty database for keys, of the kind that the events are in."""
    if shared_database_url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'keys.db'}"
    return request.getfixturevalue("empty_postgres_url")


@pytest.fixture
def master_key():
    return new_master_key()


@pytest.fixture
async def keys(key_url, master_key):
    async with DatabaseKeyStore(key_url, master_key) as key_store:
        await key_store.initialize()
        yield key_store


@pytest.fixture
async def store(shared_database_url, open_stores, keys):
    return await open_stores(shared_database_url, key_store=keys, outbox_enabled=True)
