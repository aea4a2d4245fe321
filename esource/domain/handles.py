"""``@handles``: one method per event, of an aggregate or of a projection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import get_annotations, isfunction
from typing import Any, Generic, Protocol, TypeVar, overload

from esource.domain.events import DomainEvent
from esource.errors import InvalidOptionError

TEvent = TypeVar("TEvent", bound=DomainEvent)
_Event = TypeVar("_Event", bound=DomainEvent)


class Context(Protocol):
    """What a projection's handler is told besides the event; see `ProjectionContext`."""

    @property
    def position(self) -> int: ...

    async def flush(self) -> None: ...


_Context = TypeVar("_Context", bound=Context)


Applier = Callable[[Any, _Event], None]
"""A method of a `DeclarativeAggregate`: changes the state by an event."""

Handler = Callable[[Any, _Event, _Context], Awaitable[None]]
"""A method of a `Projection`: updates the read model by an event, told more by a `ProjectionContext`."""

_Method = TypeVar("_Method", bound=Applier[Any] | Handler[Any, Any])


class Mark(Protocol, Generic[_Event]):
    """The decorator that `handles` returns: leaves the method as it is."""

    @overload
    def __call__(self, method: Applier[_Event]) -> Applier[_Event]: ...

    @overload
    def __call__(self, method: Handler[_Event, _Context]) -> Handler[_Event, _Context]: ...


@overload
def handles(event: type[TEvent], /) -> Mark[TEvent]: ...


@overload
def handles(event: _Method, /) -> _Method: ...


def handles(event: Any, /) -> Any:
    """Mark a method as what happens on this event: ``@handles(OrderPlaced)``, or ``@handles`` alone if the
    method says the event's class in its signature.

    Of a `DeclarativeAggregate`, ``def placed(self, event: OrderPlaced) -> None``; of a `Projection`,
    ``async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None``.

    Raises:
        InvalidOptionError: no class of events is given, nor found in the signature.
    """
    if isfunction(event):
        return handles(_class_in_signature(event))(event)
    if not (isinstance(event, type) and issubclass(event, DomainEvent)):
        raise InvalidOptionError(f"handles takes the class of an event, not {event!r}")

    def mark(method: Any) -> Any:
        method.__esource_handles__ = event
        return method

    return mark


def _class_in_signature(method: Any) -> type[DomainEvent]:
    """The class that a method's second parameter is annotated with, looked up where the method was written."""
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    annotation: Any = get_annotations(method).get(names[0]) if names else None
    if isinstance(annotation, str):
        annotation = _evaluated(annotation, method.__globals__)
    if isinstance(annotation, type) and issubclass(annotation, DomainEvent):
        return annotation
    raise InvalidOptionError(
        f"{method.__qualname__}: which event? Write the event's class in its signature, or @handles(ItsClass)"
    )


def _evaluated(annotation: str, namespace: dict[str, Any]) -> Any:
    """What a dotted name in an annotation that is kept as text stands for; None if it cannot be found."""
    first, *rest = annotation.split(".")
    found = namespace.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def marked_methods(cls: type) -> dict[type[DomainEvent], str]:
    """The names of the class's own marked methods, by event.

    Raises:
        InvalidOptionError: two methods handle the same event.
    """
    own: dict[type[DomainEvent], str] = {}
    for name, member in cls.__dict__.items():
        event_class = getattr(member, "__esource_handles__", None)
        if event_class is None:
            continue
        if event_class in own:
            raise InvalidOptionError(
                f"{cls.__name__}: {own[event_class]} and {name} both handle {event_class.__name__}"
            )
        own[event_class] = name
    return own


def method_for(handlers: Mapping[type[DomainEvent], str], event_class: type[DomainEvent]) -> str | None:
    """The method for events of a class: its own, or that of the nearest base class; None if there is none.

    A class that was defined anew, in a notebook or after a reload, is the same as the one before.
    """
    for base in event_class.__mro__:
        method = handlers.get(base)
        if method is not None:
            return method
        if issubclass(base, DomainEvent):
            identity = _identity(base)
            for handled, name in handlers.items():
                if handled.__qualname__ == base.__qualname__ and _identity(handled) == identity:
                    return name
    return None


def _identity(event_class: type[DomainEvent]) -> tuple[str, str, object]:
    return event_class.__module__, event_class.__qualname__, event_class.model_fields["event_type"].default
