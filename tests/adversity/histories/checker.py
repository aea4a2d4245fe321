"""Finds what no correct event store does in the history of several clients.

The events are a list to which everybody appends, as in Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation
Anomalies from Experimental Observations", VLDB 2020): every read shows a piece of the list, so that the order of the
writes can be read off instead of being searched for. What is left of a search for linearizability (Wing and Gong,
"Testing and Verifying Concurrent Objects", JPDC 1993; Lowe, "Testing for Linearizability", 2017) is one pass in the
order of time, `order`: whatever began after something had ended must see it.

The anomalies, by name:

    lost          acknowledged, and no read shows it
    missed        a read lacks what had been acknowledged, or was known otherwise, before it began
    backwards     a read lacks what an earlier read had shown
    skipped       a read lacks an event and shows a later one: whoever goes on from there never sees it
    phantom       a read shows what nobody appended, what was refused or rolled back, or what was not asked for yet
    torn          a read shows a part of an append
    duplicated    an event is stored at two places
    collided      two events are stored at one place
    reordered     events come in another order than that of their positions, their versions or their append
    hole          a version of a stream is missing for good
    misreported   an append was told another place than its events have, or wrongly that they were stored before
    accepted      an append was accepted although the stream was not at the version that it expected
    unjustified   an append was refused although the stream was where it had to be
    excluded      an append was accepted although an event had come that its condition excludes
    untimely      an append got a position before one that was known before it began

It knows nothing of esource. By hand: ``PYTHONPATH=tests python -m histories.checker FILE...``
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

from adversity.histories.conditions import check_conditions
from adversity.histories.evidence import Anomaly, Evidence, Shown, shown_by
from adversity.histories.history import Operation, load
from adversity.histories.order import check_order

Expected = int | str


def check(operations: list[Operation]) -> list[Anomaly]:
    """Everything that is wrong with a history; nothing, of a correct store."""
    evidence = Evidence(operations)
    for operation, shown in evidence.reads():
        _check_sequence(evidence, operation, shown)
        _check_origin(evidence, operation, shown)
        _check_wholeness(evidence, operation, shown)
    for operation in operations:
        if operation.asked["do"] == "append":
            if operation.is_ok:
                _check_acknowledgement(evidence, operation)
            elif operation.end == "duplicate":
                _check_duplicate(evidence, operation)
    _check_losses(evidence)
    check_conditions(evidence)
    check_order(evidence)
    return evidence.anomalies


# -- each read by itself ---------------------------------------------------------------------------------


def _check_sequence(evidence: Evidence, operation: Operation, shown: list[Shown]) -> None:
    last_position = operation.asked["after"] if operation.asked["do"] == "read_log" else 0
    is_from_start = operation.asked["after"] == 0
    last_version: dict[str, int] = {}
    if operation.asked["do"] == "read_stream":
        last_version[operation.asked["stream"]] = operation.asked["after"]
    for event, times in Counter(event for *_, event in shown).items():
        if times > 1:
            evidence.report("duplicated", event, f"{operation} shows {event} {times} times")
    for position, stream, version, event in shown:
        before = last_version.get(stream, 0 if is_from_start else None)
        if position is not None and position <= last_position:
            evidence.report(
                "reordered", event, f"{operation} shows {event} at {position} after {last_position}"
            )
        elif before is not None and version <= before:
            evidence.report(
                "reordered",
                event,
                f"{operation} shows {event}, version {version} of {stream}, after {before}",
            )
        elif before is not None:
            for missing in range(before + 1, version):
                if (stream, missing) not in evidence.at_version:
                    evidence.report(
                        "hole", f"{stream} {missing}", f"{operation} shows no version {missing} of {stream}"
                    )
        last_position = max(last_position, position or 0)
        last_version[stream] = max(version, before or 0)


def _check_origin(evidence: Evidence, operation: Operation, shown: list[Shown]) -> None:
    for _, stream, _, event in shown:
        if not evidence.was_asked_for(stream, event):
            text = f"{operation} shows {event} in {stream}, which nobody appended"
        elif evidence.begun(stream, event) > operation.returned:
            refused = all(attempt.wrote_nothing for attempt in evidence.attempts_of[event])
            why = "was refused or rolled back" if refused else "nobody had asked for yet"
            text = f"{operation} shows {event} in {stream}, which {why}"
        else:
            continue
        evidence.report("phantom", event, text)


def _check_wholeness(evidence: Evidence, operation: Operation, shown: list[Shown]) -> None:
    """Of every append that a read shows, it shows all that its range can hold, in the append's order."""
    asked = operation.asked
    is_log = asked["do"] == "read_log"
    order = {(stream, event): at for at, (_, stream, _, event) in enumerate(shown)}
    is_cut = _is_cut(operation, shown)
    seen_writes = {
        id(write): write for _, stream, _, event in shown if (write := evidence.write_of(stream, event))
    }
    for write in seen_writes.values():
        events = [event for event in write.events if is_log or event[0] == asked["stream"]]
        found = [at for at, event in enumerate(events) if event in order]
        if [order[events[at]] for at in found] != sorted(order[events[at]] for at in found):
            evidence.report(
                "reordered",
                events[0][1],
                f"{operation} shows an append in another order than its own: {events}",
            )
        for at, (stream, event) in enumerate(events):
            if (stream, event) in order or (is_cut and at > found[-1]):
                continue
            place = evidence.places.get(event)
            key = None if place is None else place.position if is_log else place.version
            # What is before the first one may lie before the range; the last read of all decides that.
            if at > found[0] or asked["after"] == 0 or (key is not None and key > asked["after"]):
                evidence.report("torn", events[0][1], f"{operation} shows a part of {events}, not {event}")


def _is_cut(operation: Operation, shown: list[Shown]) -> bool:
    """Whether a limit ended the read."""
    limit = operation.asked.get("limit")
    return limit is not None and len(shown) >= limit


# -- answers to appends ----------------------------------------------------------------------------------


def _check_acknowledgement(evidence: Evidence, operation: Operation) -> None:
    for asked, told in zip(operation.asked["parts"], operation.answer["parts"], strict=True):
        stream, events, expected = asked["stream"], asked["events"], asked["expected"]
        first = told["version"] - len(events) + 1
        if not _is_taken_at(expected, first - 1):
            evidence.report(
                "accepted",
                operation.name,
                f"{operation} expected {expected} of {stream} and follows {first - 1}",
            )
        for version, event in enumerate(events, first):
            place = evidence.places.get(event)
            told_position = told.get("position") if event == events[-1] else None
            if place is not None and (place.stream, place.version) != (stream, version):
                is_right = False
            else:
                known = None if place is None else place.position
                is_right = None in (known, told_position) or known == told_position
            if not is_right:
                evidence.report(
                    "misreported",
                    operation.name,
                    f"{operation} was told version {version}, position {told_position} of {event}: it is at {place}",
                )
            other = evidence.at_version.setdefault((stream, version), event)
            if other != event:
                evidence.report(
                    "collided", event, f"{operation} was told version {version} of {stream}, where {other} is"
                )
        others = [other for other in evidence.attempts_of[events[0]] if other is not operation]
        if told.get("repeated"):
            if not any(not other.wrote_nothing and other.invoked < operation.returned for other in others):
                evidence.report(
                    "misreported", operation.name, f"{operation} was told that its events were stored before"
                )
        elif any(other.is_ok and not _is_repeated(other, events[0]) for other in others):
            evidence.report("duplicated", events[0], f"{events} were acknowledged as new more than once")


def _is_taken_at(expected: Expected, version: int) -> bool:
    """Whether an append that expects this is taken by a stream at that version."""
    if expected == "any":
        return True
    return version > 0 if expected == "exists" else version == expected


def _is_repeated(operation: Operation, event: str) -> bool:
    return any(
        event in asked["events"] and told.get("repeated")
        for asked, told in zip(operation.asked["parts"], operation.answer["parts"], strict=True)
    )


def _check_duplicate(evidence: Evidence, operation: Operation) -> None:
    events = operation.asked["parts"][operation.answer["part"]]["events"]
    others = [
        other
        for event in events
        for other in evidence.attempts_of[event]
        if other is not operation and not other.wrote_nothing and other.invoked < operation.returned
    ]
    if not others and len(set(events)) == len(events):
        evidence.report(
            "unjustified", operation.name, f"{operation} was refused for ids that nobody else used: {events}"
        )


def _check_losses(evidence: Evidence) -> None:
    """What was acknowledged has to be in a read that began afterwards and would have shown it."""
    logs: list[Operation] = []
    streams: dict[str, list[Operation]] = defaultdict(list)
    for operation, shown in evidence.reads():
        if operation.asked["do"] == "read_stream":
            streams[operation.asked["stream"]].append(operation)
        elif not _is_cut(operation, shown):
            logs.append(operation)
    for write in evidence.writes.values():
        for attempt in write.attempts:
            if not attempt.is_ok:
                continue
            for asked, told in zip(attempt.asked["parts"], attempt.answer["parts"], strict=True):
                end = told.get("position") or 0
                first = told["version"] - len(asked["events"]) + 1
                for version, event in enumerate(asked["events"], first):
                    if event in evidence.places:
                        continue
                    for read in logs + streams[asked["stream"]]:
                        place = (
                            version if read.asked["do"] == "read_stream" else end - len(asked["events"]) + 1
                        )
                        after = read.asked["after"]
                        if read.invoked > attempt.returned and (after == 0 or after < place):
                            evidence.report(
                                "lost", event, f"{attempt} was acknowledged; {read} does not show {event}"
                            )
                            break


def main(paths: list[str]) -> int:
    operations = load(map(Path, paths))
    print(summary(operations))
    anomalies = check(operations)
    for anomaly in anomalies:
        print(anomaly)
    return 1 if anomalies else 0


def summary(operations: list[Operation]) -> str:
    """How much there is in a history."""
    counts = Counter(f"{operation.asked['do']} {operation.end}" for operation in operations)
    shown = sum(
        len(shown_by(o)) for o in operations if o.is_ok and o.asked["do"] in ("read_log", "read_stream")
    )
    return f"{len(operations)} operations: {dict(sorted(counts.items()))}; {shown} events read"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
