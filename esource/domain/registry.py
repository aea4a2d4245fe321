"""Which class a stored event type belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, overload

from esource.checks import check_names, shown
from esource.domain.events import DomainEvent
from esource.domain.impossible import require_possible
from esource.domain.tags import tagged_fields
from esource.errors import DuplicateEventTypeError, InvalidOptionError, UnknownEventTypeError

TEvent = TypeVar("TEvent", bound="DomainEvent")


class EventRegistry:
    """Which class a stored event type is decoded with.

    Registering the same class again, or its redefinition in a notebook or after a reload (same module
    and qualified name), replaces it quietly; a different class under a taken name is an error.
    """

    def __init__(self) -> None:
        self.classes: dict[str, type[DomainEvent]] = {}
        """The registered classes by event type: for a look that costs no call. The methods change it."""
        self._derived: dict[type[DomainEvent], tuple[int, frozenset[str]]] = {}
        """Of the classes that were asked for: the types that are read as the class or as one derived from it, and at which
        number of `changes`."""
        self.changes = 0
        """How often a class was registered or forgotten: what was derived from the registry is out of date then."""

    def register(self, event_class: type[TEvent], event_type: str | None = None) -> type[TEvent]:
        """Register a class under ``event_type``, or under its own.

        Raises:
            DuplicateEventTypeError: a different class has that name.
            InvalidOptionError: it is not a class of events, the type is not text, or it has a field whose values can never come back, or that is
                marked as a tag and can be none.
        """
        if not (isinstance(event_class, type) and issubclass(event_class, DomainEvent)):
            raise InvalidOptionError(
                f"only a class derived from DomainEvent can be registered: {event_class!r}"
            )
        if event_type is not None and not isinstance(event_type, str):
            raise InvalidOptionError(f"event_type must be text, not {shown(event_type)}")
        name = event_type or _name_of(event_class)
        existing = self.classes.get(name)
        if existing is not None and (existing.__module__, existing.__qualname__) != (
            event_class.__module__,
            event_class.__qualname__,
        ):
            raise DuplicateEventTypeError(name, existing, event_class)
        require_possible(event_class)
        tagged_fields(event_class)
        self.classes[name] = event_class
        self.changes += 1
        return event_class

    def get(self, event_type: str) -> type[DomainEvent]:
        """The class of an event type.

        Raises:
            UnknownEventTypeError: none is registered.
        """
        try:
            return self.classes[event_type]
        except (KeyError, TypeError):  # a list, for instance, has no hash
            raise self.unknown(event_type) from None

    def unknown(self, event_type: str) -> UnknownEventTypeError:
        """The error for a type without a class; it names a class that exists and was not registered."""
        forgotten = next((found for found in _defined(DomainEvent) if _name_of(found) == event_type), None)
        place = "" if forgotten is None else f"{forgotten.__module__}.{forgotten.__qualname__}"
        return UnknownEventTypeError(event_type, self.classes, place)

    def get_or_none(self, event_type: str) -> type[DomainEvent] | None:
        return self.classes.get(event_type)

    def types_of(self, wanted: Iterable[str | type[DomainEvent]]) -> frozenset[str]:
        """The stored types that are wanted: a name is one; a class is all that are read as it, or as one derived from it."""
        names: set[str] = set()
        for each in wanted:
            if isinstance(each, str):
                names.add(each)
            else:
                names |= self._types_of_class(each)
        return frozenset(names)

    def _types_of_class(self, wanted: type[DomainEvent]) -> frozenset[str]:
        changes = self.changes  # before the classes are read: another thread may register one meanwhile
        found = self._derived.get(wanted)
        if found is None or found[0] != changes:
            names = {name for name, each in self.classes.items() if issubclass(each, wanted)}
            found = self._derived[wanted] = changes, frozenset(names | {_name_of(wanted)})
        return found[1]

    def contains(self, event_type: str) -> bool:
        return event_type in self.classes

    def list_types(self) -> list[str]:
        """All registered event types, sorted."""
        return sorted(self.classes)

    def list_classes(self) -> list[type[DomainEvent]]:
        return list(self.classes.values())

    def unregister(self, event_type: str) -> bool:
        """Forget an event type; whether it was known."""
        self.changes += 1
        return self.classes.pop(event_type, None) is not None

    def clear(self) -> None:
        self.changes += 1
        self.classes.clear()

    def __len__(self) -> int:
        return len(self.classes)

    def __bool__(self) -> bool:
        return True  # an empty registry given on purpose is still the one to use

    def __contains__(self, event_type: object) -> bool:
        return event_type in self.classes

    def __iter__(self) -> Iterator[str]:
        return iter(self.classes)


def check_event_types(
    value: Iterable[str | type[DomainEvent]] | None,
) -> frozenset[str | type[DomainEvent]] | None:
    """The event types as a set, if they are several names or classes of events, or none; None if any will do.

    Raises:
        InvalidOptionError: they are not.
    """
    if value is None or isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        check_names("event_types", value)
        return None
    given: list[Any] = list(value)
    try:
        wanted = frozenset(given)
    except TypeError:  # something without a hash, which is no name
        check_names("event_types", given)
        raise
    names: set[Any] = {
        each for each in wanted if not (isinstance(each, type) and issubclass(each, DomainEvent))
    }
    if names:
        check_names("event_types", names)
    return wanted


def _name_of(event_class: type[DomainEvent]) -> Any:
    return event_class.model_fields["event_type"].default


def _defined(event_class: type[DomainEvent]) -> Iterator[type[DomainEvent]]:
    """All event classes that exist, registered or not."""
    for subclass in event_class.__subclasses__():
        yield subclass
        yield from _defined(subclass)


default_registry = EventRegistry()
"""Where `register_event` registers unless told otherwise."""


@overload
def register_event(event_class: type[TEvent], /) -> type[TEvent]: ...


@overload
def register_event(
    *, event_type: str | None = None, registry: EventRegistry | None = None
) -> Callable[[type[TEvent]], type[TEvent]]: ...


def register_event(
    event_class: type[TEvent] | None = None,
    /,
    *,
    event_type: str | None = None,
    registry: EventRegistry | None = None,
) -> type[TEvent] | Callable[[type[TEvent]], type[TEvent]]:
    """Class decorator, bare or with arguments: stored events of this type are decoded with this class.

    With ``event_type`` given, the class is stored under that name; a class that declares one itself
    keeps it, and reads events that were stored under the other name as well.

    Raises:
        DuplicateEventTypeError: a different class has that name.
        InvalidOptionError: it is no class of events.
    """
    if isinstance(event_class, str):
        raise InvalidOptionError(f"name the argument: register_event(event_type={event_class!r})")

    def decorate(decorated: type[TEvent]) -> type[TEvent]:
        chosen = registry if registry is not None else default_registry
        if event_type is None:
            return chosen.register(decorated)
        chosen.register(decorated, event_type)
        field = decorated.model_fields["event_type"]
        if field.default == decorated.__name__:
            field.default = event_type
            decorated.model_rebuild(force=True)
        return chosen.register(decorated)

    return decorate if event_class is None else decorate(event_class)
