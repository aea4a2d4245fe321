"""A course as an aggregate: one stream, one object, the commands beside the state.

Its events are those of `course_subscriptions.py`, with the same tags, so that queries find them, too. But an aggregate sees
only its stream, and what a decision over views appends has a stream of its own. Write one kind of events in one way.
"""

import asyncio
import sys
from uuid import UUID, uuid5

from course_subscriptions import (
    COURSE,
    CourseCapacityChanged,
    CourseDefined,
    RefusedError,
    StudentSubscribedToCourse,
)
from pydantic import BaseModel

from esource import (
    AggregateRepository,
    DeclarativeAggregate,
    EventStore,
    Query,
    QueryItem,
    handles,
    open_store,
)

COURSES = UUID("6ec3d37d-5d3f-4b0b-93c1-7f2b7a4a5c1e")


def stream_of(course_id: str) -> UUID:
    """The id of a course's stream."""
    return uuid5(COURSES, course_id)


class CourseState(BaseModel):
    course_id: str = ""
    capacity: int = 0
    subscriptions: int = 0


class CourseAggregate(DeclarativeAggregate[CourseState]):
    @handles
    def _defined(self, event: CourseDefined) -> None:
        self.current.course_id = event.course_id
        self.current.capacity = event.capacity

    @handles
    def _changed(self, event: CourseCapacityChanged) -> None:
        self.current.capacity = event.new_capacity

    @handles
    def _subscribed(self, event: StudentSubscribedToCourse) -> None:
        self.current.subscriptions += 1

    def define(self, course_id: str, capacity: int) -> None:
        if self.version:
            raise RefusedError(f'Course with id "{course_id}" already exists')
        self.apply_event(CourseDefined(course_id=course_id, capacity=capacity))

    def change_capacity(self, new_capacity: int) -> None:
        course = self.current
        if new_capacity == course.capacity:
            raise RefusedError(f'Course "{course.course_id}" already has a capacity of {new_capacity}')
        if new_capacity < course.subscriptions:
            raise RefusedError(
                f'Course "{course.course_id}" already has {course.subscriptions} active subscriptions'
            )
        self.apply_event(CourseCapacityChanged(course_id=course.course_id, new_capacity=new_capacity))

    def subscribe(self, student_id: str) -> None:
        course = self.current
        if course.subscriptions >= course.capacity:
            raise RefusedError(f'Course "{course.course_id}" is already fully booked')
        self.apply_event(StudentSubscribedToCourse(student_id=student_id, course_id=course.course_id))


async def main(store: EventStore) -> None:
    courses = AggregateRepository(store, CourseAggregate)
    course = stream_of("c1")
    await courses.execute_or_create(course, CourseAggregate.define, "c1", 10)
    await courses.execute(course, CourseAggregate.change_capacity, 15)
    await courses.execute(course, CourseAggregate.subscribe, "s1")
    # The stream, and the query by the course's tag, have the same events.
    found = await store.read_query(Query(QueryItem(tags=[COURSE.of("c1")])))
    print([stored.event_type for stored in found.events])


async def run(url: str) -> None:
    async with open_store(url) as store:
        await store.initialize()
        await main(store)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "sqlite://"))
