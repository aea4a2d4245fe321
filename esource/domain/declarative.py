"""Aggregates with one method per event."""

from __future__ import annotations

import logging
from inspect import iscoroutinefunction
from typing import Any, ClassVar

from esource.domain.aggregates import AggregateRoot, TState
from esource.domain.events import DomainEvent
from esource.domain.handles import marked_methods, method_for
from esource.errors import InvalidOptionError

logger = logging.getLogger("esource")


class DeclarativeAggregate(AggregateRoot[TState]):
    """An aggregate with one method per event instead of one `_apply` for all.

    Example:
        >>> class Account(DeclarativeAggregate[AccountState]):
        ...     @handles
        ...     def _deposited(self, event: Deposited) -> None:
        ...         self._state = AccountState(balance=self.current.balance + event.amount)

    A method for a base class is for the events derived from it, too, unless they have one of their own.

    Raises:
        InvalidOptionError: when the class is made: two methods handle the same event, or one is ``async def``.
    """

    unregistered_event_handling: ClassVar[str] = "warn"
    """What an event without a method does: ``warn`` (it changes nothing, and the log says so, once for each class of
    events), ``ignore`` (it changes nothing) or ``error``."""
    _handlers: ClassVar[dict[type[DomainEvent], str]] = {}
    _methods: ClassVar[dict[type[DomainEvent], str | None]] = {}
    """What was found for the classes of events that have come."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = {**cls._handlers, **marked_methods(cls)}
        cls._methods = {}
        for name in cls._handlers.values():
            if iscoroutinefunction(getattr(cls, name)):
                raise InvalidOptionError(f"{cls.__name__}.{name} must be a plain `def`: it is not awaited")

    def _apply(self, event: DomainEvent) -> None:
        try:
            name = self._methods[type(event)]
        except KeyError:
            name = self._find_method(type(event))
        if name is not None:
            if getattr(self, name)(event) is not None:
                raise InvalidOptionError(
                    f"{type(self).__name__}.{name} returned something, which would be lost: set self._state, or "
                    "change self.current"
                )
        elif self.unregistered_event_handling == "error":
            raise InvalidOptionError(
                f"{type(self).__name__} has no method for {type(event).__name__}: add one under "
                f"@handles({type(event).__name__})"
            )
        else:
            self._state = self.current

    @classmethod
    def _find_method(cls, event_class: type[DomainEvent]) -> str | None:
        name = cls._methods[event_class] = method_for(cls._handlers, event_class)
        if name is None and cls.unregistered_event_handling == "warn":
            logger.warning(
                "%s has no method for %s, which changes nothing in it: add one under @handles(%s), or set "
                "unregistered_event_handling = 'ignore' if that is meant",
                cls.__name__,
                event_class.__name__,
                event_class.__name__,
            )
        return name
