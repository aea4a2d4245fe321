"""Events as scenarios compare them: by their class and by what they say.

Ids, times and places (the aggregate, its version, correlation and causation) are left out, since the test did not choose
them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from esource.domain.events import DomainEvent

Expected = DomainEvent | type[DomainEvent]
"""An event that must be equal, or a class of which any instance will do."""


_NOT_CHOSEN = {
    "event_id",
    "occurred_at",
    "aggregate_id",
    "aggregate_type",
    "aggregate_version",
    "correlation_id",
    "causation_id",
}


def same_event(one: DomainEvent, other: DomainEvent) -> bool:
    """Whether two events say the same."""
    return type(one) is type(other) and _content(one) == _content(other)


def _content(event: DomainEvent) -> dict[str, Any]:
    return {name: value for name, value in event if name not in _NOT_CHOSEN}


def _fits(expected: Expected, found: DomainEvent) -> bool:
    return isinstance(found, expected) if isinstance(expected, type) else same_event(expected, found)


def compare(expected: Sequence[Expected], found: Sequence[DomainEvent]) -> None:
    __tracebackhide__ = True
    fits = len(expected) == len(found) and all(map(_fits, expected, found))
    if not fits:
        raise AssertionError(f"expected events:\n{listed(expected)}\nfound events:\n{listed(found)}")


def listed(events: Sequence[Expected]) -> str:
    return "\n".join(f"  {told(event)}" for event in events) or "  none"


def told(event: Expected) -> str:
    """The event with what it says, without what was not chosen and what is as it always is."""
    if isinstance(event, type):
        return f"any {event.__name__}"
    fields = type(event).model_fields
    own = {
        name: value
        for name, value in _content(event).items()
        if name not in DomainEvent.model_fields
        or value != fields[name].get_default(call_default_factory=True)
    }
    return f"{type(event).__name__}({', '.join(f'{name}={value!r}' for name, value in own.items())})"


def require_raised(
    found: Exception | None, wanted: type[Exception] | tuple[type[Exception], ...], match: str
) -> None:
    __tracebackhide__ = True
    if found is None:
        raise AssertionError(f"expected {wanted}, and nothing was raised")
    if not isinstance(found, wanted):
        raise found
    if not re.search(match, str(found)):
        raise AssertionError(f"expected a text matching {match!r}, found {str(found)!r}")
