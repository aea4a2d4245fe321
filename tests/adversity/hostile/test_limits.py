"""Too much is refused before anything is written, the same on every database."""

from __future__ import annotations

from dataclasses import fields
from uuid import uuid4

import pytest
from support.orders import placed, several

from esource import (
    DLQRepository,
    InvalidEventError,
    InvalidOptionError,
    Limits,
    OutboxRepository,
    Snapshot,
    SnapshotStore,
    open_store,
)
from esource.checks import LONGEST_ERROR

SMALL = Limits(
    payload_characters=300, json_depth=5, append_events=3, append_characters=600, name_characters=20
)


@pytest.fixture
async def small(database_url, open_stores):
    return await open_stores(database_url, limits=SMALL)


def events(order, count, **fields):
    return [placed(order, **fields) for _ in range(count)]


async def refused(store, order, appended, word):
    with pytest.raises(InvalidEventError, match=word) as caught:
        await store.append_events(order, "Order", appended, 0)
    assert len(str(caught.value)) < 300
    assert await store.get_global_position() == 0


async def test_a_payload_beyond_the_limit_is_refused(small):
    order = uuid4()
    empty = len(await _payload(small, placed(order, customer_id="")))
    await refused(small, order, [placed(order, customer_id="é" * (301 - empty))], "payload_characters")
    await small.append_events(order, "Order", [placed(order, customer_id="é" * (300 - empty))], 0)


async def _payload(store, event):
    return store.codec.encode(event, "Order", event.aggregate_id).payload


async def test_json_beyond_the_depth_is_refused(small):
    order = uuid4()
    await refused(small, order, [placed(order, metadata={"a": [[[[1]]]]})], "json_depth")
    await small.append_events(order, "Order", [placed(order, metadata={"a": [[[1]], "[[[[[[[["]})], 0)


async def test_more_events_than_the_limit_are_refused(small):
    order = uuid4()
    await refused(small, order, several(4, order), "append_events")
    await small.append_events(order, "Order", several(3, order), 0)


async def test_an_iterator_without_end_is_not_followed(small):
    order = uuid4()
    await refused(small, order, iter(lambda: placed(order), None), "append_events")


async def test_more_characters_together_than_the_limit_are_refused(small):
    order = uuid4()
    await refused(small, order, events(order, 3, customer_id="x" * 70), "append_characters")


@pytest.mark.parametrize("field", ["aggregate_type", "event_type", "actor_id"])
async def test_a_name_beyond_the_limit_is_refused(small, field):
    event = placed(uuid4(), **{field: "x" * 21})
    with pytest.raises(InvalidEventError, match=f"{field}: has 21 characters"):
        await small.append_events(event.aggregate_id, event.aggregate_type, [event], 0)
    assert await small.get_global_position() == 0


async def test_snapshots_and_outbox_have_the_same_limits(small):
    with pytest.raises(InvalidEventError, match="payload_characters"):
        await SnapshotStore(small).save_snapshot(Snapshot(uuid4(), "Order", 1, {"a": "x" * 300}))
    with pytest.raises(InvalidEventError, match="payload_characters"):
        await OutboxRepository(small).add_event(placed(customer_id="x" * 300))
    async with small.transaction() as tx:
        with pytest.raises(InvalidEventError, match="json_depth"):
            await tx.snapshots.save_snapshot(Snapshot(uuid4(), "Order", 1, {"a": [[[[[1]]]]]}))


async def test_a_dead_letter_is_kept_whatever_the_limits_are_now(small):
    letters = DLQRepository(small)
    error = ValueError("é" * (LONGEST_ERROR + 10))
    id_ = await letters.add_failed_event(uuid4(), "p", "t", {"a": "x" * 1000}, error)
    found = await letters.get_failed_event(id_)
    assert len(found.error_message) < LONGEST_ERROR + 100
    assert f"({LONGEST_ERROR + 22} characters)" in found.error_message


def test_the_default_refuses_more_than_sixteen_mebi_characters():
    order = uuid4()
    with pytest.raises(InvalidEventError, match="16777216"):
        open_store("sqlite://").codec.encode(placed(order, customer_id="x" * 2**24), "Order", order)


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
def test_a_limit_is_at_least_1_and_at_most_its_ceiling(field):
    Limits(**{field: 1})
    Limits(**{field: Limits.CEILINGS[field]})
    for wrong in (0, -1, 1.5, True, "5", None, Limits.CEILINGS[field] + 1):
        with pytest.raises(InvalidOptionError, match=field):
            Limits(**{field: wrong})


def test_limits_are_limits():
    with pytest.raises(InvalidOptionError, match="limits"):
        open_store("sqlite://", limits={"payload_characters": 5})
