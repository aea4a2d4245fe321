"""Which method an event gets: its own, that of its nearest base, that of the class which it was before a reload."""

from __future__ import annotations

import logging
from uuid import uuid4

from esource import (
    DeclarativeAggregate,
    DomainEvent,
    handles,
)


class Moved(DomainEvent):
    by: int = 1


class MovedFar(Moved):
    pass


class Sealed(DomainEvent):
    pass


class Position(DeclarativeAggregate[int]):
    @handles(Moved)
    def _moved(self, event: Moved) -> None:
        self._state = self.current + event.by


def redefined(base: type = DomainEvent) -> type[DomainEvent]:
    """The class `Defined`, as a cell of a notebook defines it each time that it is run."""

    class Defined(base):
        by: int = 1

    return Defined


def test_a_method_for_a_base_class_is_for_those_below_it():
    position = Position(uuid4())
    position.apply_event(MovedFar(by=3))
    assert position.state == 3


def test_a_method_of_its_own_comes_before_that_of_the_base():
    class Careful(Position):
        @handles(MovedFar)
        def _far(self, event: MovedFar) -> None:
            self._state = -event.by

    position = Careful(uuid4())
    position.apply_event(MovedFar(by=3))
    position.apply_event(Moved(by=1))
    assert position.state == -2


def test_a_class_that_was_defined_anew_has_the_methods_of_the_one_before():
    first, second = redefined(), redefined()
    below = redefined(redefined(Moved))

    class Aggregate(DeclarativeAggregate[int]):
        @handles(first)
        def _defined(self, event) -> None:
            self._state = self.current + event.by

    aggregate = Aggregate(uuid4())
    for event_class in (first, second, below):
        aggregate.apply_event(event_class(by=1))
    assert aggregate.state == 3


def test_classes_that_are_made_by_one_function_under_other_names_are_others():
    def made(name: str) -> type[DomainEvent]:
        class Made(DomainEvent):
            event_type: str = name

        return Made

    class Aggregate(DeclarativeAggregate[int]):
        unregistered_event_handling = "ignore"

        @handles(made("One"))
        def _one(self, event) -> None:
            self._state = 1

    aggregate = Aggregate(uuid4())
    aggregate.apply_event(made("Two")())
    assert aggregate.state == 0


def test_an_aggregate_without_a_method_for_its_event_says_so_once(caplog):
    class Silent(Position):
        unregistered_event_handling = "ignore"

    for kind in (Position, Silent):
        for _ in range(2):
            kind(uuid4()).apply_event(Sealed())
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "Position has no method for Sealed" in said
    assert "@handles(Sealed)" in said
