"""eventsourcing's dynamic consistency boundaries on PostgreSQL, with its MessagePack mapper and its enduring objects."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from uuid import UUID

from eventsourcing.dcb.application import DCBApplication
from eventsourcing.dcb.domain import EnduringObject, Group, Selector, Tagged
from eventsourcing.dcb.msgpack import Decision, InitialDecision
from eventsourcing.domain import event
from eventsourcing.persistence import IntegrityError

from bench.contenders.base import CONTENT, BlockingContender, Items, Target, server_address


class LineAdded(Decision):
    customer: str
    product: str
    quantity: int
    price: float
    reference: UUID
    note: str


class Joined(Decision):
    student_id: str
    course_id: str


class Student(EnduringObject[Decision]):
    class Registered(InitialDecision):
        student_id: str
        places: int

    @event(Registered)
    def __init__(self, *, places: int) -> None:
        self.places = places
        self.courses: list[str] = []

    @event(Joined)
    def _(self, course_id: str) -> None:
        self.courses.append(course_id)


class Course(EnduringObject[Decision]):
    class Defined(InitialDecision):
        course_id: str
        places: int

    @event(Defined)
    def __init__(self, *, places: int) -> None:
        self.places = places
        self.students: list[str] = []

    @event(Joined)
    def _(self, student_id: str) -> None:
        self.students.append(student_id)


class Enrolment(Group[Decision]):
    def __init__(self, student: Student, course: Course) -> None:
        self.student, self.course = student, course

    def join(self) -> None:
        student, course = self.student, self.course
        if len(student.courses) >= student.places or len(course.students) >= course.places:
            raise ValueError("no place is left")
        if course.id in student.courses:
            raise ValueError("the student has joined already")
        self.trigger_event(Joined, student_id=student.id, course_id=course.id)


class EventSourcingDCB(BlockingContender):
    conflicts = (IntegrityError,)

    async def open(self, target: Target) -> None:
        address = server_address(target.address)
        self.app = DCBApplication(
            {
                "PERSISTENCE_MODULE": "eventsourcing.dcb.postgres_tt",
                "MAPPER_TOPIC": "eventsourcing.dcb.msgpack:MessagePackMapper",
                "POSTGRES_POOL_SIZE": str(target.writers),
                "POSTGRES_MAX_OVERFLOW": "0",
                "CREATE_TABLE": "no" if target.ready else "yes",
                **{f"POSTGRES_{name.upper()}": value for name, value in address.items()},
            }
        )

    async def close(self) -> None:
        self.app.close()

    async def durability(self) -> dict[str, str]:
        found = {}
        with self.app.recorder.datastore.transaction(commit=True) as cursor:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                cursor.execute(f"SHOW {name}")
                found[name] = cursor.fetchone()[name]
        return found

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("eventsourcing", "psycopg", "msgspec")}

    def event(self, stream: Any, version: int) -> Any:
        return LineAdded(**CONTENT)

    async def append_if(self, event: Any, tags: tuple[str, ...], items: Items, after: int) -> int:
        return self.app.events.append([Tagged(list(tags), event)], _selectors(items), after)

    async def read_decision(self, items: Items) -> int:
        found = self.app.events.read(_selectors(items))
        count = sum([tagged.decision.quantity > 0 for tagged in found])
        assert found.head is not None
        return count

    async def enrol(self, students: list[str], courses: list[str]) -> int:
        repository = self.app.repository
        made: list[list[Any]] = [[Student(places=len(courses)) for _ in students]]
        made.append([Course(places=len(students)) for _ in courses])
        for each in (*made[0], *made[1]):
            repository.save(each)
        for student in made[0]:
            for course in made[1]:
                enrolment = repository.get_group(Enrolment, student.id, course.id)
                enrolment.join()
                repository.save(enrolment)
        return len(students) + len(courses) + len(students) * len(courses)


def _selectors(items: Items) -> list[Selector]:
    return [Selector(types=[LineAdded], tags=tags) for tags in items]
