"""Whatever an event may hold comes back equal from every database."""

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from support.effort import examples
from support.json_reader import COUNTS_THE_SIGN

from esource import DomainEvent, EventRegistry, register_event
from esource.checks import JSON_DIGITS

registry = EventRegistry()


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    street: str
    number: int | None = None
    since: date | None = None
    tags: frozenset[str] = frozenset()


@register_event(registry=registry)
class Everything(DomainEvent):
    aggregate_type: str = "Thing"
    text: str
    whole: int
    number: float
    amount: Decimal
    flag: bool
    reference: UUID
    customer_id: str
    moment: datetime
    local: datetime
    day: date
    clock: time
    span: timedelta
    colour: Colour
    level: Level
    maybe: str | None
    either: int | str
    home: Address | None
    places: list[Address]
    by_name: dict[str, Address]
    by_number: dict[int, str]
    pair: tuple[int, str]
    names: set[str]
    raw: bytes
    anything: Any


def storable(character):
    return character != "\x00" and not "\ud800" <= character <= "\udfff"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
names = texts.filter(lambda text: not text.endswith("_id"))  # the name rules are tested by themselves
floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.integers(1, JSON_DIGITS - 1 - COUNTS_THE_SIGN).map(lambda digits: -(10**digits)),
)
json_values = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones)
column_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=255)
addresses = st.builds(
    Address,
    street=texts,
    number=st.none() | integers,
    since=st.none() | st.dates(),
    tags=st.frozensets(texts, max_size=3),
)
events = st.builds(
    Everything,
    event_id=st.builds(uuid4),
    aggregate_id=st.just(UUID(int=1)),
    event_version=st.integers(-(2**31), 1),
    occurred_at=moments,
    tenant_id=st.none() | st.uuids(),
    actor_id=st.none() | column_texts,
    correlation_id=st.uuids(),
    causation_id=st.none() | st.uuids(),
    metadata=st.dictionaries(names, json_values, max_size=4),
    text=texts,
    whole=integers,
    number=floats,
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    reference=st.uuids(),
    customer_id=texts | st.uuids().map(str),
    moment=moments,
    local=st.datetimes(),
    day=st.dates(),
    clock=st.times(),
    span=st.timedeltas(timedelta(days=-90_000), timedelta(days=90_000)),
    colour=st.sampled_from(Colour),
    level=st.sampled_from(Level),
    maybe=st.none() | texts,
    either=integers | texts,
    home=st.none() | addresses,
    places=st.lists(addresses, max_size=3),
    by_name=st.dictionaries(texts, addresses, max_size=3),
    by_number=st.dictionaries(st.integers(-(2**62), 2**62), texts, max_size=3),
    pair=st.tuples(integers, texts),
    names=st.sets(texts, max_size=3),
    raw=texts.map(str.encode),
    anything=json_values,
)

# One append of many events per example: an example per event would be ten times slower.
batches = st.lists(events, min_size=1, max_size=8)
many = settings(
    max_examples=examples(2),  # on each database
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)


@many
@given(batches)
async def test_any_event_comes_back_as_it_was(store, batch):
    store.codec.registry = registry
    stream = uuid4()
    batch = [
        event.model_copy(update={"aggregate_id": stream, "aggregate_version": version})
        for version, event in enumerate(batch, start=1)
    ]
    await store.append_events(stream, "Thing", batch)
    found = (await store.get_events(stream, "Thing")).events
    assert len(found) == len(batch)
    for event, again in zip(batch, found, strict=True):
        assert again == event
        assert kinds(again.metadata) == kinds(event.metadata)
        assert kinds(again.anything) == kinds(event.anything)
    # Appending the same once more is recognised as the same, in whatever spelling the database keeps it.
    assert (await store.append_events(stream, "Thing", batch)).idempotent


def kinds(value):
    """The types inside a JSON value: 1 and 1.0 are equal, but not the same."""
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [kinds(item) for item in value]
    return type(value)


@register_event(registry=registry)
class Noted(DomainEvent):
    aggregate_type: str = "Thing"
    value: Any = None
    size: float = 0.0


async def round_trip(store, event):
    store.codec.registry = registry
    await store.append_events(event.aggregate_id, "Thing", [event])
    assert (await store.append_events(event.aggregate_id, "Thing", [event])).idempotent
    return (await store.get_events(event.aggregate_id, "Thing")).events[0]


@pytest.mark.parametrize(
    "number", [1e300, -1.7976931348623157e308, 1e16, 1e23, 1.5e-300, 5e-324, 1.0, 0.1, 10**20, 2**63]
)
async def test_a_number_keeps_its_value_and_its_kind(store, number):
    event = Noted(aggregate_id=uuid4(), value=[number], size=number, metadata={"n": {"m": number}})
    found = await round_trip(store, event)
    assert found == event
    assert type(found.value[0]) is type(found.metadata["n"]["m"]) is type(number)


async def test_text_that_looks_like_a_number_stays_as_it_is(store):
    text = 'say "1e300", [1e300,2e10], \\"3e5\\": ,4e4'
    event = Noted(aggregate_id=uuid4(), value={text: [text, 1e20]})
    assert await round_trip(store, event) == event


async def test_what_json_cannot_tell_apart_becomes_its_plainest_form(store):
    event = Noted(
        aggregate_id=uuid4(),
        value=(1, {2: UUID(int=5)}),
        metadata={"at": datetime(2024, 1, 1, tzinfo=timezone.utc), "colour": Colour.RED},
    )
    found = await round_trip(store, event)
    assert found.value == [1, {"2": str(UUID(int=5))}]
    assert found.metadata == {"at": "2024-01-01T00:00:00Z", "colour": "red"}


async def test_the_longest_names_are_stored(store):
    @register_event(event_type="é" * 255, registry=registry)
    class Long(DomainEvent):
        aggregate_type: str = "ü" * 255

    event = Long(aggregate_id=uuid4(), actor_id="ä" * 255)
    store.codec.registry = registry
    await store.append_events(event.aggregate_id, event.aggregate_type, [event])
    assert (await store.get_events(event.aggregate_id, event.aggregate_type)).events == [event]
    registry.unregister("é" * 255)
