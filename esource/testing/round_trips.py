"""Whether the events of an application come back equal: what their types prove, and examples for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from esource.codec.codec import Codec
from esource.domain.comparison import difference
from esource.domain.events import DomainEvent
from esource.domain.impossible import require_possible
from esource.domain.registry import EventRegistry, default_registry
from esource.domain.shape import shape_of
from esource.errors import EventSourceError, InvalidOptionError
from esource.moments import to_iso
from esource.tables.rows import EventRow


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What is known of one registered class of events before any event of it is written."""

    event_type: str
    event_class: type[DomainEvent]
    unproved: dict[str, str]
    """Why its events are read back before they are written, by field. Empty: the types prove that they come back
    equal, and nothing is read back."""
    impossible: str = ""
    """Why no event of it can be written; empty if one can."""

    @property
    def is_proved(self) -> bool:
        return not self.unproved and not self.impossible


def round_trips(registry: EventRegistry | None = None) -> list[RoundTrip]:
    """What the declared types of all registered events prove, by event type. No I/O.

    Args:
        registry: Where the events are registered; the one of `register_event` if left out.
    """
    known = default_registry if registry is None else registry
    return [_round_trip(event_type, known.get(event_type)) for event_type in known.list_types()]


def _round_trip(event_type: str, event_class: type[DomainEvent]) -> RoundTrip:
    event_class.model_rebuild()
    try:
        require_possible(event_class)
    except InvalidOptionError as error:
        return RoundTrip(event_type, event_class, {}, str(error))
    return RoundTrip(event_type, event_class, shape_of(event_class).unproved)


def assert_events_come_back(*examples: DomainEvent, registry: EventRegistry | None = None) -> None:
    """Fail unless all registered events come back equal, as far as types and examples can show.

    A class whose types prove it needs no example. Every other one needs at least one event that it might hold; all
    examples are written and read again, without a database.

    Example:
        >>> def test_our_events_come_back():
        ...     assert_events_come_back(OrderPlaced(customer="c", lines=[Line(sku="a"), Discount(percent=5)]))

    Args:
        examples: Events as the application makes them.
        registry: Where the events are registered; the one of `register_event` if left out.

    Raises:
        AssertionError: naming every class that cannot be written, that nothing shows to come back, and every
            example that does not.
    """
    known = default_registry if registry is None else registry
    shown = {type(example) for example in examples}
    problems = []
    for trip in round_trips(known):
        if trip.impossible:
            problems.append(trip.impossible)
        elif trip.unproved and trip.event_class not in shown:
            reasons = "; ".join(f"{name or 'as a whole'}: {reason}" for name, reason in trip.unproved.items())
            problems.append(
                f"{trip.event_class.__name__}: its types do not prove it ({reasons}): give an example"
            )
    codec = Codec(known)
    problems += [problem for example in examples if (problem := _lost(codec, example))]
    if problems:
        raise AssertionError("these events may not come back as they are:\n" + "\n".join(problems))


class _OneKey:
    def __getitem__(self, subject: str) -> bytes:
        return bytes(32)


def _lost(codec: Codec, event: DomainEvent) -> str:
    keys = _OneKey()
    stream = event.aggregate_type or "Example"
    try:
        encoded = codec.encode(
            event.model_copy(update={"aggregate_type": stream}), stream, event.aggregate_id, keys
        )
        row: EventRow = (
            1,
            str(encoded.event_id),
            str(event.aggregate_id),
            stream,
            encoded.event_type,
            _text(encoded.tenant_id),
            encoded.actor_id,
            event.aggregate_version,
            to_iso(encoded.timestamp),
            encoded.payload,
            to_iso(encoded.timestamp),
            None,
        )
        found = codec.decode(row, keys)
    except EventSourceError as error:
        return f"{type(event).__name__}: {error}"
    lost = difference("", event.model_copy(update={"aggregate_type": stream}), found)
    return "" if lost is None else f"{type(event).__name__}: {lost.path}: {lost.problem}. {lost.remedy}"


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
