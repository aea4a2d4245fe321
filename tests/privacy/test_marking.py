"""How fields may be marked; what cannot be kept is refused before anything is written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from esource import DomainEvent, InMemoryEventStore, InvalidEventError
from esource.errors import InvalidOptionError, MissingDriverError
from esource.privacy import InMemoryKeyStore, KeyStore, Personal
from esource.privacy.fields import personal_fields


class Marked(BaseModel):
    street: Annotated[str, Personal()]


@dataclass
class MarkedData:
    street: Annotated[str, Personal()]


class Base(DomainEvent):
    aggregate_type: str = "A"


class Inside(Base):
    name: Annotated[str, Personal()] | None


class InList(Base):
    names: list[Annotated[str, Personal()]]


class InModel(Base):
    address: dict[str, Marked]


class InDataclass(Base):
    address: MarkedData


class MarkedDict(TypedDict):
    street: Annotated[str, Personal()]


class MarkedTuple(NamedTuple):
    street: Annotated[str, Personal()]


class InTypedDict(Base):
    address: list[MarkedDict]


class InNamedTuple(Base):
    address: MarkedTuple | None = None


class InTree(Base):
    address: Tree


class Tree(BaseModel):
    children: list[Tree] = []
    marked: MarkedDict


InTree.model_rebuild()


class NoPlaceholder(Base):
    age: Annotated[int, Personal()]


class OfNobody(Base):
    name: Annotated[str, Personal(subject="person")]


class OfSecret(Base):
    person: Annotated[str, Personal()]
    name: Annotated[str, Personal(subject="person")]


class Column(Base):
    actor_id: Annotated[str | None, Personal()] = None


class Version(Base):
    event_version: Annotated[int, Personal(placeholder=1)] = 1


@pytest.mark.parametrize(
    ("event_class", "says"),
    [
        (Inside, "mark the whole field"),
        (InList, "mark the whole field"),
        (InModel, "mark the whole field"),
        (InDataclass, "mark the whole field"),
        (InTypedDict, "mark the whole field"),
        (InNamedTuple, "mark the whole field"),
        (InTree, "mark the whole field"),
        (NoPlaceholder, "placeholder="),
        (OfNobody, "must name a field"),
        (OfSecret, "must name a field"),
        (Column, "cannot be personal"),
        (Version, "cannot be personal"),
    ],
)
async def test_marks_that_cannot_be_kept_are_refused(event_class, says):
    with pytest.raises(InvalidOptionError, match=says):
        personal_fields(event_class)
    async with InMemoryEventStore(key_store=InMemoryKeyStore()) as store:
        event = event_class.model_construct(aggregate_id=uuid4(), aggregate_type="A", event_type="X")
        with pytest.raises(InvalidOptionError, match=says):
            await store.append_events(event.aggregate_id, "A", [event])


class Short(Base):
    code: Annotated[str, Field(max_length=5), Personal()]


class Checked(Base):
    email: Annotated[str, Personal()]

    @field_validator("email")
    @classmethod
    def has_at(cls, value: str) -> str:
        if "@" not in value:
            raise ValueError(f"no address: {value}")
        return value


@pytest.mark.parametrize(
    "event", [Short(aggregate_id=uuid4(), code="abc"), Checked(aggregate_id=uuid4(), email="a@b")]
)
async def test_a_placeholder_that_the_class_would_not_take_is_found_before_the_first_append(event):
    async with InMemoryEventStore(key_store=InMemoryKeyStore()) as store:
        with pytest.raises(InvalidOptionError, match="once its personal fields are erased"):
            await store.append_events(event.aggregate_id, "A", [event])
        assert await store.get_global_position() == 0


class Kinds(Base):
    anything: Annotated[Any, Personal()]
    either: Annotated[int | str, Personal()]
    maybe: Annotated[int | None, Field(gt=0), Personal()]
    given: Annotated[list[int], Personal(placeholder=[])]
    metadata: Annotated[dict[str, Any], Personal(placeholder={})] = Field(default_factory=dict)


async def test_any_type_can_be_personal():
    keys = InMemoryKeyStore()
    event = Kinds(
        aggregate_id=uuid4(),
        anything=[{"a": 1.5}],
        either=3,
        maybe=4,
        given=[1],
        metadata={"x_id": str(uuid4())},
    )
    async with InMemoryEventStore(key_store=keys) as store:
        store.event_registry.register(Kinds)
        try:
            await store.append_events(event.aggregate_id, "A", [event])
            [found] = (await store.get_events(event.aggregate_id, "A")).events
            assert (found.anything, found.either, found.maybe, found.given) == ([{"a": 1.5}], 3, 4, [1])
            assert found.metadata == event.metadata
            await keys.destroy(event.aggregate_id)
            [found] = (await store.get_events(event.aggregate_id, "A")).events
            assert (found.anything, found.either, found.maybe) == (None, "[erased]", None)
            assert (found.given, found.metadata) == ([], {})
        finally:
            store.event_registry.unregister("Kinds")


class OfText(Base):
    person: str | None
    name: Annotated[str, Personal(subject="person")]


@pytest.mark.parametrize("person", [None, "", "x" * 256, "a\x00"])
async def test_a_subject_is_an_id(person):
    event = OfText.model_construct(
        **dict(OfText(aggregate_id=uuid4(), person="x", name="y")) | {"person": person}
    )
    async with InMemoryEventStore(key_store=InMemoryKeyStore()) as store:
        with pytest.raises(InvalidEventError, match="person: says whose"):
            await store.append_events(event.aggregate_id, "A", [event])


async def test_only_ids_can_be_destroyed():
    for wrong in (None, "", 1.5, True, "x" * 256):
        with pytest.raises(InvalidOptionError):
            await InMemoryKeyStore().destroy(wrong)


def test_options_that_make_no_sense_are_refused():
    for options in ({"cached_keys": 0}, {"cache_seconds": 0}):
        with pytest.raises(InvalidOptionError):
            InMemoryKeyStore(**options)
    with pytest.raises(InvalidOptionError, match=r"esource.privacy"):
        InMemoryEventStore(key_store="keys.db")
    assert issubclass(InMemoryKeyStore, KeyStore)


def test_esource_does_not_import_the_cipher():
    code = "import sys, esource, esource.privacy; print('cryptography' in sys.modules, 'cachetools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == [
        "False",
        "False",
    ]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingDriverError, match=r"esource\[privacy\]"):
        InMemoryKeyStore()


async def test_the_cache_of_keys_is_bounded():
    keys = InMemoryKeyStore(cached_keys=3)
    for _ in range(5):
        await keys.keys_to_seal([OfText(aggregate_id=uuid4(), person=str(uuid4()), name="y")])
    assert len(keys._cache) == 3


async def test_a_key_that_expires_while_it_is_looked_up_is_loaded_again():
    """Each look at the clock takes a second, so that entries expire between any two lines."""
    from cachetools import TTLCache

    class Counting(InMemoryKeyStore):
        loads = 0

        async def load(self, subjects):
            self.loads += 1
            return await super().load(subjects)

    keys = Counting()
    subjects = {"a", "b", "c"}
    before = {subject: (await keys._get({subject}, make=True))[subject] for subject in subjects}
    for seconds in range(1, 12):
        moment = iter(range(10_000))
        keys._cache = TTLCache(10, seconds, timer=lambda moment=moment: next(moment))
        for _ in range(10):
            found = await keys._get(subjects, make=False)
            assert {subject: found[subject] for subject in subjects} == before
        await keys.destroy("nobody")
    assert keys.loads > 11
