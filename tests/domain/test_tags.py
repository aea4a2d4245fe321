"""What a field gives an event for a tag, and what is refused."""

from __future__ import annotations

from enum import Enum
from typing import Annotated
from uuid import UUID

import pytest

from esource import DomainEvent, EventRegistry, InvalidEventError, InvalidOptionError, Query, QueryItem, Tag
from esource.domain.queries import AppendCondition
from esource.domain.tags import declared_tags, given_tags
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


def test_a_condition_without_a_head_says_where_to_get_one() -> None:
    with pytest.raises(InvalidOptionError, match=r"QueryResult\.head"):
        AppendCondition(Query(QueryItem(tags=["x"])))
    with pytest.raises(InvalidOptionError, match="a query, or streams"):
        AppendCondition()
    with pytest.raises(InvalidOptionError, match="streams must be"):
        AppendCondition(streams={"no stream": 1})  # type: ignore[dict-item]
