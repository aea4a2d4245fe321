"""Pairs of databases, in every direction."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.matrix import without_memory
from support.pairs import Pair

DIRECTIONS = [(here, there) for here in without_memory() for there in without_memory()]


@pytest.fixture(params=DIRECTIONS, ids="-to-".join)
def pair(request: pytest.FixtureRequest, tmp_path) -> Iterator[Pair]:
    """Two databases, in every direction."""
    with ExitStack() as stack:
        urls = []
        for place, kind in zip(("source", "target"), request.param, strict=True):
            if kind == "postgresql":
                databases = request.getfixturevalue("postgres_databases")
                urls.append(stack.enter_context(databases.with_tables()))
            else:
                template = request.getfixturevalue("sqlite_template")
                urls.append(f"sqlite:///{shutil.copy(template, tmp_path / f'{place}.db')}")
        yield Pair(*urls)
