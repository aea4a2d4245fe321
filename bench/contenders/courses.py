"""The enrolment of students for courses with esource: the views, and the decisions over them."""

from __future__ import annotations

from typing import Annotated

from bench.contenders.base import Items
from bench.contenders.typed import LineAdded
from esource import DomainEvent, Query, QueryItem, Tag, View, handles, register_event

COURSE, STUDENT = Tag("course"), Tag("student")


def query_of(items: Items) -> Query:
    """The query over the events that all workloads append."""
    return Query(*(QueryItem([LineAdded], tags) for tags in items))


@register_event
class StudentRegistered(DomainEvent):
    student: Annotated[str, STUDENT]
    places: int


@register_event
class CourseDefined(DomainEvent):
    course: Annotated[str, COURSE]
    places: int


@register_event
class StudentJoined(DomainEvent):
    student: Annotated[str, STUDENT]
    course: Annotated[str, COURSE]


class Student(View):
    places = 0

    def __init__(self, key: str) -> None:
        super().__init__(STUDENT.of(key))
        self.key = key
        self.courses: list[str] = []

    @handles
    def registered(self, event: StudentRegistered) -> None:
        self.places = event.places

    @handles
    def joined(self, event: StudentJoined) -> None:
        self.courses.append(event.course)


class Course(View):
    places = 0

    def __init__(self, key: str) -> None:
        super().__init__(COURSE.of(key))
        self.key = key
        self.students: list[str] = []

    @handles
    def defined(self, event: CourseDefined) -> None:
        self.places = event.places

    @handles
    def joined(self, event: StudentJoined) -> None:
        self.students.append(event.student)


def register(student: Student, places: int) -> StudentRegistered:
    if student.places:
        raise ValueError("the student is registered already")
    return StudentRegistered(student=student.key, places=places)


def define(course: Course, places: int) -> CourseDefined:
    if course.places:
        raise ValueError("the course exists already")
    return CourseDefined(course=course.key, places=places)


def join(student: Student, course: Course) -> StudentJoined:
    if len(student.courses) >= student.places or len(course.students) >= course.places:
        raise ValueError("no place is left")
    if course.key in student.courses:
        raise ValueError("the student has joined already")
    return StudentJoined(student=student.key, course=course.key)
