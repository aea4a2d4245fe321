"""``@handles``: one method per event, of an aggregate or of a projection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import get_annotations, isfunction
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload
from uuid import UUID

from esource.errors import InvalidOptionError
from esource.events import DomainEvent
from esource.streams import StoredEvent

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

    from esource.unit import Unit

TEvent = TypeVar("TEvent", bound=DomainEvent)
_Event = TypeVar("_Event", bound=DomainEvent)
_Context = TypeVar("_Context")


class Writes:
    """Statements that handlers want executed by the end of their transaction, gathered for `executemany`."""

    __slots__ = ("_gathered",)

    def __init__(self) -> None:
        self._gathered: list[tuple[Executable, list[Mapping[str, Any]]]] = []

    def add(self, statement: Executable, values: Mapping[str, Any]) -> None:
        if self._gathered and self._gathered[-1][0] is statement:
            self._gathered[-1][1].append(values)
        else:
            self._gathered.append((statement, [values]))

    async def execute(self, connection: AsyncConnection) -> None:
        """Execute what was gathered, in its order."""
        gathered, self._gathered = self._gathered, []
        for statement, values in gathered:
            await connection.execute(statement, values)


class ProjectionContext:
    """What a projection's handler is told besides the event."""

    __slots__ = ("_unit", "_writes", "stored")

    def __init__(self, stored: StoredEvent, unit: Unit | None, writes: Writes) -> None:
        self.stored = stored
        """The event's envelope: stream, version, position, times."""
        self._unit = unit
        self._writes = writes

    @property
    def connection(self) -> AsyncConnection:
        """SQLAlchemy's connection, inside the transaction that also saves the checkpoint.

        Raises:
            InvalidOptionError: the projection saves its progress outside a transaction of its handlers.
        """
        if self._unit is None:
            raise InvalidOptionError(
                "there is no transaction around this handler: set progress = 'in_transaction'"
            )
        self._unit.require_open()
        return self._unit.connection

    def write(self, statement: Executable, values: Mapping[str, Any]) -> None:
        """Have a statement executed with these values by the end of the transaction. No I/O.

        All values that one statement is given in a row are sent at once (``executemany``), so that a read
        model is written many times faster than through `connection`. The statement is one object, made
        once: an INSERT, UPDATE or DELETE with bound parameters, or an upsert that refers to ``excluded``.
        What is read through `connection` does not see it before `flush`.

        Raises:
            InvalidOptionError: as `connection` does.
        """
        _ = self.connection
        self._writes.add(statement, values)

    async def flush(self) -> None:
        """Execute what `write` has gathered, of earlier events, too."""
        await self._writes.execute(self.connection)

    @property
    def position(self) -> int:
        """The event's global position."""
        return self.stored.global_position

    @property
    def tenant_id(self) -> UUID | None:
        return self.stored.tenant_id


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
