"""What a history says of each append and of each event: who asked for it, who saw it, and where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from adversity.histories.history import NEVER, Operation

Shown = tuple[int | None, str, int, str]
"""An event in the answer to a read: position (where it was said), stream, version, id."""


@dataclass(frozen=True)
class Anomaly:
    """Something that no correct store does: its kind, and what happened to whom."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Place:
    """Where an event is stored."""

    stream: str
    version: int
    position: int | None = None


@dataclass
class Write:
    """Events that belong together, and every attempt to append them."""

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    attempts: list[Operation] = field(default_factory=list)

    @property
    def events(self) -> list[tuple[str, str]]:
        """Stream and id of each, in order."""
        return [(stream, event) for stream, events in self.parts for event in events]

    @property
    def may_exist(self) -> bool:
        return any(not attempt.wrote_nothing for attempt in self.attempts)

    @property
    def begun(self) -> int:
        """When it can have happened first."""
        return min((a.invoked for a in self.attempts if not a.wrote_nothing), default=NEVER)

    @property
    def known(self) -> int:
        """When somebody knew that it has happened."""
        return min((a.returned for a in self.attempts if a.is_ok), default=NEVER)


class Evidence:
    """The history, indexed; and what is wrong with it, as it is found."""

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self.anomalies: list[Anomaly] = []
        self._reported: set[tuple[str, str]] = set()
        self.writes: dict[object, Write] = {}
        self._writes_of: dict[tuple[str, str], list[Write]] = defaultdict(list)
        self.attempts_of: dict[str, list[Operation]] = defaultdict(list)
        self.places: dict[str, Place] = {}
        """Where each event was seen."""
        self.seen_by: dict[str, list[Operation]] = defaultdict(list)
        self.at_version: dict[tuple[str, int], str] = {}
        self.at_position: dict[int, str] = {}
        for operation in operations:
            if operation.asked["do"] == "append":
                self._add_append(operation)
        for operation, shown in self.reads():
            for event in shown:
                self._add_seen(operation, event)

    def report(self, kind: str, subject: str, text: str) -> None:
        """Each subject once for each kind: one fault shows in every later read."""
        if (kind, subject) not in self._reported:
            self._reported.add((kind, subject))
            self.anomalies.append(Anomaly(kind, subject, text))

    def was_reported(self, kind: str, subject: str) -> bool:
        return (kind, subject) in self._reported

    def reads(self) -> Iterator[tuple[Operation, list[Shown]]]:
        """Every read that was answered, and what it showed."""
        for operation in self.operations:
            if operation.is_ok and operation.asked["do"] in ("read_log", "read_stream"):
                yield operation, shown_by(operation)

    def write_of(self, stream: str, event: str) -> Write | None:
        """Whose event it is; None if nobody's, or if that cannot be said."""
        found = self._writes_of.get((stream, event), [])
        likely = [write for write in found if write.may_exist] or found
        return likely[0] if len(likely) == 1 else None

    def was_asked_for(self, stream: str, event: str) -> bool:
        return (stream, event) in self._writes_of

    def begun(self, stream: str, event: str) -> int:
        """When somebody asked first for an event that may have been stored."""
        return min((write.begun for write in self._writes_of.get((stream, event), [])), default=NEVER)

    def was_seen_before(self, event: str, moment: int) -> bool:
        return any(read.returned < moment for read in self.seen_by[event])

    def _add_append(self, operation: Operation) -> None:
        parts = tuple((part["stream"], tuple(part["events"])) for part in operation.asked["parts"])
        write = self.writes.get(parts)
        if write is None:
            write = self.writes[parts] = Write(parts)
            for place in set(write.events):
                self._writes_of[place].append(write)
        write.attempts.append(operation)
        for event in {event for _, event in write.events}:
            self.attempts_of[event].append(operation)

    def _add_seen(self, operation: Operation, shown: Shown) -> None:
        position, stream, version, event = shown
        self.seen_by[event].append(operation)
        place = self.places.setdefault(event, Place(stream, version))
        if (
            (place.stream, place.version) != (stream, version)
            or None
            not in (
                place.position,
                position,
            )
            and place.position != position
        ):
            self.report(
                "duplicated",
                event,
                f"{operation} shows {event} at {_at(stream, version, position)}, another read or the same one at "
                f"{_at(place.stream, place.version, place.position)}",
            )
            return
        if place.position is None:
            place.position = position
        others = [self.at_version.setdefault((stream, version), event)]
        if position is not None:
            others.append(self.at_position.setdefault(position, event))
        for other in others:
            if other != event:
                self.report(
                    "collided", event, f"{event} and {other} are both at {_at(stream, version, position)}"
                )


def shown_by(operation: Operation) -> list[Shown]:
    """What a read was answered."""
    events: Iterable[list[object]] = operation.answer["events"]
    if operation.asked["do"] == "read_stream":
        return [(None, operation.asked["stream"], version, event) for version, event in events]  # type: ignore[misc]
    return [tuple(event) for event in events]  # type: ignore[misc]


def _at(stream: str, version: int, position: int | None) -> str:
    return f"{stream} version {version}" + ("" if position is None else f", position {position}")
