"""Aggregates: state rebuilt from events, and commands that record new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json
from typing_extensions import get_original_bases

from esource.errors import InvalidEventError, InvalidOptionError
from esource.events import DomainEvent
from esource.handlers import marked_methods

TState = TypeVar("TState")
TEvent = TypeVar("TEvent", bound=DomainEvent)


class AggregateRoot(Generic[TState]):
    """State that changes only through events.

    A subclass names its `aggregate_type`, says how an event changes the state (`_apply`), and offers
    commands that check the state and call `apply_event`.

    Example:
        >>> class Account(AggregateRoot[AccountState]):
        ...     aggregate_type = "Account"
        ...
        ...     def _get_initial_state(self) -> AccountState:
        ...         return AccountState(balance=0)
        ...
        ...     def _apply(self, event: DomainEvent) -> None:
        ...         if isinstance(event, Deposited):
        ...             self._state = AccountState(balance=self.current.balance + event.amount)
        ...
        ...     def deposit(self, amount: int) -> None:
        ...         self.apply_event(self.create_event(Deposited, amount=amount))
    """

    aggregate_type: ClassVar[str] = ""
    """The stored name of this kind of aggregate; the class name unless set."""
    schema_version: ClassVar[int] = 1
    """Raise it when the state's form changes: snapshots of other versions are then ignored."""
    validate_versions: ClassVar[bool] = True
    """Whether `apply_event` refuses an event whose `aggregate_version` is not the next one."""
    snapshot_is_impersonal: ClassVar[bool] = False
    """Whether snapshots may be taken although the events have personal fields: promise it only if the state
    holds nothing of them. A snapshot is stored in clear, and no key destroys it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "aggregate_type" not in cls.__dict__ and not cls.aggregate_type:
            cls.aggregate_type = cls.__name__

    def __init__(self, aggregate_id: UUID) -> None:
        self._aggregate_id = aggregate_id
        self._version = 0
        self._state: TState | None = None
        self._uncommitted: list[DomainEvent] = []

    # -- what a subclass provides --------------------------------------------------------------------

    def _get_initial_state(self) -> TState:
        """The state before the first event, for `_apply` to start from (see `current`)."""
        raise NotImplementedError(f"{type(self).__name__} needs _get_initial_state()")

    def _apply(self, event: DomainEvent) -> None:
        """Set ``self._state`` to what it is after the event. Must not refuse: it has happened."""
        raise NotImplementedError(f"{type(self).__name__} needs _apply(event)")

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def aggregate_id(self) -> UUID:
        return self._aggregate_id

    @property
    def version(self) -> int:
        """The number of events that made the state, uncommitted ones included; 0 for a new aggregate."""
        return self._version

    @property
    def state(self) -> TState | None:
        """The state; None before the first event."""
        return self._state

    @property
    def current(self) -> TState:
        """The state, or the initial one before the first event: never None."""
        return self._get_initial_state() if self._state is None else self._state

    @property
    def uncommitted_events(self) -> list[DomainEvent]:
        """The events recorded since loading or saving, as a copy."""
        return list(self._uncommitted)

    @property
    def has_uncommitted_events(self) -> bool:
        return bool(self._uncommitted)

    def get_next_version(self) -> int:
        """The version that the next event gets."""
        return self._version + 1

    # -- what happens to it ----------------------------------------------------------------------------

    def create_event(self, event_class: type[TEvent], **fields: Any) -> TEvent:
        """A new event of this aggregate: id, type and version are filled in.

        It is made, not applied: hand it to `apply_event`. (In eventsource-py this method applies it, too.)
        """
        filled: dict[str, Any] = {
            "aggregate_id": self._aggregate_id,
            "aggregate_type": self.aggregate_type,
            "aggregate_version": self.get_next_version(),
        }
        return event_class(**{**filled, **fields})

    def apply_event(self, event: DomainEvent, is_new: bool = True) -> None:
        """Change the state by an event, and record it for saving if it is new.

        Raises:
            InvalidEventError: it belongs to another aggregate, or has another version than the next.
        """
        if event.aggregate_id != self._aggregate_id:
            raise InvalidEventError(
                "aggregate_id",
                f"the event belongs to {event.aggregate_type} {event.aggregate_id}, not to "
                f"{self.aggregate_type} {self._aggregate_id}",
            )
        if is_new and self.validate_versions and event.aggregate_version != self._version + 1:
            raise InvalidEventError(
                "aggregate_version",
                f"is {event.aggregate_version}, the next one is {self._version + 1}",
                remedy="Use create_event(), or aggregate_version=self.get_next_version()",
            )
        self._apply(event)
        self._version = self._version + 1 if is_new else event.aggregate_version
        if is_new:
            self._uncommitted.append(event)

    def load_from_history(self, events: Iterable[DomainEvent]) -> None:
        """Rebuild the state from stored events, in order."""
        for event in events:
            self.apply_event(event, is_new=False)

    def mark_events_as_committed(self) -> None:
        """Forget the recorded events: they are stored."""
        self._uncommitted.clear()

    def clear_uncommitted_events(self) -> list[DomainEvent]:
        """Forget the recorded events, and return them."""
        events, self._uncommitted = self._uncommitted, []
        return events

    # -- snapshots ---------------------------------------------------------------------------------------

    @classmethod
    def _state_type(cls) -> Any:
        """The ``TState`` that the class was declared with, looked up through its bases."""
        for base in cls.__mro__:
            for original in get_original_bases(base) if base is not object else ():
                origin = get_origin(original)
                if isinstance(origin, type) and issubclass(origin, AggregateRoot):
                    (argument,) = get_args(original)
                    if not isinstance(argument, TypeVar):
                        return argument
        return Any

    def _serialize_state(self) -> dict[str, Any]:
        """The state as JSON values, for a snapshot."""
        try:
            if isinstance(self._state, BaseModel):
                return self._state.model_dump(mode="json", round_trip=True)
            return {"value": TypeAdapter(self._state_type()).dump_python(self._state, mode="json")}
        except ValueError as error:
            raise InvalidEventError("state", f"cannot be written as JSON: {error}") from error

    def _restore_from_snapshot(self, state: dict[str, Any], version: int) -> None:
        """Take over the state of a snapshot."""
        state_type = self._state_type()
        is_model = isinstance(state_type, type) and issubclass(state_type, BaseModel)
        # As JSON, which is what it is: a strict model would refuse the same values from Python.
        self._state = TypeAdapter(state_type).validate_json(
            to_json(state if is_model else state["value"]), by_alias=True, by_name=True
        )
        self._version = version

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._aggregate_id}, version={self._version})"


class DeclarativeAggregate(AggregateRoot[TState]):
    """An aggregate with one method per event instead of one `_apply` for all.

    Example:
        >>> class Account(DeclarativeAggregate[AccountState]):
        ...     @handles(Deposited)
        ...     def _deposited(self, event: Deposited) -> None:
        ...         self._state = AccountState(balance=self.current.balance + event.amount)

    Raises, when the class is made:
        InvalidOptionError: two methods handle the same event.
    """

    unregistered_event_handling: ClassVar[str] = "ignore"
    """What an event without a method does: ``ignore`` or ``error``."""
    _handlers: ClassVar[dict[type[DomainEvent], str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = {**cls._handlers, **marked_methods(cls)}

    def _apply(self, event: DomainEvent) -> None:
        name = self._handlers.get(type(event))
        if name is not None:
            getattr(self, name)(event)
        elif self.unregistered_event_handling == "error":
            raise InvalidOptionError(
                f"{type(self).__name__} has no method for {type(event).__name__}: add one under "
                f"@handles({type(event).__name__})"
            )
        elif self._state is None:
            self._state = self._get_initial_state()
