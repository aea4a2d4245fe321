"""Directories of logs, which are closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from esource.directory import Directory

Make = Callable[..., Awaitable[Directory]]


@pytest.fixture
async def open_directories() -> AsyncIterator[Make]:
    """Opens directories; afterwards closes them."""
    opened: list[Directory] = []

    async def make(url: str, **options: Any) -> Directory:
        if url.startswith("sqlite"):
            options.setdefault("synchronous", "NORMAL")  # nobody switches the machine off in a test
        directory = Directory(url, enable_tracing=False, **options)
        await directory.open()
        opened.append(directory)
        return directory

    yield make
    for directory in opened:
        await directory.close()


@pytest.fixture
async def directory(empty_database_url: str, open_directories: Make) -> Directory:
    """A directory in a fresh database, on each kind in turn."""
    return await open_directories(empty_database_url)
