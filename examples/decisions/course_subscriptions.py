"""A course has room for so many students, and a student takes part in five courses at most.

Neither rule belongs to the course or to the student alone: each subscription is decided over both.
"""

import asyncio
import sys
from typing import Annotated

from esource import DomainEvent, EventStore, Tag, View, handles, open_store, register_event

COURSE = Tag("course")
STUDENT = Tag("student")
MOST_COURSES = 5


@register_event
class CourseDefined(DomainEvent):
    course_id: Annotated[str, COURSE]
    capacity: int


@register_event
class CourseCapacityChanged(DomainEvent):
    course_id: Annotated[str, COURSE]
    new_capacity: int


@register_event
class StudentSubscribedToCourse(DomainEvent):
    student_id: Annotated[str, STUDENT]
    course_id: Annotated[str, COURSE]


class RefusedError(Exception):
    """What the rules do not allow."""


class Course(View):
    def __init__(self, course_id: str) -> None:
        super().__init__(COURSE.of(course_id))
        self.course_id = course_id
        self.exists = False
        self.capacity = 0
        self.students: set[str] = set()

    @handles
    def defined(self, event: CourseDefined) -> None:
        self.exists = True
        self.capacity = event.capacity

    @handles
    def changed(self, event: CourseCapacityChanged) -> None:
        self.capacity = event.new_capacity

    @handles
    def subscribed(self, event: StudentSubscribedToCourse) -> None:
        self.students.add(event.student_id)


class Student(View):
    def __init__(self, student_id: str) -> None:
        super().__init__(STUDENT.of(student_id))
        self.student_id = student_id
        self.courses = 0

    @handles
    def subscribed(self, event: StudentSubscribedToCourse) -> None:
        self.courses += 1


def define(course: Course, capacity: int) -> CourseDefined:
    if course.exists:
        raise RefusedError(f'Course with id "{course.course_id}" already exists')
    return CourseDefined(course_id=course.course_id, capacity=capacity)


def change_capacity(course: Course, new_capacity: int) -> CourseCapacityChanged:
    if not course.exists:
        raise RefusedError(f'Course "{course.course_id}" does not exist')
    if new_capacity == course.capacity:
        raise RefusedError(f"New capacity {new_capacity} is the same as the current capacity")
    return CourseCapacityChanged(course_id=course.course_id, new_capacity=new_capacity)


def subscribe(course: Course, student: Student) -> StudentSubscribedToCourse:
    if not course.exists:
        raise RefusedError(f'Course "{course.course_id}" does not exist')
    if len(course.students) >= course.capacity:
        raise RefusedError(f'Course "{course.course_id}" is already fully booked')
    if student.student_id in course.students:
        raise RefusedError("Student already subscribed to this course")
    if student.courses >= MOST_COURSES:
        raise RefusedError(f"Student already subscribed to {MOST_COURSES} courses")
    return StudentSubscribedToCourse(student_id=student.student_id, course_id=course.course_id)


async def main(store: EventStore) -> None:
    await store.decide(lambda course: define(course, 2), Course("c1"))
    await store.decide(lambda course: change_capacity(course, 3), Course("c1"))

    async def try_to_subscribe(student_id: str) -> bool:
        try:
            await store.decide(subscribe, Course("c1"), Student(student_id))
        except RefusedError:
            return False
        return True

    # Ten at once, for three places.
    taken = await asyncio.gather(*(try_to_subscribe(f"s{number}") for number in range(10)))
    print(f"{sum(taken)} of {len(taken)} students have a place")


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
