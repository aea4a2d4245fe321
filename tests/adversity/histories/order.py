"""One pass over a history in the order of time: what has ended is known to whatever begins afterwards.

The positions say in which order the appends happened, so a read that shows the log up to a position happened between
that position and the next; a read of one stream, or a refusal that names a version, likewise. Everything gets the
earliest place that its answer and its past allow. If no answer contradicts its place, the places are a linearization;
if one does, there is none.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

from adversity.histories.evidence import Evidence, Place, Shown, Write, shown_by
from adversity.histories.history import NEVER, Operation


def check_order(evidence: Evidence) -> None:
    """Report what contradicts the order of time."""
    _Pass(evidence).run()


class _Pass:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        # Only what was seen: what nobody ever sees is lost, and not missed again by every read.
        self.log = sorted(
            (place.position, event) for event, place in evidence.places.items() if place.position is not None
        )
        self.streams: dict[str, list[tuple[int, str, int, int]]] = defaultdict(list)
        """Version, event, position and the moment in which it was asked for, of each event."""
        for event, place in evidence.places.items():
            begun = evidence.begun(place.stream, event)
            self.streams[place.stream].append((place.version, event, place.position or NEVER, begun))
        for events in self.streams.values():
            events.sort()
        self.position = 0
        """The greatest position that is known by now."""
        self.versions: dict[str, int] = defaultdict(int)
        """The greatest version of each stream that is known by now."""
        self.known_at: dict[str, tuple[int, dict[str, int]]] = {}
        """What was known when an operation began."""

    def run(self) -> None:
        # What ends in the moment in which another begins is not before it.
        moments: list[tuple[int, int, Operation]] = []
        for operation in self.evidence.operations:
            moments.append((operation.invoked, 0, operation))
            if operation.returned < NEVER:
                moments.append((operation.returned, 1, operation))
        for _, is_end, operation in sorted(moments, key=lambda moment: moment[:2]):
            if not is_end:
                self.known_at[operation.name] = self.position, dict(self.versions)
            elif operation.asked["do"] == "read_query":
                if operation.is_ok:
                    self._read_by_query(operation)
            elif operation.asked["do"] != "append":
                if operation.is_ok:
                    self._read(operation)
            elif operation.is_ok:
                self._acknowledged(operation)
            elif operation.end == "conflict":
                self._refused(operation)
        for write in self.evidence.writes.values():
            self._timely(write)

    def _learn(self, stream: str, version: int) -> None:
        """The stream has come to this version, and so the log to that version's position."""
        self.versions[stream] = max(self.versions[stream], version)
        place = self.evidence.places.get(self.evidence.at_version.get((stream, version), ""))
        if place is not None and place.stream == stream and place.position is not None:
            self.position = max(self.position, place.position)

    # -- appends ---------------------------------------------------------------------------------------

    def _acknowledged(self, operation: Operation) -> None:
        for asked, told in zip(operation.asked["parts"], operation.answer["parts"], strict=True):
            if all(event in self.evidence.places for event in asked["events"]):
                self._learn(asked["stream"], told["version"])

    def _timely(self, write: Write) -> None:
        """An append's positions are past all that was known when it was asked for first."""
        begun = min((a for a in write.attempts if not a.wrote_nothing), key=lambda a: a.invoked, default=None)
        if begun is None:
            return
        known, _ = self.known_at[begun.name]
        for _, event in write.events:
            place = self.evidence.places.get(event)
            if place is None or place.position is None or self.evidence.was_seen_before(event, begun.invoked):
                continue  # seen before it was asked for: a phantom
            if place.position <= known:
                self.evidence.report(
                    "untimely", event, f"{event} is at {place.position}; {begun} began when {known} was known"
                )

    def _refused(self, operation: Operation) -> None:
        number, actual = operation.answer["part"], operation.answer.get("actual")
        parts = operation.asked["parts"]
        stream, expected = parts[number]["stream"], parts[number]["expected"]
        # A transaction sees its own events, too.
        own = sum(len(part["events"]) for part in parts[:number] if part["stream"] == stream)
        least, most = self._range(operation, stream)
        if "match" in operation.answer:
            is_possible = True  # `check_conditions` has judged that
            if self.evidence.was_reported("unjustified", operation.name):
                return
            self.position = max(self.position, operation.answer["match"])
        elif actual is None:
            is_possible = any(_refuses(expected, version + own) for version in range(least, most + 1))
        else:
            is_possible = least <= actual - own <= most and _refuses(expected, actual)
        if not is_possible:
            self.evidence.report(
                "unjustified",
                operation.name,
                f"{operation} expected {expected} of {stream} and was told that it is at {actual}: it was at "
                f"{least} to {most}" + (f", and {own} of its own" if own else ""),
            )
            return
        if actual is not None:
            self._learn(stream, actual - own)
        for part in parts[number : number + 1]:
            write = self.evidence.write_of(part["stream"], part["events"][0])
            if write is not None and write.known < operation.invoked:
                self.evidence.report(
                    "unjustified",
                    operation.name,
                    f"{operation} is in conflict with itself: it was stored before",
                )

    def _range(self, operation: Operation, stream: str) -> tuple[int, int]:
        """The versions that a stream can have had while an operation ran."""
        known, versions = self.known_at[operation.name]
        least, most = versions.get(stream, 0), 0
        for version, _, position, begun in self.streams[stream]:
            if position <= known:
                least = max(least, version)
            if begun <= operation.returned:
                most = max(most, version)
        return least, max(least, most)

    # -- reads -----------------------------------------------------------------------------------------

    def _read(self, operation: Operation) -> None:
        asked, shown = operation.asked, shown_by(operation)
        if asked["do"] == "read_log":
            wanted = self._wanted_of_log(operation, shown)
        else:
            wanted = self._wanted_of_stream(operation, shown)
        has = {event for *_, event in shown}
        for event in wanted:
            if event not in has:
                self._report_missing(operation, event, shown)
        for _, stream, version, _ in shown:
            self._learn(stream, version)

    def _read_by_query(self, operation: Operation) -> None:
        known, _ = self.known_at[operation.name]
        head = operation.answer["head"]
        if head < known:
            self.evidence.report(
                "missed",
                operation.name,
                f"{operation} says that the log ends at {head}; {known} was known before",
            )
        self.position = max(self.position, head)

    def _wanted_of_log(self, operation: Operation, shown: list[Shown]) -> list[str]:
        """Everything up to the last event shown, and up to all that was known before."""
        known, _ = self.known_at[operation.name]
        last = max((position or 0 for position, *_ in shown), default=0)
        limit = operation.asked.get("limit")
        end = last if limit is not None and len(shown) >= limit else max(known, last)
        first = bisect_right(self.log, (operation.asked["after"], "\U0010ffff"))
        return [event for _, event in self.log[first : bisect_right(self.log, (end, "\U0010ffff"))]]

    def _wanted_of_stream(self, operation: Operation, shown: list[Shown]) -> list[str]:
        stream, after = operation.asked["stream"], operation.asked["after"]
        least, _ = self._range(operation, stream)
        last = max((version for _, _, version, _ in shown), default=0)
        return [event for version, event, *_ in self.streams[stream] if after < version <= max(least, last)]

    def _report_missing(self, operation: Operation, event: str, shown: list[Shown]) -> None:
        place = self.evidence.places[event]
        write = self.evidence.write_of(place.stream, event)
        if write is not None and any((s, e) in write.events for _, s, _, e in shown):
            return  # torn
        if any(_is_past(place, *later) for later in shown):
            kind, why = "skipped", "and shows later ones"
        elif write is not None and write.known < operation.invoked:
            kind, why = "missed", "which was acknowledged before it began"
        elif self.evidence.was_seen_before(event, operation.invoked):
            kind, why = "backwards", "which an earlier read shows"
        else:
            kind, why = "missed", "which is before what was known when it began"
        self.evidence.report(kind, event, f"{operation} lacks {event} at {place}, {why}")


def _refuses(expected: Any, version: int) -> bool:
    if expected == "any":
        return False
    return version == 0 if expected == "exists" else version != expected


def _is_past(place: Place, position: int | None, stream: str, version: int, event: str) -> bool:
    """Whether what was shown is past that place."""
    if position is None or place.position is None:
        return stream == place.stream and version > place.version
    return position > place.position
