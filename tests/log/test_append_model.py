"""The store against a plain-Python model: what one append after the other would have done.

Appends of one round are gathered, so that they share a batch; the queue keeps their order, so that the
model may take them one by one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.effort import examples
from support.orders import placed

from esource import (
    DuplicateEventError,
    ExpectedVersion,
    InMemoryEventStore,
    OptimisticLockError,
    StreamClosed,
    StreamClosedError,
    open_store,
)

STREAMS = [(UUID(int=1), "Order"), (UUID(int=1), "Invoice"), (UUID(int=2), "Order")]
EVENT_IDS = [UUID(int=100 + n) for n in range(8)]


@dataclass(frozen=True)
class Attempt:
    stream: tuple[UUID, str]
    event_ids: tuple[UUID, ...]
    total: float
    expected: int
    closes: bool = False

    def events(self):
        aggregate_id, aggregate_type = self.stream
        events = [
            placed(
                aggregate_id,
                event_id=event_id,
                aggregate_type=aggregate_type,
                total=self.total,
                correlation_id=UUID(int=0),
                occurred_at="2024-01-01T00:00:00Z",
            )
            for event_id in self.event_ids
        ]
        if self.closes:
            fields = events[-1].model_dump(exclude={"event_type", "customer_id", "total"})
            events[-1] = StreamClosed(**fields, reason=str(self.total))
        return events


@dataclass
class Model:
    """A log as a list, and the rules of an append as their docstrings tell them."""

    log: list = field(default_factory=list)  # (stream, version, event_id, total, closes)

    def version(self, stream):
        return sum(1 for s, *_ in self.log if s == stream)

    def is_closed(self, stream):
        return any(s == stream and closes for s, *_, closes in self.log)

    def allowed(self, attempt):
        """The outcomes that tell the truth; two when an append both conflicts and repeats an id."""
        version, expected = self.version(attempt.stream), attempt.expected
        is_closed = self.is_closed(attempt.stream)
        fits = not is_closed and (
            expected in (version, ExpectedVersion.ANY)
            or (expected == ExpectedVersion.STREAM_EXISTS and version > 0)
        )
        conflict = ("closed",) if is_closed else ("conflict", version)
        rows = {event_id: (s, v, total, closes) for s, v, event_id, total, closes in self.log}
        found = [rows.get(event_id) for event_id in attempt.event_ids]
        if any(found):
            start = found[0][1] if found[0] else 0
            place = [(attempt.stream, start + n, *kind) for n, kind in enumerate(self.kinds(attempt))]
            if found == place and (expected < 0 or expected == start - 1):
                return [("repeated", start + len(found) - 1)]
            return [("duplicate",), *([] if fits else [conflict])]
        return [("stored", version + len(found))] if fits else [conflict]

    def kinds(self, attempt):
        last = len(attempt.event_ids) - 1
        return [(attempt.total, attempt.closes and n == last) for n in range(last + 1)]

    def apply(self, attempt):
        version = self.version(attempt.stream)
        for step, (event_id, kind) in enumerate(
            zip(attempt.event_ids, self.kinds(attempt), strict=True), start=1
        ):
            self.log.append((attempt.stream, version + step, event_id, *kind))


attempts = st.builds(
    Attempt,
    stream=st.sampled_from(STREAMS),
    event_ids=st.lists(st.sampled_from(EVENT_IDS), min_size=1, max_size=2, unique=True).map(tuple),
    total=st.sampled_from([1.0, 1.0, 1.0, 1.0, 2.0]),
    expected=st.sampled_from([-2, -1, -1, 0, 0, 1, 2, 3, 4]),
    closes=st.sampled_from([False, False, False, False, True]),
)
# From a small pool, so that the same append comes again: in its own batch and in later ones.
rounds = st.lists(attempts, min_size=2, max_size=10, unique=True).flatmap(
    lambda pool: st.lists(st.lists(st.sampled_from(pool), min_size=1, max_size=10), min_size=1, max_size=4)
)


async def outcome_of(store, attempt):
    try:
        result = await store.append_events(*attempt.stream, attempt.events(), attempt.expected)
    except OptimisticLockError as error:
        return ("conflict", error.actual_version)
    except DuplicateEventError:
        return ("duplicate",)
    except StreamClosedError:
        return ("closed",)
    return ("repeated" if result.idempotent else "stored", result.new_version)


def said(event):
    return (float(event.reason), True) if isinstance(event, StreamClosed) else (event.total, False)


async def check_against_the_model(store, given_rounds):
    model = Model()
    for appends in given_rounds:
        outcomes = await asyncio.gather(*(outcome_of(store, attempt) for attempt in appends))
        # Appends to different streams may overtake each other where they fight for an event id.
        waiting = list(zip(appends, outcomes, strict=True))
        while waiting:
            for place, (attempt, outcome) in enumerate(waiting):
                if outcome in model.allowed(attempt) and not any(
                    earlier.stream == attempt.stream for earlier, _ in waiting[:place]
                ):
                    break
            else:
                pytest.fail(f"no order of these appends explains {waiting} after {model.log}")
            if outcome[0] == "stored":
                model.apply(attempt)
            del waiting[place]
    stored = [
        ((e.aggregate_id, e.aggregate_type), e.stream_position, e.event_id, *said(e.event))
        async for e in store.read_all()
    ]
    assert sorted(stored, key=lambda row: (str(row[0]), row[1])) == sorted(
        model.log, key=lambda row: (str(row[0]), row[1])
    )


@pytest.mark.slow
@settings(max_examples=examples(100), deadline=None)
@given(rounds)
def test_any_appends_in_one_batch_do_what_one_after_the_other_would(given_rounds):
    async def run():
        async with InMemoryEventStore(enable_tracing=False) as store:
            await check_against_the_model(store, given_rounds)

    asyncio.run(run())


INVOICE = STREAMS[1]
REPEATED_BEFORE_A_CONFLICT = [
    [
        Attempt(INVOICE, (EVENT_IDS[0],), 1.0, ExpectedVersion.ANY),
        Attempt(INVOICE, (EVENT_IDS[0],), 1.0, ExpectedVersion.ANY),
        Attempt(INVOICE, (EVENT_IDS[1],), 1.0, ExpectedVersion.NO_STREAM),
        Attempt(INVOICE, (EVENT_IDS[2],), 1.0, ExpectedVersion.STREAM_EXISTS),
        Attempt(INVOICE, (EVENT_IDS[1],), 1.0, ExpectedVersion.NO_STREAM),
    ]
]


@pytest.mark.slow
@example(REPEATED_BEFORE_A_CONFLICT)
@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rounds)
def test_any_appends_do_the_same_on_a_database_with_many_writers(postgres_url, given_rounds):
    async def run():
        async with open_store(postgres_url, enable_tracing=False) as store:
            async with store.transaction() as tx:
                await tx.connection.exec_driver_sql("TRUNCATE events RESTART IDENTITY")
            await check_against_the_model(store, given_rounds)

    asyncio.run(run())
