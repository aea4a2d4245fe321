"""``@handles``: one method per event, of an aggregate or of a projection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload
from uuid import UUID

from esource.errors import InvalidOptionError
from esource.events import DomainEvent
from esource.streams import StoredEvent

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncConnection

    from esource.database import Unit

TEvent = TypeVar("TEvent", bound=DomainEvent)
_Event = TypeVar("_Event", bound=DomainEvent)


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

        All values that one statement is given in a row are sent at once (`executemany`), so that a read
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

Handler = Callable[[Any, _Event, ProjectionContext], Awaitable[None]]
"""A method of a `Projection`: updates the read model by an event."""


class Mark(Protocol, Generic[_Event]):
    """The decorator that `handles` returns: leaves the method as it is."""

    @overload
    def __call__(self, method: Applier[_Event]) -> Applier[_Event]: ...

    @overload
    def __call__(self, method: Handler[_Event]) -> Handler[_Event]: ...


def handles(event_class: type[TEvent]) -> Mark[TEvent]:
    """Mark a method as what happens on this event.

    Of a `DeclarativeAggregate`, ``def placed(self, event: OrderPlaced) -> None``; of a `Projection`,
    ``async def placed(self, event: OrderPlaced, context: ProjectionContext) -> None``.
    """

    def mark(method: Any) -> Any:
        method.__esource_handles__ = event_class
        return method

    return mark


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
