"""Declared types decide; the rules by name are for values that have none."""

import json
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field, model_validator
from support.orders import placed
from typing_extensions import TypedDict

from esource import DomainEvent, EventRegistry, SQLiteEventStore

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
IDS = {"a": ID, "parent_id": ID, "list_id": [ID, "x"], "deep": {"user_id": ID, "name": ID}}


class Labels(TypedDict):
    owner_id: str
    rest: Any


class Part(BaseModel):
    part_id: str
    more: dict[str, Any] = {}


class Note(DomainEvent):
    event_type: str = "Note"
    aggregate_type: str = "Note"


async def round_trip(store, event):
    registry = EventRegistry()
    registry.register(type(event))
    store.codec.registry = registry
    await store.append_events(event.aggregate_id, event.aggregate_type, [event])
    return (await store.get_events(event.aggregate_id, event.aggregate_type)).events[-1]


async def test_a_declared_text_stays_text_whatever_its_name(store):
    event = placed(customer_id=ID)
    found = await round_trip(store, event)
    assert found == event
    assert type(found.customer_id) is str


class Declared(Note):
    event_type: str = "Note"
    customer_id: str
    optional_id: str | None = None
    either_id: str | dict[str, Any] = ""
    list_id: list[str] = []
    mixed_id: list[str | dict[str, Any]] = []
    annotated_id: Annotated[str | list[Any], BeforeValidator(lambda value: value)] = ""
    inner_id: Annotated[str, "of the shop"] | list[Any] = ""
    by_id: dict[str, str] = {}
    labels: Labels | None = None
    part: Part | None = None
    pair_id: tuple[str, Any] = ("", None)
    real_id: UUID | None = None
    created_at: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)


async def test_types_decide_however_deep_they_are_declared(store):
    event = Declared(
        aggregate_id=uuid4(),
        customer_id=ID,
        optional_id=ID,
        either_id=ID,
        list_id=[ID],
        mixed_id=[ID],
        annotated_id=ID,
        inner_id=ID,
        by_id={"user_id": ID},
        labels={"owner_id": ID, "rest": 1},
        part=Part(part_id=ID),
        pair_id=(ID, 1),
        real_id=UUID(ID),
        created_at="2024-01-01T00:00:00+00:00",
        metadata={"user_id": ID},
    )
    found = await round_trip(store, event)
    assert found == event
    assert type(found.real_id) is UUID


class Loose(Note):
    event_type: str = "Note"
    parent_id: Any = None
    values: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    noted: list[Annotated[dict[str, Any], "by hand"]] = []
    maybe: dict[str, Any] | None = None
    either_id: int | dict[str, Any] = 0
    bare: dict = {}


async def test_names_decide_where_no_type_is_declared(store):
    event = Loose(
        aggregate_id=uuid4(),
        parent_id=ID,
        values=IDS,
        rows=[{"user_id": ID}],
        noted=[{"user_id": ID}],
        maybe={"user_id": ID, "stripe_id": "cus_1"},
        either_id={"user_id": ID},
        bare={"user_id": ID},
        metadata={"user_id": ID, "note": ID},
    )
    found = await round_trip(store, event)
    i = UUID(ID)
    assert found.noted == [{"user_id": i}]
    assert found.parent_id == i
    assert found.values == {
        "a": ID,
        "parent_id": i,
        "list_id": [i, "x"],
        "deep": {"user_id": i, "name": ID},
    }
    assert found.rows == [{"user_id": i}]
    assert found.maybe == {"user_id": i, "stripe_id": "cus_1"}
    assert found.either_id == found.bare == {"user_id": i}
    assert found.metadata == event.metadata


async def test_text_of_36_characters_that_is_no_plain_uuid_stays_text(store):
    strange = ["-" * 4 + ID.replace("-", ""), "{" + ID.replace("-", "") + "}--", "z" * 36]
    event = Loose(aggregate_id=uuid4(), values={"some_id": strange, "upper_id": ID.upper()})
    found = await round_trip(store, event)
    assert found.values == {"some_id": strange, "upper_id": UUID(ID)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"user_id", "stripe_id"}),
        ({"uuid_fields": {"reference"}}, {"user_id", "stripe_id", "reference"}),
        ({"string_id_fields": {"stripe_id"}}, {"user_id"}),
        ({"auto_detect_uuid": False}, set()),
        ({"auto_detect_uuid": False, "uuid_fields": {"reference"}}, {"reference"}),
        ({"uuid_fields": {"user_id"}, "string_id_fields": {"user_id"}}, {"stripe_id"}),
    ],
)
async def test_the_store_s_options_say_which_names(database_url, open_stores, options, expected):
    store = await open_stores(database_url, **options)
    values = {name: ID for name in ("user_id", "stripe_id", "reference", "other")}
    found = await round_trip(store, Loose(aggregate_id=uuid4(), values=values, metadata=values))
    assert {name for name, value in found.values.items() if isinstance(value, UUID)} == expected
    # In metadata nothing is guessed: only names that were given hold UUIDs.
    named = options.get("uuid_fields", set()) - options.get("string_id_fields", set())
    assert {name for name, value in found.metadata.items() if isinstance(value, UUID)} == named & expected


async def test_metadata_comes_back_as_it_was_stored_and_is_json(store):
    metadata = {"user_id": ID, "deep": {"trace_id": ID, "list_id": [ID]}}
    found = await round_trip(store, Loose(aggregate_id=uuid4(), metadata=metadata))
    assert json.loads(json.dumps(found.metadata)) == found.metadata == metadata
    given = await round_trip(store, Loose(aggregate_id=uuid4(), metadata={"user_id": UUID(ID)}))
    assert given.metadata == {"user_id": ID}


async def test_strict_detection_reads_only_the_names_given():
    async with SQLiteEventStore.with_strict_uuid_detection(":memory:", uuid_fields={"reference"}) as store:
        await store.initialize()
        values = {"user_id": ID, "reference": ID}
        found = await round_trip(store, Loose(aggregate_id=uuid4(), values=values))
        assert found.values == {"user_id": ID, "reference": UUID(ID)}


async def test_an_event_read_without_its_class_goes_by_names(store):
    store.codec.registry, store.codec.unknown_events = EventRegistry(), "untyped"
    event = placed(customer_id=ID)
    await store.append_events(event.aggregate_id, "Order", [event])
    (found,) = [stored.event async for stored in store.read_all()]
    assert found.customer_id == UUID(ID)


class Open(Note):
    model_config = ConfigDict(extra="allow")
    event_type: str = "Note"
    customer_id: str = ""


async def test_extra_fields_go_by_names(store):
    event = Open(aggregate_id=uuid4(), customer_id=ID, user_id=ID, nested={"user_id": ID}, note="n")
    found = await round_trip(store, event)
    assert (found.customer_id, found.user_id, found.note) == (ID, UUID(ID), "n")
    assert found.nested == {"user_id": UUID(ID)}


class Closed(Note):
    model_config = ConfigDict(extra="forbid")
    event_type: str = "Note"
    amount: int


async def test_a_class_that_forbids_extra_fields_is_read(store):
    event = Closed(aggregate_id=uuid4(), amount=1, metadata={"a": 1})
    assert await round_trip(store, event) == event


class Camel(Note):
    model_config = ConfigDict(
        alias_generator=lambda name: name.title().replace("_", ""), populate_by_name=True
    )
    event_type: str = "Note"
    unit_price: int
    sku: str = Field(default="", validation_alias="SKU", serialization_alias="stock-unit")


async def test_aliases_do_not_matter_to_what_is_stored(store):
    event = Camel(aggregate_id=uuid4(), unit_price=2, SKU="s")
    assert event.sku == "s"
    assert await round_trip(store, event) == event
    (stored,) = [stored async for stored in store.read_all()]
    assert '"unit_price"' in stored.payload


class Swapped(Note):
    event_type: str = "Note"
    first: int = Field(alias="second")
    second: int = Field(alias="first")


async def test_an_alias_that_is_another_field_s_name_swaps_nothing(store):
    event = Swapped(aggregate_id=uuid4(), first=1, second=2)
    assert (event.first, event.second) == (2, 1)
    assert await round_trip(store, event) == event


class Computed(Note):
    model_config = ConfigDict(extra="forbid")
    event_type: str = "Note"
    net: int

    @computed_field
    @property
    def gross(self) -> int:
        return self.net * 2


async def test_a_computed_field_is_not_stored(store):
    event = Computed(aggregate_id=uuid4(), net=2)
    found = await round_trip(store, event)
    assert (found, found.gross) == (event, 4)


class Checked(Note):
    event_type: str = "Note"
    low: int
    high: int

    @model_validator(mode="before")
    @classmethod
    def fill(cls, data):
        return {"high": data["low"] + 1, **data}

    @model_validator(mode="after")
    def check(self):
        if self.low >= self.high:
            raise ValueError("low must be below high")
        return self


async def test_model_validators_run_on_reading(store):
    event = Checked(aggregate_id=uuid4(), low=1)
    assert await round_trip(store, event) == event
    assert event.high == 2


class Line(BaseModel):
    unit_price: int = Field(alias="unitPrice")


class Priced(Note):
    event_type: str = "Note"
    lines: list[Line]


async def test_aliases_inside_a_nested_model_do_not_matter_either(store):
    event = Priced(aggregate_id=uuid4(), lines=[Line(unitPrice=2)])
    assert await round_trip(store, event) == event
