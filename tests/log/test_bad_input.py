"""What may not be stored is refused before anything is written, the same on every database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from support.orders import placed

from esource import DomainEvent, InvalidEventError, ReadOptions
from esource.errors import InvalidOptionError

BAD = {
    "a NUL in a text": ({"customer_id": "a\x00b"}, "customer_id"),
    "a NUL in a nested value": ({"metadata": {"a": [{"b": "\x00"}]}}, "metadata.a"),
    "a NUL in a key": ({"metadata": {"\x00": 1}}, "metadata"),
    "not a number": ({"total": float("nan")}, "total"),
    "infinity": ({"total": float("inf")}, "total"),
    "minus infinity in a nested value": ({"metadata": {"a": [1, float("-inf")]}}, "metadata.a"),
    "half a surrogate pair": ({"metadata": {"a": "\ud800"}}, "metadata"),
    "no JSON": ({"metadata": {"a": object()}}, "metadata"),
    "a long event type": ({"event_type": "x" * 256}, "event_type"),
    "an empty event type": ({"event_type": ""}, "event_type"),
    "a NUL in the event type": ({"event_type": "a\x00"}, "event_type"),
    "a long actor": ({"actor_id": "x" * 256}, "actor_id"),
    "a NUL in the actor": ({"actor_id": "\x00"}, "actor_id"),
    "half a surrogate pair in the actor": ({"actor_id": "\ud83d"}, "actor_id"),
    "the first moment": ({"occurred_at": datetime.min.replace(tzinfo=timezone.utc)}, "occurred_at"),
    "the last moment": (
        {"occurred_at": datetime(9999, 12, 31, 22, 59, 59, 999999, timezone(timedelta(hours=-1)))},
        "occurred_at",
    ),
}


@pytest.mark.parametrize(("fields", "named"), BAD.values(), ids=BAD)
async def test_a_value_that_one_database_cannot_hold_is_refused_by_all(store, fields, named):
    order = uuid4()
    with pytest.raises(InvalidEventError) as caught:
        await store.append_events(order, "Order", [placed(order), placed(order).model_copy(update=fields)], 0)
    assert named in caught.value.field
    assert caught.value.field in str(caught.value)
    assert await store.get_global_position() == 0


@pytest.mark.parametrize("name", ["", "x" * 256, "a\x00b", "\ud800"], ids=["empty", "long", "NUL", "half"])
async def test_an_aggregate_type_that_cannot_be_stored_is_refused(store, name):
    order = uuid4()
    with pytest.raises(InvalidEventError) as caught:
        await store.append_events(order, name, [placed(order, aggregate_type=name)])
    assert caught.value.field == "aggregate_type"


async def test_the_longest_names_are_stored(store):
    order = uuid4()
    name = "é" * 255
    event = placed(order, aggregate_type=name, actor_id=name)
    await store.append_events(order, name, [event])
    assert (await store.get_events(order, name)).events == [event]


@pytest.mark.parametrize("year", [1, 1582, 9999])
async def test_moments_of_all_years_come_back(store, year):
    order = uuid4()
    moment = datetime(year, 12, 31, 23, 59, 59, 999998, tzinfo=timezone.utc)
    await store.append_events(order, "Order", [placed(order, occurred_at=moment)])
    assert (await store.get_events(order, "Order")).events[0].occurred_at == moment


async def test_texts_and_numbers_come_back_exactly(store):
    order = uuid4()
    metadata: dict[str, Any] = {
        "text": "\\u0000 is not a NUL, \"NaN\" no number, 'Infinity' a word; é 😀 \t\n \x1f \x7f",
        "float": 0.1 + 0.2,
        "whole": 1.0,
        "large": 10**20,
        "small": -(2**63),
        "empty": [{}, [], "", None, False],
    }
    await store.append_events(order, "Order", [placed(order, metadata=metadata, customer_id="NaN")])
    [event] = (await store.get_events(order, "Order")).events
    assert event.metadata == metadata
    assert event.customer_id == "NaN"
    assert isinstance(event.metadata["whole"], float)


async def test_something_that_is_no_event_is_refused(store):
    with pytest.raises(InvalidEventError, match="dict"):
        await store.append_events(uuid4(), "Order", [{}])


async def test_an_event_that_says_nothing_more_is_stored(store):
    class Nothing(DomainEvent):
        aggregate_type: str = "Order"

    store.event_registry.register(Nothing)
    order = uuid4()
    try:
        await store.append_events(order, "Order", [Nothing(aggregate_id=order)])
        assert type((await store.get_events(order, "Order")).events[0]) is Nothing
    finally:
        store.event_registry.unregister("Nothing")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"limit": "5"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": 1.0}, "limit"),
        ({"from_position": "5"}, "from_position"),
        ({"from_position": -1}, "from_position"),
        ({"from_position": None}, "from_position"),
        ({"from_timestamp": datetime(2024, 6, 1)}, "from_timestamp"),
        ({"to_timestamp": "2024-06-01T00:00:00+00:00"}, "to_timestamp"),
        ({"tenant_id": "acme"}, "tenant_id"),
        ({"event_types": "OrderPlaced"}, "event_types"),
        ({"aggregate_types": "Order"}, "aggregate_types"),
        ({"aggregate_types": 5}, "aggregate_types"),
        ({"event_types": ["a\x00"]}, "event_types"),
        ({"event_types": ["\ud800"]}, "event_types"),
        ({"aggregate_types": ["Order", "a\x00"]}, "aggregate_types"),
        ({"direction": "back"}, "direction"),
    ],
)
def test_options_of_a_read_that_make_no_sense_are_refused_when_they_are_made(options, name):
    with pytest.raises(InvalidOptionError, match=f"^{name} must be "):
        ReadOptions(**options)


def test_a_limit_or_a_position_beyond_what_there_can_be_is_taken():
    assert ReadOptions(limit=2**70, from_position=2**70).limit == 2**70
