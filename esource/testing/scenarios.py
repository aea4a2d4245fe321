"""Given these events, when this is done, then that follows: tests of aggregates and projections that say no more.

Events are compared by their class and by what they say: ids, times and places (the aggregate, its version,
correlation and causation) are left out, since the test did not choose them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isawaitable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from uuid import UUID

from pydantic_core import PydanticUndefined
from typing_extensions import TypeVarTuple, Unpack

from esource.checks import shown
from esource.domain.aggregates import AggregateRoot
from esource.domain.events import DomainEvent
from esource.domain.registry import EventRegistry, default_registry
from esource.domain.views import Decision
from esource.errors import InvalidOptionError
from esource.projections.projection import Projection
from esource.projections.runner import ProjectionRunner
from esource.store.store import EventStore
from esource.testing.comparing import Expected, compare, listed, require_raised, same_event
from esource.testing.decisions import Decided, decide_on

TAggregate = TypeVar("TAggregate", bound=AggregateRoot[Any])
TEvent = TypeVar("TEvent", bound=DomainEvent)
P = ParamSpec("P")
Views = TypeVarTuple("Views")

AN_AGGREGATE = UUID("00000000-0000-7000-8000-000000000001")
"""The aggregate that a scenario is about, unless told otherwise."""


def an_event(event_class: type[TEvent], **fields: Any) -> TEvent:
    """An event with whatever a scenario does not care about filled in: only its own fields are needed."""
    filled: dict[str, Any] = {"aggregate_id": AN_AGGREGATE}
    if event_class.model_fields["aggregate_type"].default in ("", PydanticUndefined):
        filled["aggregate_type"] = "Aggregate"
    return event_class(**{**filled, **fields})


def given(
    aggregate: type[TAggregate] | Callable[[UUID], TAggregate],
    *events: DomainEvent,
    aggregate_id: UUID = AN_AGGREGATE,
) -> Given[TAggregate]:
    """An aggregate to which these events have happened.

    The events become this aggregate's own, with versions from 1: build them with `an_event`.

    Example:
        >>> given(Account, an_event(Deposited, amount=100)).when(Account.withdraw, 30).then(
        ...     an_event(Withdrawn, amount=30)
        ... )
        >>> given(Account).when(Account.withdraw, 30).then_raises(ValueError, match="not enough")
    """
    if not callable(aggregate):
        raise InvalidOptionError(f"given takes the class of an aggregate first, not {shown(aggregate)}")
    return Given(aggregate(aggregate_id), events)


class Given(Generic[TAggregate]):
    """An aggregate before the command; made by `given`."""

    def __init__(self, aggregate: TAggregate, events: tuple[DomainEvent, ...]) -> None:
        self.aggregate = aggregate
        self.aggregate.load_from_history(
            event.model_copy(
                update={
                    "aggregate_id": aggregate.aggregate_id,
                    "aggregate_type": aggregate.aggregate_type,
                    "aggregate_version": version,
                }
            )
            for version, event in enumerate(events, start=1)
        )

    def when(
        self,
        command: Callable[Concatenate[TAggregate, P], object],
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> Then[TAggregate]:
        """Do this to it: a method of its class with arguments, or any function of the aggregate.

        What the command raises is for `Then.then_raises`; `Then.then` raises it again.
        """
        error: Exception | None = None
        try:
            outcome = command(self.aggregate, *arguments, **keywords)
        except Exception as raised:
            error = raised
        else:
            if isawaitable(outcome):
                getattr(outcome, "close", lambda: None)()  # else it would be reported as never awaited
                raise InvalidOptionError("a command is a plain function, and this one is to be awaited")
        return Then(self.aggregate, error)


class Then(Generic[TAggregate]):
    """An aggregate after the command; made by `Given.when`."""

    def __init__(self, aggregate: TAggregate, error: Exception | None) -> None:
        self.aggregate = aggregate
        """The aggregate, for what else is to be looked at."""
        self._error = error

    def then(self, *expected: Expected) -> Then[TAggregate]:
        """Exactly these events were recorded, in this order; none, if none are named.

        Raises:
            AssertionError: others were, listed beside what was expected.
        """
        __tracebackhide__ = True
        if self._error is not None:
            raise self._error
        compare(expected, self.aggregate.uncommitted_events)
        return self

    def then_state(self, expected: object) -> Then[TAggregate]:
        """The state is equal to this.

        Raises:
            AssertionError: it is not.
        """
        __tracebackhide__ = True
        if self._error is not None:
            raise self._error
        if self.aggregate.state != expected:
            raise AssertionError(f"expected state: {expected!r}\n   found state: {self.aggregate.state!r}")
        return self

    def then_raises(self, error: type[Exception] | tuple[type[Exception], ...], match: str = "") -> None:
        """The command refused with this error, its text matching the regular expression, and recorded nothing.

        Raises:
            AssertionError: it did not refuse, or its text is another, or it has recorded events all the same.
        """
        __tracebackhide__ = True
        require_raised(self._error, error, match)
        if self.aggregate.has_uncommitted_events:
            raise AssertionError(
                f"it raised {self._error!r} after recording:\n{listed(self.aggregate.uncommitted_events)}"
            )


Handler = Callable[[DomainEvent], Awaitable[object] | object]
"""What a projection does with an event: a function, or a coroutine function, of the event."""


def given_events(*events: DomainEvent) -> GivenEvents:
    """These events, to be handed to a projection in order, or to be decided on. Each aggregate's have versions from 1.

    Example:
        >>> await (
        ...     given_events(an_event(Deposited, amount=5), an_event(Deposited, amount=7))
        ...     .when_handled_by(balances.handle)
        ...     .then(lambda: balances.total, 12)
        ... )
        >>> await given_events(an_event(Deposited, amount=5)).when_handled_by(Balances(), store).then(total, 5)
        >>> given_events(CourseDefined(course_id="c1", capacity=1)).when(subscribe, Course("c1"), Student("s1")).then(
        ...     StudentSubscribed(course_id="c1", student_id="s1")
        ... )
    """
    seen: Counter[tuple[UUID, str]] = Counter()
    numbered = []
    for event in events:
        stream = (event.aggregate_id, event.aggregate_type)
        seen[stream] += 1
        numbered.append(event.with_aggregate_version(seen[stream]))
    return GivenEvents(numbered)


class GivenEvents:
    """Events before they are projected or decided on; made by `given_events`."""

    def __init__(self, events: list[DomainEvent]) -> None:
        self._events = events
        self._beside: list[DomainEvent] = []

    def beside(self, *events: DomainEvent) -> GivenEvents:
        """Events that no view of the decision is to see: of another course, or another student."""
        self._beside += events
        return self

    def when(
        self,
        decision: Callable[[Unpack[Views]], Decision],
        *views: Unpack[Views],
        registry: EventRegistry | None = None,
    ) -> Decided:
        """Let this function decide over these views, as `EventStore.decide` does, without a store.

        Args:
            decision: A function of the views.
            views: What it decides over.
            registry: That of the store; `default_registry` if left out. It says which stored types a class stands for.

        Raises:
            AssertionError: a given event lies outside of every view's boundary, so that `EventStore.decide` would not have
                read it; or one that was given to `beside` lies inside.
            InvalidOptionError: as for `EventStore.decide`, or the function is to be awaited.
        """
        __tracebackhide__ = True
        chosen = default_registry if registry is None else registry
        return decide_on(self._events, self._beside, decision, views, chosen)

    def when_handled_by(self, handler: Handler | Projection, store: EventStore | None = None) -> Projected:
        """Hand them to this, one after the other.

        Args:
            handler: A function of an event, or a `Projection`.
            store: For a projection: the store to which the events are appended, and in whose database a
                `ProjectionRunner` runs it to the end of the log. Query the read model with ``store.reading()``.

        Raises:
            InvalidOptionError: a projection without a store, a store without a projection, or what is none of both.
        """
        if isinstance(handler, Projection):
            if store is None:
                raise InvalidOptionError(
                    f"the handlers of {type(handler).__name__} work in a database: give when_handled_by the store as "
                    "well, or one of its methods alone if it needs no context"
                )
            return Projected(self._events, partial(_project, store, handler))
        if store is not None or not callable(handler):
            raise InvalidOptionError(
                "when_handled_by takes a function of an event, or a projection and its store, not "
                f"{shown(handler)}{'' if store is None else ' and a store'}"
            )
        return Projected(self._events, partial(_hand_over, handler))


class Projected:
    """A projection at work; made by `GivenEvents.when_handled_by`."""

    def __init__(
        self, events: list[DomainEvent], project: Callable[[list[DomainEvent]], Awaitable[None]]
    ) -> None:
        self._events = events
        self._project = project

    async def _run(self) -> None:
        await self._project(self._events)

    async def then(self, read: Callable[[], object], expected: object) -> None:
        """What ``read`` finds afterwards (a function, or a coroutine function) is equal to this.

        Raises:
            AssertionError: it is not.
        """
        __tracebackhide__ = True
        await self._run()
        found = read()
        if isawaitable(found):
            found = await found
        if found != expected:
            raise AssertionError(f"expected: {expected!r}\n   found: {found!r}")

    async def then_raises(
        self, error: type[Exception] | tuple[type[Exception], ...], match: str = ""
    ) -> None:
        """The projection failed with this error, its text matching the regular expression.

        Raises:
            AssertionError: it did not.
        """
        __tracebackhide__ = True
        caught: Exception | None = None
        try:
            await self._run()
        except Exception as raised:
            caught = raised
        require_raised(caught, error, match)


async def _hand_over(handler: Handler, events: list[DomainEvent]) -> None:
    for event in events:
        outcome = handler(event)
        if isawaitable(outcome):
            await outcome


async def _project(store: EventStore, projection: Projection, events: list[DomainEvent]) -> None:
    for event in events:
        await store.append_events(event.aggregate_id, event.aggregate_type, [event])
    await ProjectionRunner(store, projection).run(live=False)


__all__ = [
    "AN_AGGREGATE",
    "Decided",
    "Given",
    "GivenEvents",
    "Projected",
    "Then",
    "an_event",
    "given",
    "given_events",
    "same_event",
]
