"""What a field gives an event for a tag, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeVar, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, RootModel, create_model
from typing_extensions import TypeAliasType, TypedDict

from esource import (
    AppendConditionError,
    DomainEvent,
    EventRegistry,
    InvalidEventError,
    InvalidOptionError,
    Query,
    QueryItem,
    Tag,
    register_event,
)
from esource.domain.queries import ITEM_TAGS, QUERY_ITEMS, AppendCondition
from esource.domain.tags import declared_tags, given_tags, tagged_fields
from esource.privacy import Personal

COURSE = UUID("0190163d-8694-739b-aea5-966c26f8ad91")


class Level(Enum):
    BEGINNER = "beginner"


class Enrolled(DomainEvent):
    aggregate_type: str = "Enrolment"
    course_id: Annotated[UUID, Tag("course")]
    student_id: Annotated[str | None, Tag("student")] = None
    seat: Annotated[int, Tag("seat")] = 1
    level: Annotated[Level, Tag("level")] = Level.BEGINNER
    helpers: Annotated[list[str], Tag("helper")] = []


def test_a_marked_field_gives_its_event_a_tag_of_its_value() -> None:
    event = Enrolled(course_id=COURSE, student_id="s1", helpers=["a", "b"])
    assert declared_tags(event) == {
        f"course:{COURSE}",
        "student:s1",
        "seat:1",
        "level:beginner",
        "helper:a",
        "helper:b",
    }
    assert Tag("course").of(COURSE) in declared_tags(event)


def test_a_field_without_a_value_gives_none() -> None:
    assert declared_tags(Enrolled(course_id=COURSE)) == {f"course:{COURSE}", "seat:1", "level:beginner"}


def test_a_subclass_has_the_tags_of_its_base() -> None:
    class Waitlisted(Enrolled):
        pass

    assert "course:" + str(COURSE) in declared_tags(Waitlisted(course_id=COURSE))


def test_a_personal_field_is_refused_as_a_tag_when_its_class_is_registered() -> None:
    class Registered(DomainEvent):
        aggregate_type: str = "Person"
        email: Annotated[str, Tag("email"), Personal()]

    with pytest.raises(InvalidOptionError, match="email is personal"):
        EventRegistry().register(Registered)


def test_a_mark_inside_of_a_type_is_refused_when_its_class_is_registered() -> None:
    class Marked(DomainEvent):
        aggregate_type: str = "Course"
        course_id: Annotated[str, Tag("course")] | None = None

    with pytest.raises(InvalidOptionError, match="mark the whole field"):
        EventRegistry().register(Marked)


CourseId = TypeAliasType("CourseId", Annotated[str, Tag("course")])
Named = TypeAliasType("Named", CourseId)
T = TypeVar("T")
Several = TypeAliasType("Several", list[T], type_params=(T,))
Tree = TypeAliasType("Tree", "list[Tree] | str")


@register_event
class Titled(DomainEvent):
    course_id: CourseId


class Part(BaseModel):
    course_id: Annotated[str, Tag("course")]
    parts: list[Part] = []


@dataclass
class DataPart:
    course_id: CourseId


class DictPart(TypedDict):
    course_id: Annotated[str, Tag("course")]


class TuplePart(NamedTuple):
    course_id: Annotated[str, Tag("course")]


@pytest.mark.parametrize("kind", [CourseId, Named, Annotated[CourseId, Field(min_length=1)]])
def test_an_alias_marks_a_field_as_the_type_does_that_it_names(kind) -> None:
    given = create_model("Given", __base__=DomainEvent, course_id=(kind, ...))
    assert EventRegistry().register(given)
    assert declared_tags(given(course_id="c1")) == {"course:c1"}


async def test_an_event_is_stored_with_the_tag_of_its_alias(store) -> None:
    await store.append([Titled(course_id="c1")])
    assert [stored.tags async for stored in store.read_all()] == [{"course:c1"}]
    found = await store.read_query(Query(QueryItem(tags=["course:c1"])))
    assert [stored.global_position for stored in found.events] == [1]


@pytest.mark.parametrize(
    "kind", [Tree, Several[str], Several[Several[int]] | None, type[int], Any, list["Level"]]
)
def test_types_without_a_mark_give_no_tag(kind) -> None:
    assert tagged_fields(create_model("Plain", __base__=DomainEvent, value=(kind, ...))) == ()


@pytest.mark.parametrize(
    "kind",
    [
        *(Union[CourseId, None], list[Named]),  # noqa: UP007 - Python 3.10 has no | of an alias
        *(Several[CourseId], Several[Annotated[str, Tag("course")]]),
        *(Part, Part | None, dict[str, list[Part]], RootModel[CourseId], DataPart, DictPart, TuplePart),
    ],
    ids=str,
)
def test_a_mark_inside_of_an_alias_or_another_class_is_refused(kind) -> None:
    given = create_model("Given", __base__=DomainEvent, value=(kind, ...))
    with pytest.raises(InvalidOptionError, match=r"Given.value .* mark the whole field of the event"):
        EventRegistry().register(given)


def test_a_mark_without_a_name_is_refused_when_its_class_is_registered() -> None:
    given = create_model("Given", __base__=DomainEvent, value=(Annotated[str, Tag], ...))
    with pytest.raises(InvalidOptionError, match="Given.value is marked with Tag itself"):
        EventRegistry().register(given)


@pytest.mark.parametrize("name", ["", "a:b", 5, "x" * 256, "nul\x00"])
def test_what_is_no_name_of_a_tag_is_refused(name: object) -> None:
    with pytest.raises(InvalidOptionError):
        Tag(name)  # type: ignore[arg-type]


def test_a_value_that_makes_no_tag_is_refused_with_its_field() -> None:
    class Priced(DomainEvent):
        aggregate_type: str = "Product"
        price: Annotated[float, Tag("price")]

    with pytest.raises(InvalidEventError, match="price: is 0.5, of which no tag can be made"):
        declared_tags(Priced(price=0.5))


def test_a_tag_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidEventError, match="has 307 characters, the limit is 255"):
        declared_tags(Enrolled(course_id=COURSE, student_id="x" * 299))


@pytest.mark.parametrize("tags", ["course:c1", ["x" * 256], [5], [""], [None], 7])
def test_tags_that_are_none_are_refused(tags: object) -> None:
    with pytest.raises(InvalidOptionError):
        given_tags(tags)  # type: ignore[arg-type]


def test_types_are_alternatives_and_tags_are_all_needed() -> None:
    query = Query(QueryItem(types=["A", "B"], tags=["x", "y"]), QueryItem(tags=["z"]))
    assert query.matches("A", {"x", "y", "other"})
    assert query.matches("B", {"y", "x"})
    assert query.matches("C", {"z"})
    assert not query.matches("C", {"x", "y"})
    assert not query.matches("A", {"x"})
    assert Query(QueryItem()).matches("anything", set())


def test_a_class_stands_for_what_is_read_as_it() -> None:
    registry = EventRegistry()
    registry.register(Enrolled)
    registry.register(Enrolled, "OldEnrolled")
    named = Query(QueryItem(types=[Enrolled])).named(registry)
    assert named == Query(QueryItem(types=["Enrolled", "OldEnrolled"]))


def test_a_query_without_items_is_refused() -> None:
    with pytest.raises(InvalidOptionError, match="QueryItem"):
        Query()
    with pytest.raises(InvalidOptionError):
        Query("course:c1")  # type: ignore[arg-type]


async def test_a_query_of_as_much_as_it_takes_selects_and_one_more_is_refused(store) -> None:
    tags = [f"t{number}" for number in range(QUERY_ITEMS + 1)]
    many = Query(*(QueryItem(tags=[tag]) for tag in tags[:QUERY_ITEMS]))
    of_all = Query(QueryItem(tags=tags[:ITEM_TAGS]))
    for head, query in enumerate((many, of_all)):
        await store.append([Titled(course_id="c1")], tags=tags, condition=AppendCondition(query, head))
        found = await store.read_query(query)
        assert [stored.global_position for stored in found.events] == [*range(1, found.head + 1)]
        with pytest.raises(AppendConditionError):
            await store.append([Titled(course_id="c1")], condition=AppendCondition(query, 0))
    with pytest.raises(InvalidOptionError, match="at most 100 items, not 101"):
        many | of_all
    with pytest.raises(InvalidOptionError, match="at most 100 tags, not 101"):
        QueryItem(tags=tags)


@pytest.mark.parametrize("name", ["nul\x00", "\ud800", "", "x" * 256])
def test_names_that_no_event_has_are_refused_when_a_condition_is_made(name: str) -> None:
    with pytest.raises(
        InvalidOptionError, match="names that can be stored|of a QueryItem: (is empty|has 256)"
    ):
        QueryItem(types=["A", name])
    with pytest.raises(InvalidOptionError, match="the aggregate type of a stream: (holds|is empty|has 256)"):
        AppendCondition(streams={(COURSE, name): 0})


async def test_names_that_are_unusual_are_selected_by(store) -> None:
    name = "größer \U0001f600 '\"\\u0000"
    condition = AppendCondition(Query(QueryItem(types=[name])), 0, {(COURSE, name): 0})
    assert await store.append([Titled(course_id="c1")], condition=condition)


def test_a_condition_without_a_head_says_where_to_get_one() -> None:
    with pytest.raises(InvalidOptionError, match=r"QueryResult\.head"):
        AppendCondition(Query(QueryItem(tags=["x"])))
    with pytest.raises(InvalidOptionError, match="a query, or streams"):
        AppendCondition()
    with pytest.raises(InvalidOptionError, match="streams must be"):
        AppendCondition(streams={"no stream": 1})  # type: ignore[dict-item]
