"""A projection passes no event over in silence, whatever its classes of events go through."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from support.read_models import running, until

from esource import DomainEvent, EventRegistry, EventStore, Projection, ProjectionRunner, handles
from esource.projections import missed
from esource.projections.names import Doing


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


class OfTurned(Seen):
    @handles(Turned)
    async def turned(self, event: Turned, context) -> None:
        self.see(event)


class OfBoth(OfMoved):
    """The class `OfMoved` in its next release."""

    __qualname__ = OfMoved.__qualname__

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
    await ProjectionRunner(own, OfBoth()).run(live=False)  # it is said at every start until they are handled
    assert warnings(caplog) == [said, said]


async def test_a_start_that_handles_the_types_of_the_last_one_counts_no_events(own: EventStore, monkeypatch):
    await write(own, Moved(), Turned())
    for _ in range(2):
        await ProjectionRunner(own, OfMoved()).run(live=False)

    async def count_up_to(*arguments) -> int:
        raise AssertionError("the log was counted")

    monkeypatch.setattr(missed, "count_up_to", count_up_to)
    await ProjectionRunner(own, OfMoved()).run(live=False)
    with pytest.raises(AssertionError, match="was counted"):
        await ProjectionRunner(own, OfBoth()).run(live=False)


async def test_a_checkpoint_that_another_class_has_moved_is_told(own: EventStore, caplog):
    await write(own, Moved(), Turned())
    await ProjectionRunner(own, OfMoved()).run(live=False)
    await ProjectionRunner(own, OfTurned()).run(live=False)
    said = warnings(caplog)[0]
    assert "projection seen: its checkpoint was moved by another class before" in said
    assert "test_types.OfMoved. Nothing is wrong if that is its old name" in said


async def test_another_class_that_is_at_work_under_one_name_elsewhere_is_told(
    open_stores, shared_database_url, registry, caplog
):
    store, other = [await open_stores(shared_database_url, event_registry=registry) for _ in range(2)]
    projection, runner = OfMoved(), ProjectionRunner(other, OfTurned())
    async with running(ProjectionRunner(store, projection)):
        await write(store, Moved())
        await until(lambda: projection.seen)
        async with running(runner):
            await until(lambda: runner.health_now().last_error is not None)
    assert "test_types.OfTurned shares its checkpoint with another class" in runner.health_now().last_error
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "test_types.OfMoved, which is at work" in said


async def test_events_that_an_older_release_has_passed_over_meanwhile_are_told(
    open_stores, shared_database_url, registry, caplog
):
    old, new = [await open_stores(shared_database_url, event_registry=registry) for _ in range(2)]
    before, after = OfMoved(), OfBoth()
    runner = ProjectionRunner(new, after)
    async with AsyncExitStack() as stack:
        older = await stack.enter_async_context(AsyncExitStack())
        await older.enter_async_context(running(ProjectionRunner(old, before)))
        await write(old, Moved())
        await until(lambda: before.seen)
        await stack.enter_async_context(running(runner))
        await until(lambda: runner._shares._looked_at)
        await write(old, Turned(), Moved())
        await until(lambda: len(before.seen) == 2)
        await older.aclose()
        await write(old, Turned())
        await until(lambda: after.seen)
    assert after.seen == ["Turned 1"]
    [said] = warnings(caplog)
    assert "1 events of the types that it handles lie before its checkpoint (position 3)" in said


@pytest.mark.parametrize(
    ("one", "two", "are_others"),
    [
        ("shop.Totals", "shop.Totals", False),
        ("shop.Totals", "bank.Totals", True),
        ("__main__.Totals", "shop.read.Totals", False),
        ("shop.read.Totals", "__main__.Totals", False),
        ("__main__.Totals", "shop.SubTotals", True),
        ("__main__.Totals", "__main__.Sums", True),
    ],
)
def test_a_class_is_one_whether_its_module_is_run_or_imported(one, two, are_others):
    assert Doing(one, "0").is_of_another_class(Doing(two, "1")) is are_others
