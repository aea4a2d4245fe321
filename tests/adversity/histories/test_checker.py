"""The checker names what is wrong with a history, and finds nothing wrong with one that is merely confusing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from adversity.histories.checker import check, main
from adversity.histories.history import parse

Lines = list[dict[str, Any]]
_names = map("op{}".format, count())


def operation(at: Sequence[int], asked: dict[str, Any], answer: dict[str, Any] | None) -> Lines:
    """Asked at the first moment; answered at the second, if there is one."""
    name = next(_names)
    lines = [{"op": name, "at": at[0], **asked}]
    return lines if answer is None else [*lines, {"op": name, "at": at[1], **answer}]


def part(events: str, stream: str = "s", expected: Any = "any") -> dict[str, Any]:
    return {"stream": stream, "expected": expected, "events": list(events)}


def append(
    at: Sequence[int],
    events: str,
    version: int,
    position: int,
    *,
    stream: str = "s",
    expected: Any = "any",
    repeated: bool = False,
) -> Lines:
    """An append of events with one letter each that was acknowledged."""
    told = {"version": version, "position": position, "repeated": repeated}
    return operation(at, asked(part(events, stream, expected)), {"end": "ok", "parts": [told]})


def asked(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"do": "append", "parts": list(parts)}


def conditional(at: Sequence[int], event: str, position: int, after: int, **more: Any) -> Lines:
    """An append of an event with the tag x, unless another one with it has come past a position; None: without an answer."""
    told = {"version": position, "position": position, "repeated": False, **more}
    answer = None if len(at) == 1 else {"end": "ok", "parts": [told]}
    return operation(at, asked(excluding(event, after)), answer)


def excluding(event: str, after: int) -> dict[str, Any]:
    return {**part(event), "tags": ["x"], "condition": {"items": [["x"], ["y", "z"]], "after": after}}


def excluded(at: Sequence[int], event: str, after: int, match: int) -> Lines:
    return operation(at, asked(excluding(event, after)), {"end": "conflict", "part": 0, "match": match})


def queried(at: Sequence[int], positions: list[int], head: int, *, after: int = 0) -> Lines:
    answer = {"end": "ok", "positions": positions, "head": head}
    return operation(at, {"do": "read_query", "items": [["x"]], "after": after}, answer)


def refused(at: Sequence[int], events: str, expected: Any, actual: int | None) -> Lines:
    return operation(
        at, asked(part(events, expected=expected)), {"end": "conflict", "part": 0, "actual": actual}
    )


def log(at: Sequence[int], events: str, *, after: int = 0, limit: int | None = None) -> Lines:
    """A read of the log: ``1s1a`` is event a at position 1, version 1 of stream s."""
    shown = [[int(text[0]), text[1], int(text[2]), text[3]] for text in events.split()]
    return operation(at, {"do": "read_log", "after": after, "limit": limit}, {"end": "ok", "events": shown})


def stream(at: Sequence[int], events: str, *, after: int = 0) -> Lines:
    shown = [[int(text[0]), text[1]] for text in events.split()]
    return operation(at, {"do": "read_stream", "stream": "s", "after": after}, {"end": "ok", "events": shown})


def anomalies(*operations: Lines) -> set[str]:
    lines = [json.dumps(line) for lines in operations for line in lines]
    return {anomaly.kind for anomaly in check(parse(lines))}


TWO_APPENDS = [append((1, 2), "a", 1, 1), append((3, 4), "b", 2, 2)]

EXCLUSIVE = [conditional((1, 2), "a", 1, 0)]

BAD: list[tuple[str, str, list[Lines]]] = [
    ("lost", "an acknowledged event is in no read", [append((1, 2), "a", 1, 1), log((3, 4), "")]),
    ("lost", "the last of several is gone", [*TWO_APPENDS, log((5, 6), "1s1a")]),
    ("lost", "a stream lacks it, and nobody reads the log", [*TWO_APPENDS, stream((5, 6), "1a")]),
    (
        "missed",
        "a read that began after the acknowledgement does not show it, a later one does",
        [*TWO_APPENDS, log((5, 6), "1s1a"), log((7, 8), "1s1a 2s2b")],
    ),
    (
        "missed",
        "a stream's read does not show what was acknowledged",
        [*TWO_APPENDS, stream((5, 6), "1a"), stream((7, 8), "1a 2b")],
    ),
    (
        "missed",
        "a stream's read is older than what another read had shown of the log",
        [
            append((1, 20), "a", 1, 1),
            append((1, 20), "x", 1, 2, stream="t"),
            log((2, 3), "2t1x", after=1),
            stream((4, 5), ""),
            log((21, 22), "1s1a 2t1x"),
        ],
    ),
    (
        "backwards",
        "an event is gone that an earlier read had shown, while its append still ran",
        [append((1, 9), "a", 1, 1), log((2, 3), "1s1a"), log((4, 5), ""), log((10, 11), "1s1a")],
    ),
    (
        "backwards",
        "a stream gets shorter",
        [append((1, 9), "a", 1, 1), stream((2, 3), "1a"), stream((4, 5), ""), log((10, 11), "1s1a")],
    ),
    (
        "skipped",
        "a follower sees the later position first and goes on from there",
        [
            append((1, 9), "a", 1, 1),
            append((2, 3), "b", 1, 2, stream="t"),
            log((4, 5), "2t1b"),
            log((10, 11), "", after=2),
            log((12, 13), "1s1a 2t1b"),
        ],
    ),
    ("phantom", "nobody appended it", [log((1, 2), "1s1a")]),
    ("phantom", "it was refused", [*TWO_APPENDS, refused((5, 6), "c", 1, 2), stream((7, 8), "1a 2b 3c")]),
    (
        "phantom",
        "it was rolled back",
        [operation((1, 2), asked(part("a")), {"end": "aborted"}), log((3, 4), "1s1a")],
    ),
    ("phantom", "it is seen before it is appended", [log((1, 2), "1s1a"), append((3, 4), "a", 1, 1)]),
    ("phantom", "it is in another stream", [operation((1,), asked(part("a", "t")), None), log((3, 4), "1s1a")]),
    ("torn", "the end is missing", [append((1, 9), "ab", 2, 2), log((2, 3), "1s1a"), log((10, 11), "1s1a 2s2b")]),
    ("torn", "for good", [operation((1,), asked(part("ab")), None), log((2, 3), "1s1a")]),
    (
        "torn",
        "the other stream of the transaction is missing",
        [operation((1,), asked(part("a"), part("b", "t")), None), log((2, 3), "1s1a")],
    ),
    ("torn", "in a stream", [operation((1,), asked(part("ab")), None), stream((2, 3), "1a")]),
    ("torn", "the beginning is missing", [operation((1,), asked(part("ab")), None), log((2, 3), "2s1b")]),
    ("duplicated", "twice in one read", [append((1, 2), "a", 1, 1), log((3, 4), "1s1a 2s2a")]),
    ("duplicated", "elsewhere in the next read", [*TWO_APPENDS, log((5, 6), "1s1a 2s2b"), log((7, 8), "1s1a 3s2b")]),
    (
        "duplicated",
        "acknowledged as new twice",
        [append((1, 2), "a", 1, 1), append((3, 4), "a", 1, 1), log((5, 6), "1s1a")],
    ),
    (
        "collided",
        "two events are at one version",
        [append((1, 9), "a", 1, 1), append((1, 9), "b", 1, 2), log((10, 11), "1s1a"), log((10, 11), "2s1b", after=1)],
    ),
    (
        "collided",
        "of two that expected one version both were accepted",
        [append((1, 9), "a", 1, 1, expected=0), append((1, 9), "b", 1, 2, expected=0)],
    ),
    ("reordered", "positions fall", [*TWO_APPENDS, log((5, 6), "2s2b 1s1a")]),
    ("reordered", "versions fall", [*TWO_APPENDS, stream((5, 6), "2b 1a")]),
    (
        "reordered",
        "versions are against positions",
        [operation((1,), asked(part("a")), None), operation((1,), asked(part("b")), None), log((2, 3), "1s2a 2s1b")],
    ),
    ("reordered", "an append's events are exchanged", [operation((1,), asked(part("ab")), None), log((2, 3), "1s1b 2s2a")]),
    ("hole", "a version is missing", [operation((1,), asked(part("a")), None), log((2, 3), "1s2a")]),
    ("hole", "in a stream", [append((1, 2), "a", 1, 1), append((3, 4), "b", 3, 2), stream((5, 6), "1a 3b")]),
    ("misreported", "another version", [append((1, 2), "a", 7, 1), log((3, 4), "1s1a")]),
    ("misreported", "another position", [append((1, 2), "a", 1, 9), log((3, 4), "1s1a")]),
    ("misreported", "said to be a repetition, of nothing", [append((1, 2), "a", 1, 1, repeated=True), log((3, 4), "1s1a")]),
    ("accepted", "another version was expected", [*TWO_APPENDS, append((5, 6), "c", 3, 3, expected=1)]),
    ("accepted", "no stream was expected", [*TWO_APPENDS, append((5, 6), "c", 3, 3, expected=0)]),
    ("accepted", "a stream was expected", [append((1, 2), "a", 1, 1, expected="exists")]),
    ("unjustified", "the stream was there", [*TWO_APPENDS, refused((5, 6), "c", 2, 3), log((7, 8), "1s1a 2s2b")]),
    ("unjustified", "the version is no longer true", [*TWO_APPENDS, refused((5, 6), "c", 2, 1), log((7, 8), "1s1a 2s2b")]),
    ("unjustified", "the version is not true yet", [refused((1, 2), "c", 0, 1), append((3, 4), "a", 1, 1), log((5, 6), "1s1a")]),
    ("unjustified", "what was told fits what was expected", [append((1, 2), "a", 1, 1), refused((3, 4), "c", 1, 1), log((5, 6), "1s1a")]),
    ("unjustified", "nothing was told, and nothing happened", [append((1, 2), "a", 1, 1), refused((3, 4), "c", 1, None), log((5, 6), "1s1a")]),
    ("unjustified", "any version was expected", [append((1, 2), "a", 1, 1), refused((3, 4), "c", "any", 1), log((5, 6), "1s1a")]),
    ("unjustified", "the stream exists", [append((1, 2), "a", 1, 1), refused((3, 4), "c", "exists", 0), log((5, 6), "1s1a")]),
    ("unjustified", "a conflict with itself", [append((1, 2), "a", 1, 1, expected=0), refused((3, 4), "a", 0, 1), log((5, 6), "1s1a")]),
    (
        "unjustified",
        "a transaction's own events are taken for another's",
        [
            append((1, 2), "a", 1, 1),
            operation((3, 4), asked(part("bc"), part("d", expected=3)), {"end": "conflict", "part": 1, "actual": 4}),
            log((5, 6), "1s1a"),
        ],
    ),
    (
        "unjustified",
        "ids are taken that nobody used",
        [operation((1, 2), asked(part("a")), {"end": "duplicate", "part": 0}), log((3, 4), "")],
    ),
    ("excluded", "two that exclude each other are stored", [*EXCLUSIVE, conditional((1, 9), "b", 2, 0), log((10, 11), "1s1a 2s2b")]),
    ("excluded", "one of them without an answer", [*EXCLUSIVE, conditional((1,), "b", 2, 0), log((10, 11), "1s1a 2s2b")]),
    ("excluded", "by what it knew of", [*EXCLUSIVE, *TWO_APPENDS[1:], conditional((5, 6), "c", 3, 0), log((10, 11), "1s1a 2s2b 3s3c")]),
    ("unjustified", "refused for an event that it does not exclude", [*TWO_APPENDS, excluded((5, 6), "c", 0, 2), log((7, 8), "1s1a 2s2b")]),
    ("unjustified", "refused for an event that it knew of", [*EXCLUSIVE, excluded((5, 6), "c", 1, 1), log((7, 8), "1s1a")]),
    ("unjustified", "refused for an event that is to come", [excluded((1, 2), "c", 0, 1), conditional((3, 4), "a", 1, 0), log((7, 8), "1s1a")]),
    (
        "unjustified",
        "refused for the second of two",
        [*EXCLUSIVE, conditional((3, 4), "b", 2, 1), excluded((5, 6), "c", 0, 2), log((7, 8), "1s1a 2s2b")],
    ),
    ("missed", "a reading by query lacks an event", [*EXCLUSIVE, queried((3, 4), [], 1), log((5, 6), "1s1a")]),
    ("missed", "a reading by query knows too little of the log", [*EXCLUSIVE, queried((3, 4), [], 0), log((5, 6), "1s1a")]),
    ("phantom", "a reading by query shows what has no such tag", [*TWO_APPENDS, queried((5, 6), [1], 2), log((7, 8), "1s1a 2s2b")]),
    (
        "untimely",
        "a position before that of an append that had ended",
        [append((1, 2), "a", 1, 2), append((3, 4), "b", 1, 1, stream="t"), log((5, 6), "1t1b 2s1a")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "history"), [pytest.param(kind, history, id=f"{kind}: {why}") for kind, why, history in BAD]
)
def test_it_names_the_anomaly(kind: str, history: list[Lines]):
    assert anomalies(*history) == {kind}


def test_there_is_a_history_for_each_anomaly():
    assert check.__globals__["__doc__"] is not None
    named = {line.split()[0] for line in check.__globals__["__doc__"].splitlines() if line.startswith("    ")}
    assert named == {kind for kind, *_ in BAD}


GOOD: list[tuple[str, list[Lines]]] = [
    ("reads that overlap an append show it or not", [append((1, 9), "ab", 2, 2), log((2, 8), ""), log((3, 8), "1s1a 2s2b")]),
    ("an append without an answer is stored", [operation((1,), asked(part("ab")), None), log((2, 3), "1s1a 2s2b")]),
    ("an append without an answer is not stored", [operation((1,), asked(part("ab")), None), log((2, 3), "")]),
    ("an append without an answer is stored later", [operation((1,), asked(part("a")), None), log((2, 3), ""), log((4, 5), "1s1a")]),
    ("a limit cuts an append", [append((1, 2), "abc", 3, 3), log((3, 4), "1s1a 2s2b", limit=2), log((5, 6), "3s3c", after=2)]),
    ("a read begins in the middle of an append", [append((1, 2), "abc", 3, 3), log((3, 4), "2s2b 3s3c", after=1)]),
    ("positions have holes", [append((1, 2), "a", 1, 3), append((3, 4), "b", 2, 7), log((5, 6), "3s1a 7s2b")]),
    (
        "of two that expect one version, one wins",
        [append((1, 9), "a", 1, 1, expected=0), refused((1, 9), "b", 0, 1), log((10, 11), "1s1a")],
    ),
    ("a conflict with an append that is not acknowledged yet", [append((1, 9), "a", 1, 1), refused((2, 3), "b", 0, 1), log((10, 11), "1s1a")]),
    ("a conflict without the actual version", [append((1, 9), "a", 1, 1), refused((2, 3), "b", 0, None), log((10, 11), "1s1a")]),
    ("a stream that does not exist", [refused((1, 2), "b", "exists", 0), log((3, 4), "")]),
    (
        "an append is repeated",
        [append((1, 2), "a", 1, 1), *TWO_APPENDS[1:], append((5, 6), "a", 1, 1, repeated=True), log((7, 8), "1s1a 2s2b")],
    ),
    (
        "an append is repeated after a conflict",
        [append((1, 2), "a", 1, 1), refused((3, 4), "b", 0, 1), append((5, 6), "b", 2, 2, expected=1), log((7, 8), "1s1a 2s2b")],
    ),
    (
        "two send the same events, and the answer of the first comes last",
        [append((1, 9), "a", 1, 1), append((2, 3), "a", 1, 1, repeated=True), log((4, 5), "1s1a")],
    ),
    (
        "the same ids in another stream are refused",
        [append((1, 2), "a", 1, 1), operation((3, 4), asked(part("a", "t")), {"end": "duplicate", "part": 0}), log((5, 6), "1s1a")],
    ),
    (
        "a transaction's own events count for its conflict",
        [
            append((1, 2), "a", 1, 1),
            operation((3, 4), asked(part("bc"), part("d", expected=1)), {"end": "conflict", "part": 1, "actual": 3}),
            log((5, 6), "1s1a"),
        ],
    ),
    (
        "later positions within the time of an earlier append",
        [append((1, 9), "a", 1, 1), append((2, 3), "b", 1, 2, stream="t"), log((4, 5), "1s1a 2t1b")],
    ),
    ("nobody reads", TWO_APPENDS),
    ("what is excluded came before", [*EXCLUSIVE, conditional((3, 4), "b", 2, 1), queried((5, 6), [2], 2, after=1), log((7, 8), "1s1a 2s2b")]),
    ("of two that exclude each other one is refused", [*EXCLUSIVE, excluded((1, 9), "b", 0, 1), log((10, 11), "1s1a")]),
    ("what has other tags is not excluded", [append((1, 2), "a", 1, 1), conditional((3, 4), "b", 2, 0), log((7, 8), "1s1a 2s2b")]),
    (
        "a repeated append is not judged again",
        [*EXCLUSIVE, conditional((3, 4), "b", 2, 1), conditional((5, 6), "a", 1, 0, repeated=True), log((7, 8), "1s1a 2s2b")],
    ),
    ("a reading goes up to its own head", [*EXCLUSIVE, queried((1, 9), [], 0), queried((3, 9), [1], 1), log((10, 11), "1s1a")]),
]  # fmt: skip


@pytest.mark.parametrize("history", [pytest.param(history, id=why) for why, history in GOOD])
def test_it_finds_nothing_wrong_where(history: list[Lines]):
    assert anomalies(*history) == set()


def test_half_a_line_of_a_killed_client_counts_as_no_answer():
    [first, second] = map(json.dumps, append((1, 2), "a", 1, 1))
    [found] = parse([first, second[:-9]])
    assert found.end == "unknown"


def test_files_are_checked_by_hand(tmp_path, capsys):
    file = tmp_path / "w1"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*TWO_APPENDS[0], *log((3, 4), "")]))
    assert main([str(file)]) == 1
    assert "lost: op" in capsys.readouterr().out
    file.write_text("".join(json.dumps(line) + "\n" for line in [*TWO_APPENDS[0], *log((3, 4), "1s1a")]))
    assert main([str(file)]) == 0
