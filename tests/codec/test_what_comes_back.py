"""An event comes back equal, or is refused before anything is written: what pydantic would change without a word."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from esource import DomainEvent, EventRegistry, InvalidEventError, upcaster
from esource.errors import EventDecodeError, InvalidOptionError
from esource.privacy import Personal
from esource.testing import assert_events_come_back, round_trips


class Happened(DomainEvent):
    event_type: str = "Happened"
    aggregate_type: str = "Thing"


class Base(BaseModel):
    a: int = 0


class Sub(Base):
    b: str = "b"


class Alike(BaseModel):
    a: int = 0
    c: int = 0


class Crossed(BaseModel):
    first: int = Field(alias="second")
    second: int = Field(alias="first")


class Hiding(BaseModel):
    a: int = 0
    _note: str = PrivateAttr("")


class Excluding(BaseModel):
    note: str = Field("x", exclude=True)


class Rate(Enum):
    STANDARD = Decimal("0.19")


class Level(IntEnum):
    LOW = 1


class Colour(Enum):
    RED = "red"


def hiding(note):
    made = Hiding()
    made._note = note
    return made


@pytest.fixture
def stored(store):
    """Appends an event, and reads it again; its class is registered."""

    async def append(event):
        store.codec.registry = EventRegistry()
        store.codec.registry.register(type(event))
        await store.append_events(event.aggregate_id, "Thing", [event])
        (found,) = (await store.get_events(event.aggregate_id, "Thing")).events
        return found

    return append


def event_of(annotation, value, config=None, **field):
    """An event of a class with one field of this type."""

    class Typed(Happened):
        model_config = ConfigDict(**(config or {}))
        value: annotation = Field(**field)  # noqa: F821

    return Typed.model_validate({"aggregate_id": uuid4(), "value": value}, by_name=True)


KEPT = [
    (str, "x"),
    (int, 2**80),
    (float, 1e22),
    (Decimal, Decimal("1.10")),
    (datetime, datetime(2024, 10, 27, 2, 30)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (Colour, Colour.RED),
    (UUID | str, "order-77"),
    (UUID | str, UUID(int=3)),
    (int | str, "1"),
    (Base | Alike, Base(a=1)),
    (list[Base], [Base(a=1)]),
    (dict[int, str], {1: "a"}),
    (tuple[int, str], (1, "a")),
    (Crossed, Crossed(first=1, second=2)),
    (Annotated[str, AfterValidator(str.strip)], "x"),
    (Any, {"a": [1, None, "x"]}),
]


@pytest.mark.parametrize(("annotation", "value"), KEPT)
async def test_what_comes_back_equal_is_stored(stored, annotation, value):
    event = event_of(annotation, value)
    found = await stored(event)
    assert found == event
    assert type(found.value) is type(value)


async def test_the_hour_that_a_clock_repeats_keeps_its_moment(stored):
    event = event_of(datetime, datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1))
    assert (await stored(event)).value.timestamp() == event.value.timestamp()


async def test_a_field_with_several_aliases_is_written_and_read_by_its_name(stored):
    for alias in (AliasChoices("amount", "price"), "price", "event_version"):
        event = event_of(int, 5, validation_alias=alias)
        assert await stored(event) == event


class HalfOpen(NamedTuple):
    known: Sequence[str]
    open: Any


class HalfOpenKeys(TypedDict):
    known: Sequence[str]
    open: Any


MORE_THAN_A_MINUTE = timezone(timedelta(minutes=53, seconds=28))
LOST = [
    (Base, Sub(a=1, b="c"), "value", "comes back as Base, not as Sub"),
    (list[Base], [Base(), Sub()], "value[1]", "comes back as Base, not as Sub"),
    (Hiding, hiding("secret"), "value._note", "private attribute"),
    (Excluding, Excluding(note="y"), "value.note", "comes back as another str"),
    (UUID | str, "0f8fad5b-d9cb-469f-a165-70867728950e", "value", "comes back as "),
    (Level | int, Level.LOW, "value", "comes back as int, not as Level"),
    (Decimal | str, "1.5", "value", "comes back as "),
    (datetime, datetime(1900, 1, 1, tzinfo=MORE_THAN_A_MINUTE), "value", "comes back as another datetime"),
    (list[datetime], [datetime(1900, 1, 1, tzinfo=MORE_THAN_A_MINUTE)], "value[0]", "another datetime"),
    (Any, datetime(1900, 1, 1, tzinfo=MORE_THAN_A_MINUTE), "value", "an offset with seconds"),
    # What one part leaves open is not open in the others.
    (tuple[Sequence[str], Any], (("a",), 1), "value[0]", "comes back as list, not as tuple"),
    (dict[str, tuple[Base, Any]], {"k": (Sub(), 1)}, "value.k[0]", "comes back as Base, not as Sub"),
    (tuple[Sequence[str], Any] | None, (("a",), 1), "value[0]", "comes back as list, not as tuple"),
    (HalfOpen, HalfOpen(("a",), 1), "value[0]", "comes back as list, not as tuple"),
    (HalfOpenKeys, {"known": ("a",), "open": (1,)}, "value.known", "comes back as list, not as tuple"),
    (Any, {1: "a", "1": "b"}, "value", "has a key that does not come back"),
    (Any, Excluding(note="y"), "value", "has a key that does not come back"),
    (
        Annotated[float, PlainSerializer(lambda value: round(value))],
        1.5,
        "value",
        "comes back as another float",
    ),
    (Annotated[str, AfterValidator(lambda value: value + "!")], "x", "value", "comes back as another str"),
    (SecretStr | None, SecretStr("x"), "value", "comes back as another SecretStr"),
]


@pytest.mark.parametrize(("annotation", "value", "field", "problem"), LOST)
async def test_what_would_come_back_otherwise_is_refused(store, stored, annotation, value, field, problem):
    with pytest.raises(InvalidEventError) as refused:
        await stored(event_of(annotation, value))
    assert refused.value.field.startswith(field)
    assert problem in str(refused.value)
    assert await store.get_global_position() == 0


async def test_a_configuration_that_loses_is_refused_where_it_does(stored):
    for config, annotation, value in (
        ({"ser_json_inf_nan": "null"}, float | None, float("nan")),
        ({"ser_json_bytes": "hex"}, bytes, b"\x01"),
    ):
        with pytest.raises(InvalidEventError):
            await stored(event_of(annotation, value, config))


class Good(Happened):
    amount: int = 0
    items: list[int] = []
    note: str = ""


SLIPPED_IN = [
    ({"amount": "abc"}, "amount"),
    ({"amount": None}, "amount"),
    ({"note": 5}, "note"),
    ({"items": (1,)}, "items"),
    ({"typo": 2}, "typo"),
    ({"event_id": "order-77"}, "event_id"),
    ({"tenant_id": "shop"}, "tenant_id"),
    ({"actor_id": 5}, "actor_id"),
    ({"causation_id": "x"}, "causation_id"),
    ({"metadata": None}, "metadata"),
    ({"metadata": {1: "a"}, "note": 5}, "note"),
    ({"occurred_at": "today"}, "occurred_at"),
    ({"event_version": "two"}, "event_version"),
]


@pytest.mark.parametrize(("update", "field"), SLIPPED_IN)
async def test_what_model_copy_lets_in_is_refused(store, stored, update, field):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidEventError) as refused:
            await stored(Good(aggregate_id=uuid4()).model_copy(update=update))
    assert refused.value.field == field
    assert await store.get_global_position() == 0


async def test_a_copy_with_values_of_the_declared_types_is_stored(stored):
    event = Good(aggregate_id=uuid4()).model_copy(update={"amount": 5, "items": [1]}).with_metadata(a=1)
    assert await stored(event) == event


async def test_what_was_appended_to_a_frozen_event_is_looked_at(store, stored):
    event = Good(aggregate_id=uuid4(), items=[1])
    event.items.append(2)
    assert (await stored(event)).items == [1, 2]
    event = Good(aggregate_id=uuid4(), items=[1])
    event.items.append("three")
    with pytest.raises(InvalidEventError, match=r"items\.1: could not be read again"):
        await stored(event)


async def test_an_event_that_was_made_without_validation_is_looked_at(stored):
    with pytest.raises(InvalidEventError, match="amount"):
        await stored(Good.model_construct(aggregate_id=uuid4(), aggregate_type="Thing", amount="abc"))


async def test_a_default_that_does_not_fit_its_type_is_refused(stored):
    class Sloppy(Happened):
        amount: int = None

    with pytest.raises(InvalidEventError, match="amount: could not be read again"):
        await stored(Sloppy(aggregate_id=uuid4()))


def test_a_name_that_is_no_field_is_refused_when_the_event_is_made():
    with pytest.raises(ValidationError, match="typo"):
        Good(amount=1, typo=2)


async def test_a_stored_event_with_a_field_that_its_class_no_longer_has_is_read(store):
    class Before(Happened):
        event_type: str = "Happened"
        amount: int
        gone: str

    class After(Happened):
        event_type: str = "Happened"
        amount: int

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int = 0

    class Deep(Happened):
        event_type: str = "Happened"
        amount: int
        inner: Open = Open()

    store.codec.registry.register(Before)
    try:
        event = Before(aggregate_id=uuid4(), amount=1, gone="x")
        await store.append_events(event.aggregate_id, "Thing", [event])
        for later in (After, Deep):
            store.codec.registry.unregister("Happened")
            store.codec.registry.register(later)
            (found,) = (await store.get_events(event.aggregate_id, "Thing")).events
            assert (type(found), found.amount) == (later, 1)
        kept = Deep(aggregate_id=uuid4(), amount=1, inner=Open(a=1, more="m"))
        await store.append_events(kept.aggregate_id, "Thing", [kept])
        assert (await store.get_events(kept.aggregate_id, "Thing")).events == [kept]
    finally:
        store.codec.registry.unregister("Happened")


async def test_an_event_whose_class_is_not_registered_is_refused(store):
    class Forgotten(DomainEvent):
        aggregate_type: str = "Thing"

    event = Forgotten(aggregate_id=uuid4())
    with pytest.raises(InvalidEventError, match=r"'Forgotten' has no registered class.*@register_event"):
        await store.append_events(event.aggregate_id, "Thing", [event])
    store.codec.unknown_events = "untyped"
    await store.append_events(event.aggregate_id, "Thing", [event])


async def test_an_event_that_the_registered_class_could_not_read_is_refused(store):
    class Other(Happened):
        event_type: str = "Good"
        other: int

    store.codec.registry = EventRegistry()
    store.codec.registry.register(Other)
    event = Good(aggregate_id=uuid4())
    with pytest.raises(InvalidEventError, match="registered for .*Other, which could not read this Good"):
        await store.append_events(event.aggregate_id, "Thing", [event])


async def test_an_event_that_is_newer_than_its_class_is_neither_written_nor_read(store, stored):
    class Newer(Happened):
        event_type: str = "Happened"
        event_version: int = 2
        more: str = "m"

    class Older(Happened):
        event_type: str = "Happened"

    with pytest.raises(InvalidEventError, match="is 3, and Newer knows 2"):
        await stored(Newer(aggregate_id=uuid4(), event_version=3))
    event = Newer(aggregate_id=uuid4())
    await stored(event)
    store.codec.registry = EventRegistry()
    store.codec.registry.register(Older)
    with pytest.raises(EventDecodeError, match="its event_version is 2, this program knows 1"):
        await store.get_events(event.aggregate_id, "Thing")


async def test_an_older_version_that_its_upcasters_would_change_is_refused(stored):
    class Lifted(Happened):
        event_version: int = 2
        amount: int = 0

        @upcaster(from_version=1)
        def double(payload):
            return {**payload, "amount": 2 * payload["amount"]}

    with pytest.raises(InvalidEventError, match="comes back as another int"):
        await stored(Lifted(aggregate_id=uuid4(), event_version=1, amount=1))


def masked():
    class Secret(Happened):
        password: SecretStr

    return Secret


def iterated():
    class Iterated(Happened):
        items: Iterable[int]

    return Iterated


def rated():
    class Rated(Happened):
        rate: Rate

    return Rated


def keyed():
    class Keyed(Happened):
        cells: dict[tuple[int, int], str]

    return Keyed


def excluded():
    class Excluded(Happened):
        note: str = Field(exclude=True)

    return Excluded


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (masked, "Secret.password is a secret, which is written as asterisks"),
        (iterated, "Iterated.items is an iterator"),
        (rated, "Rated.rate is an enum whose member STANDARD does not come back"),
        (keyed, "Keyed.cells is a dict whose keys JSON cannot hold"),
        (excluded, "Excluded.note is excluded from what is written"),
    ],
)
def test_a_class_that_can_never_hold_is_told_when_it_is_registered(make, problem):
    with pytest.raises(InvalidOptionError, match=problem):
        EventRegistry().register(make())


async def test_a_secret_with_a_serializer_of_its_own_is_stored(stored):
    class Revealed(Happened):
        password: SecretStr

        @field_serializer("password")
        def reveal(self, value):
            return value.get_secret_value()

    event = Revealed(aggregate_id=uuid4(), password=SecretStr("x"))
    assert (await stored(event)).password.get_secret_value() == "x"


async def test_whatever_a_serializer_raises_is_an_error_that_names_the_field(store, stored):
    class Broken(Happened):
        value: int = 0

        @field_serializer("value")
        def look_up(self, value):
            return {}[value]

    with pytest.raises(InvalidEventError, match="value: cannot be written as JSON"):
        await stored(Broken(aggregate_id=uuid4()))
    assert await store.get_global_position() == 0


async def test_validators_that_change_nothing_more_are_no_obstacle(stored):
    class Checked(Happened):
        low: int
        high: int = 0

        @model_validator(mode="after")
        def check(self):
            assert self.low < 5
            return self

    event = Checked(aggregate_id=uuid4(), low=1)
    assert await stored(event) == event


class Address(BaseModel):
    email: Annotated[str, Personal()]


@dataclasses.dataclass
class Card:
    email: Annotated[str, Personal()]


class Contact(NamedTuple):
    email: Annotated[str, Personal()]


@pytest.mark.parametrize(
    "value", [Address(email="e"), Card("e"), Contact("e")], ids=lambda value: type(value).__name__
)
async def test_what_a_field_of_no_type_holds_is_not_stored_in_clear_if_it_is_personal(store, stored, value):
    for event in (
        event_of(Any, value),
        event_of(Any, {"deep": [value]}),
        Good(aggregate_id=uuid4(), metadata={"who": value}),
        event_of(int, 1, {"extra": "allow"})
        .model_copy(update={})
        .__class__.model_validate({"aggregate_id": uuid4(), "value": 1, "more": value}),
    ):
        with pytest.raises(InvalidEventError, match="which has personal fields"):
            await stored(event)
    assert await store.get_global_position() == 0


def test_what_types_prove_is_shown_for_all_registered_events():
    registry = EventRegistry()

    class Plain(DomainEvent):
        amount: Annotated[int, Field(gt=0)]
        at: datetime
        lines: list[Alike]

    class Open(DomainEvent):
        either: int | str
        one: Base

    registry.register(Plain)
    registry.register(Open)
    opened, plain = round_trips(registry)
    assert plain.is_proved
    assert set(opened.unproved) == {"either"}
    with pytest.raises(AssertionError, match="Open: its types do not prove it.*give an example"):
        assert_events_come_back(registry=registry)
    assert_events_come_back(Open(either="1", one=Base()), registry=registry)
    with pytest.raises(AssertionError, match="comes back as Base, not as Sub"):
        assert_events_come_back(Open(either="1", one=Sub()), registry=registry)


async def test_a_value_that_contains_itself_or_is_very_deep_is_refused(stored):
    cycle = []
    cycle.append(cycle)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, deep):
        with pytest.raises(InvalidEventError, match="metadata: cannot be written as JSON"):
            await stored(Good(aggregate_id=uuid4()).model_copy(update={"metadata": {"value": value}}))
