"""Appends that share a transaction, and how each of them is judged by what the database answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from esource.dialect.matching import EventsAtHand
from esource.dialect.plan import Condition, Moved, Plan, Refusal, StreamWrite, Unjudged
from esource.domain.comparison import same_payload
from esource.domain.stream_closed import STREAM_CLOSED
from esource.domain.tags import NO_TAGS, legible_tags, stored_tags
from esource.errors import (
    AppendConditionError,
    DuplicateEventError,
    EventSourceError,
    InvalidOptionError,
    OptimisticLockError,
    StreamClosedError,
    TagsIncompleteError,
)
from esource.log.streams import AppendResult, ExpectedVersion
from esource.moments import to_iso
from esource.tables.filling import Declared
from esource.tables.rows import (
    ACTOR_ID,
    AGGREGATE_ID,
    AGGREGATE_TYPE,
    EVENT_ID,
    EVENT_TYPE,
    PAYLOAD,
    POSITION,
    TAGS,
    TENANT_ID,
    TIMESTAMP,
    VERSION,
    EncodedEvent,
    StreamId,
)

Outcome: TypeAlias = AppendResult | Exception


class Append:
    """One caller's append, encoded, waiting for its outcome."""

    __slots__ = ("bytes", "condition", "events", "expected_version", "future", "given", "stream")

    def __init__(
        self,
        stream: StreamId,
        events: list[EncodedEvent],
        expected_version: int,
        condition: Condition | None = None,
        given: frozenset[str] = NO_TAGS,
    ) -> None:
        self.stream = stream
        self.condition = condition
        self.given = given
        """The tags that the caller gave: those of all the events, beside what their classes declare."""
        self.events = events
        self.expected_version = expected_version
        self.bytes = sum([len(event.payload) for event in events])
        self.future: asyncio.Future[AppendResult] | None = None

    @property
    def waits(self) -> bool:
        """Whether the caller still waits for the outcome."""
        return self.future is not None and not self.future.done()

    def conflict(self, actual_version: int) -> OptimisticLockError | StreamClosedError:
        """Why the stream, which is at this version, does not take it; negative: it is closed."""
        aggregate_id, aggregate_type = self.stream
        if actual_version < 0:
            return StreamClosedError(aggregate_type, aggregate_id)
        return OptimisticLockError(aggregate_type, aggregate_id, self.expected_version, actual_version)

    def refused(self, actual_version: int, refusal: Refusal | None) -> EventSourceError:
        """Why it was not written: the stream's version comes first, then the condition."""
        expected = self.expected_version
        fits = actual_version >= 0 and (
            expected in (actual_version, ExpectedVersion.ANY)
            or (expected == ExpectedVersion.STREAM_EXISTS and actual_version > 0)
        )
        if refusal is None or not fits:
            return self.conflict(actual_version)
        if isinstance(refusal, Moved):
            read_id, read_type = refusal.stream
            return OptimisticLockError(read_type, read_id, refusal.expected_version, refusal.version)
        if isinstance(refusal, Declared):
            return TagsIncompleteError(*refusal)
        if isinstance(refusal, Unjudged):
            return InvalidOptionError(
                f"a condition cannot be judged in a transaction that is {refusal.isolation.upper()}: it does not see what "
                "was appended since it began. Open it as READ COMMITTED"
            )
        aggregate_id, aggregate_type = self.stream
        return AppendConditionError(
            aggregate_type,
            aggregate_id,
            expected,
            after=0 if self.condition is None else self.condition.after,
            global_position=refusal.position,
            event_type=refusal.event_type,
        )


def plan_of(append: Append, outbox: bool) -> Plan:
    """The plan of a lone append."""
    write = StreamWrite(append.stream, append.expected_version, append.events[0].event_id, append.condition)
    rows = [(0, step, event) for step, event in enumerate(append.events, 1)]
    return Plan([write], rows, outbox, append.condition is not None)


class _StreamState:
    """What a batch knows of one stream while it is being put together."""

    __slots__ = ("base", "index", "steps")

    def __init__(self, index: int, expected_version: int) -> None:
        self.index = index
        self.base = expected_version if expected_version >= 0 else None
        """The version before the batch, if the first append's expectation holds; None: unknown."""
        self.steps = 0


class _Part(NamedTuple):
    """One append's place in a batch."""

    append: Append
    state: _StreamState
    question: int
    """Its own `StreamWrite`; -1 for one that simply follows another append to its stream."""
    steps_before: int
    loses: bool
    """Bound to conflict, if the stream's first append succeeds: its rows are not in the plan."""


class Batch:
    """Appends put together into one `Plan`, and the way back from its result to each of them."""

    def __init__(self, outbox: bool) -> None:
        self.plan = Plan([], [], outbox)
        self.bytes = 0
        self._parts: list[_Part] = []
        self._streams: dict[StreamId, _StreamState] = {}
        self._deferred: set[StreamId] = set()
        self._event_ids: set[int] = set()
        self._earlier = EventsAtHand()
        self._at_hand = 0

    @property
    def appends(self) -> list[Append]:
        return [part.append for part in self._parts]

    def take(self, append: Append) -> bool:
        """Add the append, unless its outcome depends on what this batch will only find out.

        Appends to one stream keep their order: after one is left out, so are those behind it.
        """
        key, expected = append.stream, append.expected_version
        if key in self._deferred:
            return False
        ids = [event.event_id.int for event in append.events]  # a UUID itself is hashed in Python
        if not self._event_ids.isdisjoint(ids) or self._is_undecided(append):
            return self._defer(key)
        state = self._streams.get(key)
        is_first = state is None
        loses = False
        if state is None:
            state = _StreamState(len(self.plan.streams), expected)
        elif expected >= 0:
            if state.base is not None:
                loses = expected != state.base + state.steps
            elif expected == ExpectedVersion.NO_STREAM:
                loses = True
            else:
                return self._defer(key)
        question = -1
        if is_first or loses:
            # An append that is bound to conflict writes nothing. It only asks whether its events are stored already:
            # then it repeats an earlier append, and that is no conflict.
            question = len(self.plan.streams)
            self._streams[key] = state
            self.plan.streams.append(StreamWrite(key, expected, append.events[0].event_id, append.condition))
        self._parts.append(_Part(append, state, question, state.steps, loses))
        if not loses:
            self._event_ids.update(ids)
            self._write(append, state)
        if append.condition is not None:
            self.plan = self.plan._replace(conditional=True)
            self._deferred.add(key)  # whether it is written shows with the answer
        return True

    def _is_undecided(self, append: Append) -> bool:
        """Whether the append has a condition, and it depends on what becomes of this batch."""
        condition, streams = append.condition, self._streams
        return condition is not None and bool(
            append.stream in streams
            or (condition.streams and any(stream in streams for stream, _ in condition.streams))
            or self._meets_earlier(condition)
        )

    def _meets_earlier(self, condition: Condition) -> bool:
        """Whether an event of the batch is selected by the condition's query. All of them will be past its position."""
        rows = self.plan.rows
        if self._at_hand < len(rows):  # looked at only when a condition asks
            self._earlier.add(
                [
                    (place, event.event_type, stored_tags(event.tags), event.tenant_id)
                    for place, (_, _, event) in enumerate(rows[self._at_hand :], self._at_hand)
                ]
            )
            self._at_hand = len(rows)
        return self._earlier.first(condition, condition.tenant_id, -1) is not None

    def _write(self, append: Append, state: _StreamState) -> None:
        rows, step = self.plan.rows, state.steps
        for event in append.events:
            step += 1
            rows.append((state.index, step, event))
        state.steps = step
        self.bytes += append.bytes
        if append.events[-1].event_type == STREAM_CLOSED:
            self._deferred.add(append.stream)  # what follows has to find the stream closed

    def _defer(self, key: StreamId) -> bool:
        self._deferred.add(key)
        return False

    def outcomes(self, written: Any, *, are_new: bool = False) -> Iterable[tuple[Append, Outcome | None]]:
        """Each append with its outcome; None for one that has to be decided again.

        ``are_new`` says that none of the events was stored before.
        """
        versions, accepted, known, positions, refusals = written
        row = -1
        moving: set[int] = set()  # streams whose first append failed, but another may yet succeed
        for append, state, question, steps_before, loses in self._parts:
            version = versions[state.index]
            if accepted[state.index] and not loses:
                count = len(append.events)
                row += count
                yield append, AppendResult(True, version + steps_before + count, positions[row])
            elif accepted[state.index]:
                yield append, None if known[question] else append.conflict(version + steps_before)
            elif (are_new and version < 0) or (
                question >= 0
                and not accepted[question]
                and (are_new or not known[question])
                and state.index not in moving
            ):
                yield append, append.refused(version, refusals.get(state.index))
            else:
                moving.add(state.index)
                yield append, None


def earlier_outcome(append: Append, stored: dict[str, Any]) -> Outcome | None:
    """The first result, if these very events are stored at this very place; an error, if others are."""
    found = [stored.get(str(event.event_id)) for event in append.events]
    if not any(found):
        return None
    aggregate_id, aggregate_type = append.stream
    first = found[0]
    for step, (event, row) in enumerate(zip(append.events, found, strict=True)):
        if row is None:
            taken = next(row for row in found if row is not None)
            return DuplicateEventError(UUID(taken[EVENT_ID]), _place(taken))
        same = (
            first is not None
            and row[AGGREGATE_ID] == str(aggregate_id)
            and row[AGGREGATE_TYPE] == aggregate_type
            and row[VERSION] == first[VERSION] + step
            and row[EVENT_TYPE] == event.event_type
            and row[TENANT_ID] == (None if event.tenant_id is None else str(event.tenant_id))
            and row[ACTOR_ID] == event.actor_id
            and row[TIMESTAMP] == to_iso(event.timestamp)
            and same_payload(row[PAYLOAD], event.payload)
            # Its own tags follow from what it says, and from the class: another version of it may declare others.
            and (not append.given or append.given <= legible_tags(row[TAGS]))
        )
        if not same:
            return DuplicateEventError(event.event_id, _place(row))
    last = found[-1]
    assert last is not None
    assert first is not None
    expected = append.expected_version
    if expected >= 0 and first[VERSION] != expected + 1:
        return DuplicateEventError(append.events[0].event_id, _place(first))
    return AppendResult(True, last[VERSION], last[POSITION], idempotent=True)


def _place(row: Any) -> str:
    return (
        f"{row[AGGREGATE_TYPE]} {row[AGGREGATE_ID]} version {row[VERSION]}, global position {row[POSITION]}"
    )
