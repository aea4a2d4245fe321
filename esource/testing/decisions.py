"""Given these events, when this is decided over these views, then that follows; made by `given_events`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Any

from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry
from esource.domain.tags import declared_tags
from esource.domain.views import View, boundary_of, check_views, decided
from esource.errors import InvalidOptionError
from esource.testing.comparing import Expected, compare, listed, require_raised, told


def decide_on(
    events: Sequence[DomainEvent],
    others: Sequence[DomainEvent],
    decision: Callable[..., object],
    views: tuple[Any, ...],
    registry: EventRegistry,
) -> Decided:
    """What a decision comes to; see `GivenEvents.when`."""
    __tracebackhide__ = True
    folded = [view.anew() for view in check_views(views)]
    for event in events:
        concerned = [view for view in folded if _selects(view, event, registry)]
        if not concerned:
            raise AssertionError(
                f"no view would have seen a given event:\n  {told(event)}\n  {_place_of(event)}\nboundaries:\n"
                f"{_boundaries(folded)}\nIf it is there to show that it changes nothing, give it to beside()"
            )
        for view in concerned:
            view.fold(event)
    for event in others:
        if any(_selects(view, event, registry) for view in folded):
            raise AssertionError(
                f"a view would have seen an event that was given as one beside the boundary:\n  {told(event)}\n"
                f"  {_place_of(event)}\nboundaries:\n{_boundaries(folded)}"
            )
    error: Exception | None = None
    found: list[DomainEvent] = []
    try:
        outcome = decision(*folded)
    except Exception as refused:
        error = refused
    else:
        if isawaitable(outcome):
            getattr(outcome, "close", lambda: None)()  # else it would be reported as never awaited
            raise InvalidOptionError(
                "in a scenario a decision is a plain function, and this one is to be awaited"
            )
        found = decided(decision, outcome)
    return Decided(found, error)


class Decided:
    """What was decided; made by `GivenEvents.when`."""

    def __init__(self, events: list[DomainEvent], error: Exception | None) -> None:
        self.events = events
        """The events that were decided on, for what else is to be looked at."""
        self._error = error

    def then(self, *expected: Expected) -> Decided:
        """Exactly these events were decided on, in this order; none, if none are named.

        Raises:
            AssertionError: others were, listed beside what was expected.
        """
        __tracebackhide__ = True
        if self._error is not None:
            raise self._error
        compare(expected, self.events)
        return self

    def then_raises(self, error: type[Exception] | tuple[type[Exception], ...], match: str = "") -> None:
        """The decision was refused with this error, its text matching the regular expression.

        Raises:
            AssertionError: it was not refused, or its text is another.
        """
        __tracebackhide__ = True
        if self._error is None and self.events:
            raise AssertionError(f"expected {error}, and this was decided on:\n{listed(self.events)}")
        require_raised(self._error, error, match)


def _selects(view: View, event: DomainEvent, registry: EventRegistry) -> bool:
    return boundary_of(view).named(registry).matches(event.event_type, declared_tags(event))


def _place_of(event: DomainEvent) -> str:
    tags = ", ".join(sorted(declared_tags(event))) or "none"
    return f"type {event.event_type}, tags: {tags}"


def _boundaries(views: Sequence[View]) -> str:
    return "\n".join(f"  {view!r}: {item!r}" for view in views for item in view.boundary().items)
