"""The append queue: appends that arrive while one is being written share the next transaction.

A lone caller is written at once; whoever comes meanwhile waits for one commit, not for one each. Every
append is judged by itself: a version conflict or a duplicate fails that append alone.

A batch is decided as far as possible before it is sent (`_Batch`), so that it takes one hop or one
round trip. What that cannot decide (an event id that is stored already, a version that changed between
snapshot and lock, a connection lost before the answer) is decided with the log locked
(`Appender._settle_exactly`), where nothing can change underneath. That same path serves appends that
join a transaction of the caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import select

from esource.database import Database, Unit
from esource.dialect import Plan, Statement, StreamWrite
from esource.dialect.constructs import iso_text, member_of
from esource.encoding import EncodedEvent, same_payload
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    DuplicateEventError,
    EventSourceError,
    OptimisticLockError,
    SchemaError,
    StoreClosedError,
    StreamClosedError,
)
from esource.streams import AppendResult, ExpectedVersion
from esource.system_events import STREAM_CLOSED
from esource.tables import events
from esource.types import as_text, to_iso

BATCH_EVENTS = 1000
"""Events that one transaction takes at most, unless a single append is larger."""

BATCH_BYTES = 4 * 1024 * 1024
"""Payload characters that one transaction takes at most, unless a single append is larger."""

QUEUE_EVENTS = 10_000
"""Events that may wait; further callers of append wait for room (back-pressure)."""

_EVERYBODYS = (
    DatabaseUnavailableError,
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseFullError,
    SchemaError,
    StoreClosedError,
)
"""Errors of the database as a whole: trying a batch's appends one by one would only take longer."""

StreamKey: TypeAlias = tuple[UUID, str]
Outcome: TypeAlias = AppendResult | Exception

_STORED = Statement(
    select(
        events.c.global_position,
        as_text(events.c.event_id),
        as_text(events.c.aggregate_id),
        events.c.aggregate_type,
        events.c.event_type,
        as_text(events.c.tenant_id),
        events.c.actor_id,
        events.c.version,
        iso_text(events.c.timestamp),
        events.c.payload,
    ).where(member_of(events.c.event_id, "event_ids"))
)


class Append:
    """One caller's append, encoded, waiting for its outcome."""

    __slots__ = ("bytes", "events", "expected_version", "future", "stream")

    def __init__(
        self, aggregate_type: str, aggregate_id: UUID, events: list[EncodedEvent], expected_version: int
    ) -> None:
        self.stream: StreamKey = (aggregate_id, aggregate_type)
        self.events = events
        self.expected_version = expected_version
        self.bytes = sum(len(event.payload) for event in events)
        self.future: asyncio.Future[AppendResult] | None = None

    def conflict(self, actual_version: int) -> OptimisticLockError | StreamClosedError:
        """Why the stream, which is at this version, does not take it; negative: it is closed."""
        aggregate_id, aggregate_type = self.stream
        if actual_version < 0:
            return StreamClosedError(aggregate_type, aggregate_id)
        return OptimisticLockError(aggregate_type, aggregate_id, self.expected_version, actual_version)


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


class _Batch:
    """Appends put together into one `Plan`, and the way back from its result to each of them."""

    def __init__(self, outbox: bool) -> None:
        self.plan = Plan([], [], outbox)
        self.bytes = 0
        self._parts: list[_Part] = []
        self._streams: dict[StreamKey, _StreamState] = {}
        self._deferred: set[StreamKey] = set()
        self._event_ids: set[UUID] = set()

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
        ids = [event.event_id for event in append.events]
        if not self._event_ids.isdisjoint(ids):
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
            # A loser writes nothing, but asks whether its events are stored already: then it is no loser.
            question = len(self.plan.streams)
            self._streams[key] = state
            self.plan.streams.append(StreamWrite(*key, expected, ids[0]))
        self._parts.append(_Part(append, state, question, state.steps, loses))
        if not loses:
            self._event_ids.update(ids)
            self._write(append, state)
        return True

    def _write(self, append: Append, state: _StreamState) -> None:
        rows, step = self.plan.rows, state.steps
        for event in append.events:
            step += 1
            rows.append((state.index, step, event))
        state.steps = step
        self.bytes += append.bytes
        if append.events[-1].event_type == STREAM_CLOSED:
            self._deferred.add(append.stream)  # what follows has to find the stream closed

    def _defer(self, key: StreamKey) -> bool:
        self._deferred.add(key)
        return False

    def outcomes(self, written: Any, *, are_new: bool = False) -> Iterable[tuple[Append, Outcome | None]]:
        """Each append with its outcome; None for one that has to be decided again.

        ``are_new`` says that none of the events was stored before.
        """
        versions, accepted, known, positions = written
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
                question >= 0 and not accepted[question] and not known[question] and state.index not in moving
            ):
                yield append, append.conflict(version)
            else:
                moving.add(state.index)
                yield append, None


class Appender:
    """The queue of one store, and whoever empties it: a task, or a lone caller itself."""

    def __init__(self, database: Database, *, outbox: bool = False) -> None:
        self._database = database
        self._outbox = outbox
        self._queue: deque[Append] = deque()
        self._waiting_events = 0
        self._room: asyncio.Event | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._leading = False
        self._crowded = False
        """Whether appends have lately come in company: then one loop turn is waited for the others."""
        self._quiet: asyncio.Event | None = None

    async def append(self, append: Append) -> AppendResult:
        """Queue an append and wait for its commit.

        Cancelling the caller removes an append that still waits. A batch that has started is written to its
        end; an append that is written alone may be stopped on its way. It is stored whole or not at all.
        """
        if self._flusher is None and not self._leading and not self._crowded:
            return await self._lead(append)
        while self._waiting_events >= QUEUE_EVENTS:
            if self._room is None:
                self._room = asyncio.Event()
            await self._room.wait()
        append.future = asyncio.get_running_loop().create_future()
        self._queue.append(append)
        self._waiting_events += len(append.events)
        if self._flusher is None and not self._leading:
            self._start_flusher()
        return await append.future

    async def append_in(self, unit: Unit, append: Append) -> AppendResult:
        """Write an append inside an open transaction. The log stays locked until that transaction ends."""
        try:
            with self._database.backend.errors(self._database.name):
                async with unit.turn():
                    outcomes = await self._settle_exactly(unit, [append])
        except ConstraintError as error:
            raise _seen_too_late(append, error) from error
        return _deliver(outcomes[0][1])

    async def drain(self) -> None:
        """Wait until everything queued is written."""
        while self._flusher is not None or self._leading:
            if self._quiet is None:
                self._quiet = asyncio.Event()
            await self._quiet.wait()

    # -- who writes --------------------------------------------------------------------------------

    async def _lead(self, append: Append) -> AppendResult:
        """Write a lone append in its caller's own task: a task between them costs two turns of the loop,
        a fifth of the time on SQLite, a sixth on PostgreSQL."""
        events = append.events
        aggregate_id, aggregate_type = append.stream
        plan = Plan(
            [StreamWrite(aggregate_id, aggregate_type, append.expected_version, events[0].event_id)],
            [(0, step, event) for step, event in enumerate(events, 1)],
            self._outbox,
        )
        outcome: Outcome | None
        self._leading = True
        try:
            try:
                versions, accepted, known, positions = await self._database.append(plan)
            except Exception as error:
                outcome = None if self._is_open_question(error) else self._explain(error)
            else:
                if accepted[0]:
                    return AppendResult(True, versions[0] + len(events), positions[-1])
                outcome = None if known[0] else append.conflict(versions[0])
            if outcome is None:
                [(_, outcome)] = await self._decide_exactly([append])
        finally:
            self._leading = False
            if self._queue or self._quiet is not None:
                self._rest()
        return _deliver(outcome)

    def _start_flusher(self) -> None:
        self._flusher = asyncio.get_running_loop().create_task(self._flush_all())

    def _rest(self) -> None:
        """Hand on what has queued up meanwhile, or say that there is nothing left."""
        if self._queue:
            self._start_flusher()
        elif self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    async def _flush_all(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                if batch.appends:
                    self._crowded = len(batch.appends) > 1
                    outcomes = await self._decide(batch)
                    _settle(outcomes)
                    again = [append for append, outcome in outcomes if outcome is None]
                    if again:
                        _settle(await self._decide_exactly(again))
        finally:
            self._flusher = None
            self._rest()

    def _next_batch(self) -> _Batch:
        batch = _Batch(self._outbox)
        left: list[Append] = []
        queue = self._queue
        while queue:
            append = queue[0]
            if batch.plan.rows and (
                len(batch.plan.rows) + len(append.events) > BATCH_EVENTS
                or batch.bytes + append.bytes > BATCH_BYTES
            ):
                break
            queue.popleft()
            cancelled = append.future is None or append.future.done()
            if cancelled or batch.take(append):
                self._waiting_events -= len(append.events)
            else:
                left.append(append)
        queue.extendleft(reversed(left))
        if self._room is not None and self._waiting_events < QUEUE_EVENTS:
            self._room.set()
            self._room = None
        return batch

    # -- what becomes of it ------------------------------------------------------------------------

    async def _decide(self, batch: _Batch) -> list[tuple[Append, Outcome | None]]:
        """Write a batch; each append with its outcome, None for one that has to be decided exactly."""
        try:
            return list(batch.outcomes(await self._database.append(batch.plan)))
        except Exception as error:
            if self._is_open_question(error):
                return [(append, None) for append in batch.appends]
            return await self._give_up(batch.appends, error)

    def _is_open_question(self, error: Exception) -> bool:
        """Whether it has to be found out what became of a batch that failed."""
        return self._database.backend.classify(error) in ("unique", "lost", "again")

    async def _decide_exactly(self, appends: list[Append]) -> list[tuple[Append, Outcome | None]]:
        """Decide appends in a transaction that locks the log first; repeat it while the server is away."""

        async def attempt() -> list[tuple[Append, Outcome | None]]:
            async with self._database.transaction() as unit:
                return await self._settle_exactly(unit, appends)

        try:
            return await self._database.persist(attempt)
        except Exception as error:
            return await self._give_up(appends, error)

    async def _give_up(self, appends: list[Append], error: Exception) -> list[tuple[Append, Outcome | None]]:
        """The error for each, after finding out whose it is where it need not be everybody's."""
        if len(appends) > 1 and not isinstance(self._explain(error), _EVERYBODYS):
            return [outcome for append in appends for outcome in await self._decide_exactly([append])]
        return [(append, self._explain(error)) for append in appends]

    def _explain(self, error: Exception) -> Exception:
        explained = self._database.backend.translate(error, self._database.name)
        if explained is None or isinstance(error, EventSourceError):
            return error
        explained.__cause__ = error
        return explained

    # -- with the log locked -----------------------------------------------------------------------

    async def _settle_exactly(self, unit: Unit, appends: list[Append]) -> list[tuple[Append, Outcome | None]]:
        """Decide and write appends in an open transaction. Valid once that transaction commits."""
        backend = self._database.backend
        await backend.lock_log(unit.driver)
        settled: list[tuple[Append, Outcome | None]] = []
        waiting = list(appends)
        while waiting:
            stored = await self._stored(unit, waiting)
            batch = _Batch(self._outbox)
            decided = set()
            for append in waiting:
                earlier = _earlier_outcome(append, stored)
                if earlier is not None:
                    settled.append((append, earlier))
                    decided.add(append)
                else:
                    batch.take(append)
            if batch.plan.streams:
                written = await backend.append(unit.driver, batch.plan, commit=False)
                for append, outcome in batch.outcomes(written, are_new=True):
                    if outcome is not None:
                        settled.append((append, outcome))
                        decided.add(append)
            waiting = [append for append in waiting if append not in decided]  # still in their order
        return settled

    async def _stored(self, unit: Unit, appends: list[Append]) -> dict[str, Any]:
        """The rows that are stored already under the appends' event ids."""
        backend = self._database.backend
        compiled = _STORED.on(backend)
        ids = [str(event.event_id) for append in appends for event in append.events]
        rows = await backend.fetch(
            unit.driver, compiled.text, compiled.arguments({"event_ids": backend.names(ids)})
        )
        return {row[1]: row for row in rows}


def _settle(outcomes: Iterable[tuple[Append, Outcome | None]]) -> None:
    """Tell the callers that still wait; an outcome that is not known yet is not told."""
    for append, outcome in outcomes:
        future = append.future
        if future is None or future.done() or outcome is None:
            continue
        if isinstance(outcome, AppendResult):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)


def _deliver(outcome: Outcome | None) -> AppendResult:
    if not isinstance(outcome, AppendResult):
        assert outcome is not None
        raise outcome
    return outcome


def _seen_too_late(append: Append, error: ConstraintError) -> EventSourceError:
    """What a constraint means that refuses an event although the log is locked: the caller's transaction
    (REPEATABLE READ, SERIALIZABLE) looks at the log as it was before the lock."""
    if error.constraint == "uq_events_aggregate_version" and append.expected_version >= 0:
        # At least: that transaction cannot see how far the stream has got.
        return append.conflict(append.expected_version + 1)
    if error.constraint in ("uq_events_aggregate_version", "events_event_id_key"):
        return DatabaseBusyError(
            f"{error}. Another append came after this transaction took its snapshot: roll back and repeat "
            "it, or open it as READ COMMITTED, where an append sees what came before."
        )
    return error


def _earlier_outcome(append: Append, stored: dict[str, Any]) -> Outcome | None:
    """The first result, if these very events are stored at this very place; an error, if others are."""
    found = [stored.get(str(event.event_id)) for event in append.events]
    if not any(found):
        return None
    aggregate_id, aggregate_type = append.stream
    first = found[0]
    for step, (event, row) in enumerate(zip(append.events, found, strict=True)):
        if row is None:
            taken = next(row for row in found if row is not None)
            return DuplicateEventError(UUID(taken[1]), _place(taken))
        same = (
            first is not None
            and row[2] == str(aggregate_id)
            and row[3] == aggregate_type
            and row[7] == first[7] + step
            and row[4] == event.event_type
            and row[5] == (None if event.tenant_id is None else str(event.tenant_id))
            and row[6] == event.actor_id
            and row[8] == to_iso(event.timestamp)
            and same_payload(row[9], event.payload)
        )
        if not same:
            return DuplicateEventError(event.event_id, _place(row))
    last = found[-1]
    assert last is not None
    assert first is not None
    expected = append.expected_version
    if expected >= 0 and first[7] != expected + 1:
        return DuplicateEventError(append.events[0].event_id, _place(first))
    return AppendResult(True, last[7], last[0], idempotent=True)


def _place(row: Any) -> str:
    return f"{row[3]} {row[2]} version {row[7]}, global position {row[0]}"
