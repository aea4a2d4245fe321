"""A projection passes no event over in silence, whatever its classes of events go through."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest
from support.read_models import running, until

from esource import DomainEvent, EventRegistry, EventStore, Projection, ProjectionRunner, handles


class Moved(DomainEvent):
    by: int = 1


class Turned(DomainEvent):
    by: int = 1


class Seen(Projection):
    name = "seen"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def see(self, event: DomainEvent) -> None:
        self.seen.append(f"{event.event_type} {event.by}")


class OfMoved(Seen):
    @handles(Moved)
    async def moved(self, event: Moved, context) -> None:
        self.see(event)


class OfBoth(OfMoved):
    @handles(Turned)
    async def turned(self, event: Turned, context) -> None:
        self.see(event)


def defined(base: type[DomainEvent] = DomainEvent) -> type[DomainEvent]:
    """The class `Defined`, as a cell of a notebook defines it each time that it is run."""

    class Defined(base):
        by: int = 1

    return Defined


async def write(store: EventStore, *events: DomainEvent) -> None:
    for event in events:
        await store.append_events(uuid4(), "Thing", [event])


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture
def registry() -> EventRegistry:
    made = EventRegistry()
    made.register(Moved)
    made.register(Turned)
    return made


@pytest.fixture
async def own(open_stores, database_url, registry) -> EventStore:
    return await open_stores(database_url, event_registry=registry)


async def test_a_class_that_was_defined_anew_is_handled(own: EventStore, registry):
    first, second = defined(), defined()
    registry.register(second)

    class Numbers(Seen):
        @handles(first)
        async def defined(self, event, context) -> None:
            self.see(event)

    await write(own, second(by=7))
    projection = Numbers()
    await ProjectionRunner(own, projection).run(live=False)
    assert projection.seen == ["Defined 7"]


async def test_a_class_below_one_that_was_defined_anew_is_handled(own: EventStore, registry):
    first, second = defined(), defined()

    class Below(second):
        pass

    registry.register(Below)

    class Numbers(Seen):
        @handles(first)
        async def defined(self, event, context) -> None:
            self.see(event)

    await write(own, Below(by=7))
    projection = Numbers()
    await ProjectionRunner(own, projection).run(live=False)
    assert projection.seen == ["Below 7"]


async def test_a_class_that_is_registered_while_the_projection_runs_is_handled(
    own: EventStore, registry, caplog
):
    class Leapt(Moved):
        pass

    projection = OfMoved()
    async with running(ProjectionRunner(own, projection)):
        await write(own, Moved(by=1))
        await until(lambda: len(projection.seen) == 1)
        registry.register(Leapt)
        await write(own, Leapt(by=2))
        await until(lambda: len(projection.seen) == 2)
    assert projection.seen == ["Moved 1", "Leapt 2"]
    assert warnings(caplog) == []


async def test_events_of_a_class_that_was_registered_too_late_are_told(
    open_stores, shared_database_url, registry, caplog
):
    class Leapt(Moved):
        pass

    store = await open_stores(shared_database_url, event_registry=registry)
    complete = EventRegistry()
    for event_class in (Moved, Leapt):
        complete.register(event_class)
    other = await open_stores(shared_database_url, event_registry=complete)
    projection = OfMoved()
    async with running(ProjectionRunner(store, projection)):
        await write(other, Leapt(by=1), Moved(by=2))
        await until(lambda: len(projection.seen) == 1)
        registry.register(Leapt)
        await write(other, Leapt(by=3))
        await until(lambda: len(projection.seen) == 2)
    [said] = warnings(caplog)
    assert "projection seen: 1 events of the types that it handles lie before its checkpoint" in said
    assert "Raise its version or rebuild it" in said


async def test_older_events_of_a_handler_that_was_added_are_told(own: EventStore, caplog):
    await write(own, Moved(), Turned(), Turned())
    await ProjectionRunner(own, OfMoved()).run(live=False)
    await ProjectionRunner(own, OfMoved()).run(live=False)
    assert warnings(caplog) == []
    both = OfBoth()
    await ProjectionRunner(own, both).run(live=False)
    [said] = warnings(caplog)
    assert "2 events of the types that it handles lie before its checkpoint" in said
    assert both.seen == []
