"""Optimistic concurrency: who may append, and what the loser is told."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import ExpectedVersion, OptimisticLockError
from esource.errors import InvalidOptionError

ANY, NO_STREAM, STREAM_EXISTS = ExpectedVersion.ANY, ExpectedVersion.NO_STREAM, ExpectedVersion.STREAM_EXISTS


@pytest.mark.parametrize(
    ("stored", "expected", "text"),
    [
        (1, NO_STREAM, "expected no stream, found version 1"),
        (0, STREAM_EXISTS, "expected an existing stream, found no stream"),
        (0, 1, "expected version 1, found no stream"),
        (3, 2, "expected version 2, found version 3"),
        (3, 4, "expected version 4, found version 3"),
        (3, 2**31, "expected version 2147483648, found version 3"),
        (3, 2**70, f"expected version {2**70}, found version 3"),
    ],
)
async def test_an_append_that_expects_something_else_conflicts(store, stored, expected, text):
    order = uuid4()
    if stored:
        await store.append_events(order, "Order", several(stored, order), 0)
    with pytest.raises(OptimisticLockError, match=text) as caught:
        await store.append_events(order, "Order", [placed(order)], expected)
    error = caught.value
    assert (error.aggregate_type, error.aggregate_id) == ("Order", order)
    assert (error.expected_version, error.actual_version) == (expected, stored)
    assert str(order) in str(error)
    assert await store.get_stream_version(order, "Order") == stored


async def test_a_conflict_leaves_the_store_as_it_was(store):
    order = uuid4()
    await store.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises(OptimisticLockError):
        await store.append_events(order, "Order", several(5, order), 0)
    assert (await store.append_events(order, "Order", [placed(order)], 1)).new_version == 2
    assert len((await store.get_events(order, "Order")).events) == 2


async def test_the_version_is_that_of_the_stream_and_not_of_the_id(store):
    shared = uuid4()
    await store.append_events(shared, "Order", several(4, shared), 0)
    with pytest.raises(OptimisticLockError) as caught:
        await store.append_events(shared, "Invoice", [placed(shared, aggregate_type="Invoice")], 4)
    assert caught.value.actual_version == 0


@pytest.mark.parametrize("expected", [-3, 1.0, "1", None, True])
async def test_an_expectation_that_makes_no_sense_is_refused(store, expected):
    order = uuid4()
    with pytest.raises(InvalidOptionError, match="expected_version"):
        await store.append_events(order, "Order", [placed(order)], expected)


async def test_another_store_on_the_same_database_loses_the_same_race(
    shared_store, shared_database_url, open_stores
):
    other = await open_stores(shared_database_url)
    order = uuid4()
    await shared_store.append_events(order, "Order", [placed(order)], 0)
    with pytest.raises(OptimisticLockError) as caught:
        await other.append_events(order, "Order", [placed(order)], 0)
    assert caught.value.actual_version == 1
    assert (await other.append_events(order, "Order", [placed(order)], 1)).new_version == 2


@pytest.mark.awaited
async def test_an_append_behind_one_that_lost_is_judged_after_those_between_them(store):
    """They share a batch, which cannot tell beforehand that the first of them loses."""
    order, other = uuid4(), uuid4()
    await store.append_events(order, "Order", several(2, order), 0)
    _, first, between, fits, behind = await asyncio.gather(
        store.append_events(other, "Order", [placed(other)]),  # is written alone, the others meanwhile wait
        store.append_events(order, "Order", [placed(order)], 5),
        store.append_events(order, "Order", [placed(order)], ANY),
        store.append_events(order, "Order", [placed(order)], 3),
        store.append_events(order, "Order", [placed(order)], 3),
        return_exceptions=True,
    )
    assert (between.new_version, fits.new_version) == (3, 4)
    assert [type(lost) for lost in (first, behind)] == [OptimisticLockError] * 2
    assert [lost.actual_version for lost in (first, behind)] == [2, 4]
