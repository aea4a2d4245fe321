"""Whether each condition of a history held when its append was stored, and each refusal and reading by query is right.

The log is in one order, so no search is needed: of an append with a condition, everything that the condition excludes has to
be up to its ``after``, or past the append itself.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from adversity.histories.evidence import Evidence, Write
from adversity.histories.history import Operation

Items = list[list[str]]


def check_conditions(evidence: Evidence) -> None:
    """Report what contradicts the conditions."""
    log = _Log(evidence)
    for write in evidence.writes.values():
        _check_accepted(evidence, log, write)
    for operation in evidence.operations:
        if operation.asked["do"] == "read_query" and operation.is_ok:
            _check_reading(evidence, log, operation)
        elif "match" in operation.answer:
            _check_refused(evidence, log, operation)


class _Log:
    """The events that were seen in the log, with their tags."""

    def __init__(self, evidence: Evidence) -> None:
        tags: dict[tuple[str, str], set[str]] = {}
        for operation in evidence.operations:
            for part in operation.asked.get("parts", ()):
                for event in part["events"]:
                    tags[part["stream"], event] = set(part.get("tags", ()))
        self.events = sorted(
            (place.position, place.stream, event)
            for event, place in evidence.places.items()
            if place.position is not None
        )
        self.positions = [position for position, *_ in self.events]
        self.tags = [tags.get((stream, event), set()) for _, stream, event in self.events]

    def matching(self, items: Items, after: int, before: int) -> list[int]:
        """The positions between two others whose events have all tags of any of the items."""
        return [
            self.positions[place]
            for place in range(bisect_right(self.positions, after), bisect_right(self.positions, before - 1))
            if any(self.tags[place].issuperset(item) for item in items)
        ]


def _check_accepted(evidence: Evidence, log: _Log, write: Write) -> None:
    """Of the attempts that may have stored it, one at least had a condition that held."""
    excluded: list[str] = []
    for attempt in write.attempts:
        if attempt.wrote_nothing or _was_repeated(attempt):
            continue
        found = [
            (part["condition"], position, match)
            for part in attempt.asked["parts"]
            if "condition" in part and (position := _position(evidence, part)) is not None
            for match in log.matching(part["condition"]["items"], part["condition"]["after"], position)[:1]
        ]
        if not found:
            return
        condition, position, match = found[0]
        excluded.append(f"{attempt} is at {position}, although {match} is excluded past {condition['after']}")
    for text in excluded:
        evidence.report("excluded", write.events[0][1], text)


def _position(evidence: Evidence, part: dict[str, Any]) -> int | None:
    place = evidence.places.get(part["events"][0])
    return None if place is None or place.stream != part["stream"] else place.position


def _was_repeated(attempt: Operation) -> bool:
    return attempt.is_ok and any(told.get("repeated") for told in attempt.answer["parts"])


def _check_refused(evidence: Evidence, log: _Log, operation: Operation) -> None:
    condition, match = (
        operation.asked["parts"][operation.answer["part"]]["condition"],
        operation.answer["match"],
    )
    first = log.matching(condition["items"], condition["after"], match + 1)[:1]
    event = evidence.at_position.get(match)
    begun = event is not None and evidence.begun(evidence.places[event].stream, event) <= operation.returned
    if first != [match] or not begun:
        evidence.report(
            "unjustified",
            operation.name,
            f"{operation} was refused for {match}, past {condition['after']} {first or 'nothing'} is excluded",
        )


def _check_reading(evidence: Evidence, log: _Log, operation: Operation) -> None:
    asked, head = operation.asked, operation.answer["head"]
    wanted = set(log.matching(asked["items"], asked["after"], head + 1))
    shown = set(operation.answer["positions"])
    for position in sorted(wanted - shown):
        evidence.report(
            "missed", f"{operation.name} {position}", f"{operation} lacks {position}, up to {head}"
        )
    for position in sorted(shown - wanted):
        evidence.report(
            "phantom", f"{operation.name} {position}", f"{operation} shows {position}, not asked for"
        )
