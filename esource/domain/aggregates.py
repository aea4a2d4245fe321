"""Aggregates: state rebuilt from events, and commands that record new ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin
from uuid import UUID
from weakref import WeakKeyDictionary

from typing_extensions import get_original_bases

from esource.checks import check_id
from esource.domain.events import UNASSIGNED, DomainEvent, filled_in
from esource.domain.handles import marked_methods
from esource.domain.states import StateForm
from esource.errors import InvalidEventError, InvalidOptionError

TState = TypeVar("TState")
TEvent = TypeVar("TEvent", bound=DomainEvent)


class AggregateRoot(Generic[TState]):
    """State that changes only through events.

    A subclass says how an event changes the state (`_apply`), and offers commands that check the state and
    call `apply_event`.

    Example:
        >>> class Account(AggregateRoot[AccountState]):
        ...     def _apply(self, event: DomainEvent) -> None:
        ...         if isinstance(event, Deposited):
        ...             self._state = AccountState(balance=self.current.balance + event.amount)
        ...
        ...     def deposit(self, amount: int) -> None:
        ...         self.apply_event(Deposited(amount=amount))
    """

    aggregate_type: ClassVar[str] = ""
    """The stored name of this kind of aggregate; the class name unless set, here or in a base class."""
    _is_named_by_class: ClassVar[bool] = True
    schema_version: ClassVar[int] = 1
    """Raise it when the state's form changes: snapshots of other versions are then ignored."""
    validate_versions: ClassVar[bool] = True
    """Whether `apply_event` refuses an event whose `aggregate_version` is not the next one."""
    snapshot_is_impersonal: ClassVar[bool] = False
    """Whether snapshots may be taken although the events have personal fields: promise it only if the state
    holds nothing of them. A snapshot is stored in clear, and no key destroys it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "aggregate_type" in cls.__dict__:
            cls._is_named_by_class = False
        elif cls._is_named_by_class:
            cls.aggregate_type = cls.__name__

    def __init__(self, aggregate_id: UUID) -> None:
        self._aggregate_id = check_id("aggregate_id", aggregate_id)
        self._version = 0
        self._state: TState | None = None
        self._before_first: TState | None = None
        self._uncommitted: list[DomainEvent] = []
        self._untold: list[list[DomainEvent]] = []
        """What is stored, save by save, and not told to the repository's publisher yet."""
        self._stored_event_id: UUID | None = None
        """The id of the last event of it that a repository has read or stored, if that is known."""

    def _get_initial_state(self) -> TState:
        """The state before the first event, for `_apply` to start from (see `current`): what the class of the
        state makes without arguments, unless a subclass says otherwise.

        Raises:
            InvalidOptionError: it makes nothing without arguments.
        """
        made: TState = _make_state(type(self))
        return made

    def _apply(self, event: DomainEvent) -> None:
        """Set ``self._state`` to what it is after the event, or change `current`. Must not refuse: it has
        happened."""
        hint = ", or DeclarativeAggregate as its base: it has methods under @handles"
        raise NotImplementedError(
            f"{type(self).__name__} needs _apply(event){hint if marked_methods(type(self)) else ''}"
        )

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
        """The state, or the initial one before the first event: never None.

        What `_apply` changes in it is kept: ``self.current.status = "shipped"`` does for the first event, too.
        """
        if self._state is not None:
            return self._state
        if self._before_first is None:
            self._before_first = self._get_initial_state()
        return self._before_first

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

    def create_event(self, event_class: type[TEvent], **fields: Any) -> TEvent:
        """A new event of this aggregate: id, type and version are filled in.

        It is made, not applied: hand it to `apply_event`. (In eventsource-py this method applies it, too.)
        ``self.apply_event(Deposited(amount=5))`` comes to the same, and a type checker knows the fields.

        Raises:
            InvalidEventError: the event has no such field.
            InvalidOptionError: this is no class of events.
        """
        if not isinstance(event_class, type):
            raise InvalidOptionError(
                f"create_event takes the class of an event and its fields, not {event_class!r}"
            )
        _require_fields(event_class, fields)
        filled: dict[str, Any] = {
            "aggregate_id": self._aggregate_id,
            "aggregate_type": self.aggregate_type,
            "aggregate_version": self.get_next_version(),
        }
        return event_class(**{**filled, **fields})

    def apply_event(self, event: DomainEvent, is_new: bool = True) -> None:
        """Change the state by an event, and record it for saving if it is new.

        What a new event leaves open (`aggregate_id`, `aggregate_type`, `aggregate_version`) is filled in: what
        is recorded is then a copy of it.

        Raises:
            InvalidEventError: it belongs to another aggregate, or has another version than the next.
        """
        if is_new:
            event = self._completed(event)
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
                remedy="Leave aggregate_version out: it is filled in",
            )
        self._apply(event)
        if self._state is None:
            self._state = self._before_first
        self._version = self._version + 1 if is_new else event.aggregate_version
        if is_new:
            self._uncommitted.append(event)

    def _completed(self, event: TEvent) -> TEvent:
        """The event with what it leaves open filled in; the event itself if that is nothing."""
        if isinstance(event, type):
            raise InvalidOptionError(f"apply_event takes an event, not {event!r}")
        missing: dict[str, Any] = {}
        if event.aggregate_id == UNASSIGNED:
            missing["aggregate_id"] = self._aggregate_id
        if not event.aggregate_type:
            missing["aggregate_type"] = self.aggregate_type
        if "aggregate_version" not in event.model_fields_set:
            missing["aggregate_version"] = self._version + 1
        return filled_in(event, missing) if missing else event

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

    def _serialize_state(self) -> dict[str, Any]:
        """The state as JSON values, for a snapshot.

        Raises:
            InvalidEventError: it would not come back equal.
        """
        return _state_form(type(self)).written(self._state)

    def _restore_from_snapshot(self, state: dict[str, Any], version: int) -> None:
        """Take over the state of a snapshot."""
        self._state = _state_form(type(self)).read(state)
        self._version = version

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._aggregate_id}, version={self._version})"


_state_types: WeakKeyDictionary[type, Any] = WeakKeyDictionary()


def _state_type(aggregate_class: type[AggregateRoot[Any]]) -> Any:
    """The ``TState`` that the class was declared with, looked up through its bases once."""
    if aggregate_class not in _state_types:
        _state_types[aggregate_class] = _find_state_type(aggregate_class)
    return _state_types[aggregate_class]


_state_forms: WeakKeyDictionary[type, StateForm] = WeakKeyDictionary()


def _state_form(aggregate_class: type[AggregateRoot[Any]]) -> StateForm:
    if aggregate_class not in _state_forms:
        _state_forms[aggregate_class] = StateForm(_state_type(aggregate_class))
    return _state_forms[aggregate_class]


def require_restorable(aggregate_class: Any) -> None:
    """Refuse a class of aggregates whose snapshots could never be taken. What is no such class is not looked at.

    Raises:
        InvalidOptionError: its state has a field that can never come back from JSON.
    """
    is_one = isinstance(aggregate_class, type) and issubclass(aggregate_class, AggregateRoot)
    if is_one and not writes_itself(aggregate_class):
        _state_form(aggregate_class).require_possible()


def writes_itself(aggregate_class: type[AggregateRoot[Any]]) -> bool:
    """Whether a class has a way of its own to write its state for a snapshot."""
    return any(
        "_serialize_state" in vars(base) for base in aggregate_class.__mro__ if base is not AggregateRoot
    )


def _find_state_type(aggregate_class: type[AggregateRoot[Any]]) -> Any:
    for base in aggregate_class.__mro__:
        for original in get_original_bases(base) if base is not object else ():
            origin = get_origin(original)
            if isinstance(origin, type) and issubclass(origin, AggregateRoot):
                (argument,) = get_args(original)
                if not isinstance(argument, TypeVar):
                    return argument
    return Any


def _make_state(aggregate_class: type[AggregateRoot[Any]]) -> Any:
    state_type = _state_type(aggregate_class)
    make = get_origin(state_type) or state_type
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise InvalidOptionError(
            f"{aggregate_class.__name__} has no state to begin with: {getattr(make, '__name__', make)} cannot be "
            f"made without arguments. Give its fields defaults, or {aggregate_class.__name__} a method "
            "_get_initial_state()"
        ) from error


def _require_fields(event_class: type[DomainEvent], given: Iterable[str]) -> None:
    """Refuse names that are not fields of the event.

    Raises:
        InvalidEventError: a name is none of the event's: pydantic would drop the value without a word.
    """
    fields = event_class.model_fields
    unknown = [name for name in given if name not in fields]
    if unknown and event_class.model_config.get("extra") != "allow":
        aliases = {alias for field in fields.values() for alias in (field.alias, field.validation_alias)}
        for name in unknown:
            if name not in aliases:
                own = ", ".join(field for field in fields if field not in DomainEvent.model_fields) or "none"
                raise InvalidEventError(name, f"is no field of {event_class.__name__} (its own: {own})")
