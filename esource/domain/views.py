"""Views: what a decision has to know, folded from the events that concern it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import iscoroutinefunction
from typing import Any, ClassVar, TypeAlias

from typing_extensions import Self

from esource.checks import shown
from esource.domain.events import DomainEvent
from esource.domain.handles import marked_methods, method_for
from esource.domain.queries import Query, QueryItem
from esource.domain.tags import given_tags
from esource.errors import InvalidOptionError

Decision: TypeAlias = DomainEvent | Sequence[DomainEvent]
"""What a decision comes to: the event that happens, several, or an empty list if nothing has to happen."""


class View:
    """What a decision has to know of one thing: an object that the events about that thing have made.

    Its class has a method for each event that concerns it, and says by tags which of these events: those that carry all
    of the tags. These events are its boundary: `EventStore.decide` reads them, and stores what was decided only if no other of
    them has come meanwhile.

    Example:
        >>> COURSE = Tag("course")
        >>> class Course(View):
        ...     capacity = 0
        ...
        ...     def __init__(self, course_id: str) -> None:
        ...         super().__init__(COURSE.of(course_id))
        ...
        ...     @handles
        ...     def defined(self, event: CourseDefined) -> None:
        ...         self.capacity = event.capacity

    A view says only what is to be known. Each try of a decision makes it anew, with the same arguments; the one that is
    given to `decide` stays as it is. A method for a base class is for the events derived from it, too.

    Args:
        tags: As `Tag.of` makes them. None: all events of the types that it has methods for.

    Raises:
        InvalidOptionError: a tag is none. When the class is made: two methods handle the same event, or one is
            ``async def``.
    """

    _handlers: ClassVar[dict[type[DomainEvent], str]] = {}
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    _tags: frozenset[str] | None = None

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        made = super().__new__(cls)
        made._made_with = (arguments, keywords)
        return made

    def __init__(self, *tags: str) -> None:
        self._tags = given_tags(tags)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = {**cls._handlers, **marked_methods(cls)}
        for name in cls._handlers.values():
            if iscoroutinefunction(getattr(cls, name)):
                raise InvalidOptionError(f"{cls.__name__}.{name} must be a plain `def`: nobody awaits it")

    def boundary(self) -> Query:
        """Which events concern it: those of its methods' types that carry all of its tags.

        Override it for what tags that all hold cannot say: ``return Query(QueryItem(...), QueryItem(...))`` selects what any
        of the items does.

        Raises:
            InvalidOptionError: it has no tags, because its ``__init__`` does not call that of `View`, or no methods.
        """
        name = type(self).__name__
        if self._tags is None:
            raise InvalidOptionError(
                f"{name} does not say which events concern it: call super().__init__(...) in its __init__, with its tags, as "
                'in super().__init__(Tag("course").of(course_id)); without tags for all events that it has methods for'
            )
        if not self._handlers:
            raise InvalidOptionError(f"{name} has no method for any event: write one under @handles")
        return Query(QueryItem(self._handlers, self._tags))

    def anew(self) -> Self:
        """The same view before any event."""
        arguments, keywords = self._made_with
        return type(self)(*arguments, **keywords)

    def fold(self, event: DomainEvent) -> None:
        """Take in an event of the boundary; one that there is no method for changes nothing.

        Raises:
            InvalidOptionError: the method has returned something.
        """
        name = method_for(self._handlers, type(event))
        if name is not None and getattr(self, name)(event) is not None:
            raise InvalidOptionError(
                f"{type(self).__name__}.{name} returned something, which would be lost: change the view itself"
            )

    def __repr__(self) -> str:
        arguments, keywords = self._made_with
        given = [*map(repr, arguments), *(f"{name}={value!r}" for name, value in keywords.items())]
        return f"{type(self).__name__}({', '.join(given)})"


def check_views(views: Sequence[object]) -> list[View]:
    """The views of a decision.

    Raises:
        InvalidOptionError: there is none, or something is none.
    """
    found = []
    for view in views:
        if not isinstance(view, View):
            hint = ": make one of it" if isinstance(view, type) and issubclass(view, View) else ""
            raise InvalidOptionError(f"a decision is made with views, not with {shown(view)}{hint}")
        found.append(view)
    if not found:
        raise InvalidOptionError(
            "a decision without a view depends on nothing: append its event with append() instead"
        )
    return found


def boundary_of(view: View) -> Query:
    """Which events concern a view, as it says itself.

    Raises:
        InvalidOptionError: it says no query.
    """
    boundary = view.boundary()
    if not isinstance(boundary, Query):
        raise InvalidOptionError(
            f"{type(view).__name__}.boundary() must return a Query, as in Query(QueryItem(...)), not {shown(boundary)}"
        )
    return boundary


def united(boundaries: Iterable[Query]) -> Query:
    """What any of them selects."""
    return Query(*dict.fromkeys(item for each in boundaries for item in each.items))


def decided(decision: object, outcome: object) -> list[DomainEvent]:
    """The events that a decision came to.

    Raises:
        InvalidOptionError: it came to nothing, and did not say that it meant that; or to something else.
    """
    if isinstance(outcome, DomainEvent):
        return [outcome]
    name = getattr(decision, "__qualname__", repr(decision))
    if outcome is None:
        raise InvalidOptionError(
            f"{name} returned nothing: return the event that was decided on, or several in a list. If nothing has to happen, "
            "return an empty list; if it is not allowed, raise an error of your own"
        )
    if isinstance(outcome, Sequence) and all(isinstance(each, DomainEvent) for each in outcome):
        return list(outcome)
    raise InvalidOptionError(f"{name} must return an event, or a list of events, not {shown(outcome)}")
