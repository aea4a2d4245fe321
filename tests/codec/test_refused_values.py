"""What one database would refuse is refused by both, before anything is written, naming the field."""

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, model_serializer
from pydantic.dataclasses import dataclass
from support.json_reader import COUNTS_THE_SIGN
from support.orders import placed

from esource import DomainEvent, EventRegistry, InvalidEventError, UntypedEvent


class Inner(BaseModel):
    size: float = 0.0
    more: Any = None


@dataclass
class Point:
    x: float = 0.0


class Noted(DomainEvent):
    aggregate_type: str = "Note"
    size: float = 0.0
    text: str = ""
    value: Any = None
    inner: Inner | None = None
    inners: list[Inner] = []
    point: Point | None = None


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


cycle: dict = {}
cycle["again"] = cycle
nan, infinity = float("nan"), float("inf")

REFUSED = [
    ({"text": "a\x00b"}, "text", "NUL"),
    ({"value": {"k": ["\x00"]}}, "value.k[0]", "NUL"),
    ({"value": {"\x00": 1}}, "value (a key)", "NUL"),
    ({"metadata": {"note": "\x00"}}, "metadata.note", "NUL"),
    ({"actor_id": "\x00"}, "actor_id", "NUL"),
    ({"event_type": "\x00"}, "event_type", "NUL"),
    ({"size": nan}, "size", "nan"),
    ({"size": -infinity}, "size", "-inf"),
    ({"metadata": {"a": {"b": [1, infinity]}}}, "metadata.a.b[1]", "inf"),
    ({"value": (1.0, nan)}, "value[1]", "nan"),
    ({"inner": Inner(size=nan)}, "inner.size", "nan"),
    ({"inner": Inner(more={"x": nan})}, "inner.more.x", "nan"),
    ({"inners": [Inner(), Inner(size=infinity)]}, "inners[1].size", "inf"),
    ({"point": Point(nan)}, "point.x", "nan"),
    ({"metadata": {"model": Inner(size=nan)}}, "metadata.model.size", "nan"),
    ({"value": "\ud800"}, "value", "surrogate"),
    ({"value": {"\udfff": 1}}, "value (a key)", "surrogate"),
    ({"metadata": {"a": ["x", "\ud800"]}}, "metadata.a[1]", "surrogate"),
    ({"value": object()}, "value", "cannot be written as JSON"),
    ({"value": b"\xff"}, "value", "cannot be written as JSON"),
    ({"value": nested(200)}, "payload", "levels of nesting"),
    ({"value": nested(400)}, "value", "cannot be written as JSON"),
    ({"value": 10**4300}, "payload", "digits"),
    ({"actor_id": "x" * 256}, "actor_id", "256 characters, the limit is 255"),
    ({"event_type": "x" * 256}, "event_type", "256 characters"),
    ({"event_type": ""}, "event_type", "is empty"),
    ({"aggregate_type": "x" * 256}, "aggregate_type", "256 characters"),
    ({"aggregate_type": ""}, "aggregate_type", "is empty"),
    ({"aggregate_type": "\x00"}, "aggregate_type", "NUL"),
]
# What the event's own validators would not let in, but model_copy() does.
SLIPPED_IN = [
    ({"occurred_at": datetime(2024, 1, 1)}, "occurred_at", "no time zone"),
    (
        {"occurred_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        "occurred_at",
        "outside the years",
    ),
    ({"occurred_at": datetime.min.replace(tzinfo=timezone.utc)}, "occurred_at", "infinity"),
    ({"occurred_at": datetime.max.replace(tzinfo=timezone.utc)}, "occurred_at", "infinity"),
    ({"text": "\ud800"}, "text", "surrogate"),
    ({"metadata": cycle}, "metadata", "cannot be written as JSON"),
    ({"actor_id": 5}, "actor_id", "not text"),
    ({"event_type": 5}, "event_type", "not text"),
]


async def test_what_may_not_be_stored_is_refused_and_nothing_is_written(store):
    store.codec.registry = EventRegistry()
    store.codec.registry.register(Noted)
    for fields, field, problem in REFUSED + SLIPPED_IN:
        good = Noted(aggregate_id=uuid4(), **{k: v for k, v in fields.items() if k == "aggregate_type"})
        bad = good.model_copy(update={"event_id": uuid4(), **fields})
        with pytest.raises(InvalidEventError, match=".") as refused:
            await store.append_events(good.aggregate_id, good.aggregate_type, [good, bad])
        assert refused.value.field == field
        assert problem in str(refused.value)
        assert await store.get_global_position() == 0


async def test_an_event_whose_serializer_gives_up_is_refused_as_a_whole(store):
    class Broken(Noted):
        @model_serializer(mode="wrap")
        def as_json(self, handler, info):
            written = handler(self)
            if "text" in written and "value" in written:
                raise ValueError("these two do not go together")
            return written

    event = Broken(aggregate_id=uuid4())
    with pytest.raises(InvalidEventError, match="these two do not go together") as refused:
        await store.append_events(event.aggregate_id, "Note", [event])
    assert refused.value.field == "payload"


async def test_extra_fields_are_looked_at_too(store):
    for value, field in (
        ("\x00", "extra.deep"),
        ("\ud800", "extra.deep"),
        (nan, "extra.deep"),
        (Inner(size=nan), "extra.deep.size"),
    ):
        event = UntypedEvent(
            event_type="Note", aggregate_type="Note", aggregate_id=uuid4(), extra={"deep": value}
        )
        with pytest.raises(InvalidEventError) as refused:
            await store.append_events(event.aggregate_id, "Note", [event])
        assert refused.value.field == field
    event = UntypedEvent(event_type="Note", aggregate_type="Note", aggregate_id=uuid4(), **{"\x00": 1})
    with pytest.raises(InvalidEventError) as refused:
        await store.append_events(event.aggregate_id, "Note", [event])
    assert refused.value.field == "(a key)"
    assert await store.get_global_position() == 0


async def test_an_escaped_backslash_is_no_nul(store):
    event = Noted(aggregate_id=uuid4(), text="\\u0000", value="NaN Infinity")
    store.codec.registry = EventRegistry()
    store.codec.registry.register(Noted)
    await store.append_events(event.aggregate_id, "Note", [event])
    assert (await store.get_events(event.aggregate_id, "Note")).events == [event]


async def test_what_is_just_within_the_limits_is_stored(store):
    store.codec.registry = EventRegistry()
    store.codec.registry.register(Noted)
    for value in (
        {"deep": nested(197), "long": 10**4299},
        {"deep": nested(197), "long": -(10**4299)},
        {"long": -(10**4299)},  # which is read again before it is stored although it is not deep
    ):
        event = Noted(aggregate_id=uuid4(), value=value)
        if value["long"] < 0 and COUNTS_THE_SIGN:
            with pytest.raises(InvalidEventError, match="4300 digits in an integer"):
                await store.append_events(event.aggregate_id, "Note", [event])
        else:
            await store.append_events(event.aggregate_id, "Note", [event])
            assert (await store.get_events(event.aggregate_id, "Note")).events == [event]


async def test_an_event_of_another_stream_is_refused(store):
    event = placed()
    with pytest.raises(InvalidEventError) as refused:
        await store.append_events(uuid4(), "Order", [event])
    assert refused.value.field == "aggregate_id"
    with pytest.raises(InvalidEventError) as refused:
        await store.append_events(event.aggregate_id, "Invoice", [event])
    assert refused.value.field == "aggregate_type"
    with pytest.raises(InvalidEventError, match="holds a dict, not a DomainEvent"):
        await store.append_events(uuid4(), "Order", [{}])
    assert await store.get_global_position() == 0
