"""The append queue: appends that arrive while one is being written share the next transaction.

The append of a lone caller is written at once. Appends that arrive meanwhile wait for one commit together. Every
append is judged by itself: a version conflict or a duplicate fails that append alone.

A batch is decided as far as possible before it is sent (`Batch`), so that it takes one hop or one
round trip. What that cannot decide (an event id that is stored already, a version that changed between
snapshot and lock, a connection lost before the answer) is decided with the log locked
(`Appender._settle_exactly`), where nothing can change underneath. That same path serves appends that
join a transaction of the caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

from esource.database.cancellation import unseen
from esource.database.database import Database
from esource.database.unit_of_work import Unit
from esource.errors import (
    ConstraintError,
    DatabaseBusyError,
    DatabaseFullError,
    DatabaseReadOnlyError,
    DatabaseUnavailableError,
    EventSourceError,
    SchemaError,
    StoreClosedError,
)
from esource.log.batch import Append, Batch, Outcome, earlier_outcome, plan_of
from esource.log.company import Company
from esource.log.known_outbox import KnownOutbox
from esource.log.pages import EVENTS_OF_IDS, OUTBOX_OF_THE_LOG
from esource.log.streams import AppendResult
from esource.tables.rows import EVENT_ID

BATCH_EVENTS = 1000
"""Events that one transaction takes at most, unless a single append is larger."""

BATCH_BYTES = 4 * 1024 * 1024
"""Payload characters that one transaction takes at most, unless a single append is larger."""

QUEUE_EVENTS = 10_000
"""Events that may wait; an append that comes when there are more has a place behind them, and enters the queue in turn."""

_OF_ALL = (
    DatabaseUnavailableError,
    DatabaseBusyError,
    DatabaseReadOnlyError,
    DatabaseFullError,
    SchemaError,
    StoreClosedError,
)
"""Errors of the database as a whole: trying a batch's appends one by one would only take longer."""


class Appender:
    """The queue of one store, and the writer that empties it: a task, or a lone caller itself."""

    def __init__(self, database: Database, *, outbox: bool | None = False) -> None:
        self._database = database
        self.outbox = KnownOutbox(outbox)
        self._queue: deque[Append] = deque()
        self._waiting_events = 0
        self._outside: deque[Append] = deque()
        """Those that came when it was full."""
        self._flusher: asyncio.Task[None] | None = None
        self._writing: list[Append] = []
        """What the flusher is about to decide."""
        self._undecided: list[Append] = []
        """What has to be decided with the log locked, before anything else."""
        self._is_closed = False
        self._leading = False
        self._company = Company(in_caller=database.connections.are_in_caller)
        self._quiet: asyncio.Event | None = None

    async def append(self, append: Append) -> AppendResult:
        """Queue an append and wait for its commit.

        Cancelling the caller removes an append that still waits. A batch that has started is written to its
        end; an append that is written alone may be stopped on its way. It is stored whole or not at all.
        """
        if self._is_closed:
            raise self._refusal("it takes no more appends")
        if self._flusher is None and not self._leading and not self._company.is_likely():
            return await self._lead(append)
        append.future = asyncio.get_running_loop().create_future()
        if self._outside or self._waiting_events >= QUEUE_EVENTS:
            self._outside.append(append)
        else:
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

    async def close(self, seconds: float) -> None:
        """Refuse appends from now on, and write those that were accepted, for so many seconds at most. Then the rest fails."""
        self._is_closed = True
        draining = unseen(self.drain())
        done, _ = await asyncio.wait([draining], timeout=seconds)
        if not done:
            draining.cancel()
            error = self._refusal("this append was not written")
            _settle((append, error) for append in (*self._queue, *self._outside))

    def reopen(self) -> None:
        """Take appends again."""
        self._is_closed = False

    def _refusal(self, what: str) -> StoreClosedError:
        return StoreClosedError(
            f"{self._database.name} was closed: {what}. Use the store inside `async with store:`."
        )

    async def _lead(self, append: Append) -> AppendResult:
        """Write a lone append in its caller's own task: another task costs a fifth of the time on SQLite, a sixth on
        PostgreSQL."""
        events = append.events
        outcome: Outcome | None
        self._leading = True
        try:
            outbox = self.outbox.has
            if outbox is None:
                outbox = self.outbox.found(await self._database.rows(OUTBOX_OF_THE_LOG, {}))
            plan = plan_of(append, outbox)
            try:
                versions, accepted, known, positions, refusals = await self._database.append(plan)
            except Exception as error:
                outcome = None if await self._is_open_question(error) else self._explain(error)
            else:
                if accepted[0]:
                    return AppendResult(True, versions[0] + len(events), positions[-1])
                outcome = None if known[0] else append.refused(versions[0], refusals.get(0))
            if outcome is None:
                [(_, outcome)] = await self._decide_exactly([append])
        finally:
            self._leading = False
            if self._queue or self._quiet is not None:
                self._rest()
        return _deliver(outcome)

    def _start_flusher(self) -> None:
        self._flusher = asyncio.get_running_loop().create_task(self._flush_all())
        self._flusher.add_done_callback(self._flusher_ended)

    def _flusher_ended(self, flusher: asyncio.Task[None]) -> None:
        """Go on when other code has ended the flusher: a program that stops and cancels all its tasks. What it was about
        to write may be stored or not, and the callers that wait for it have to be told."""
        if flusher is not self._flusher:
            return
        self._flusher = None
        held, self._writing = self._writing, []
        error = None if flusher.cancelled() else flusher.exception()
        if isinstance(error, Exception):
            _settle((append, error) for append in held)
        self._undecided += [append for append in held if append.waits]
        self._rest()

    def _rest(self) -> None:
        """Hand on what has queued up meanwhile, or say that there is nothing left."""
        if self._queue or self._undecided:
            self._start_flusher()
        elif self._quiet is not None:
            self._quiet.set()
            self._quiet = None

    async def _flush_all(self) -> None:
        while self._queue or self._undecided:
            if self._undecided:
                self._writing, self._undecided = self._undecided, []
                outcomes = await self._decide_exactly(self._writing)
            else:
                batch = self._next_batch()
                self._writing = batch.appends
                if not self._writing:
                    continue
                self._company.came = len(self._writing) > 1
                outcomes = await self._decide(batch)
            self._writing = []
            self._undecided = _settle(outcomes)
        self._flusher = None
        self._rest()

    def _next_batch(self) -> Batch:
        batch = Batch(bool(self.outbox.has))
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
            future = append.future
            if future is None or future.done() or batch.take(append):
                self._waiting_events -= len(append.events)
            else:
                left.append(append)
        queue.extendleft(reversed(left))
        while self._outside and self._waiting_events < QUEUE_EVENTS:
            append = self._outside.popleft()
            queue.append(append)
            self._waiting_events += len(append.events)
        return batch

    async def _decide(self, batch: Batch) -> list[tuple[Append, Outcome | None]]:
        """Write a batch; each append with its outcome, None for one that has to be decided exactly."""
        if self.outbox.has is None:
            return [(append, None) for append in batch.appends]
        try:
            return list(batch.outcomes(await self._database.append(batch.plan)))
        except Exception as error:
            if await self._is_open_question(error):
                return [(append, None) for append in batch.appends]
            return await self._give_up(batch.appends, error)

    async def _is_open_question(self, error: Exception) -> bool:
        """Whether it has to be found out what became of a batch that failed, or where the log has moved it belongs to."""
        kind = self._database.backend.classify(error)
        return kind in ("unique", "lost", "again") or await self._database.follow(error)

    async def _decide_exactly(self, appends: list[Append]) -> list[tuple[Append, Outcome | None]]:
        """Decide appends in a transaction that locks the log first; repeat it while the server is away."""

        async def attempt() -> list[tuple[Append, Outcome | None]]:
            async with self._database.transaction() as unit:
                return await self._settle_exactly(unit, appends)

        try:
            return await self._database.persist(attempt)
        except Exception as error:
            if await self._database.follow(error):
                return await self._decide_exactly(appends)
            return await self._give_up(appends, error)

    async def _give_up(self, appends: list[Append], error: Exception) -> list[tuple[Append, Outcome | None]]:
        """The error for each append. If one append alone may have caused it, that one is found out."""
        if len(appends) > 1 and not isinstance(self._explain(error), _OF_ALL):
            return [outcome for append in appends for outcome in await self._decide_exactly([append])]
        return [(append, self._explain(error)) for append in appends]

    def _explain(self, error: Exception) -> Exception:
        explained = self._database.backend.translate(error, self._database.name)
        if explained is None or isinstance(error, EventSourceError):
            return error
        explained.__cause__ = error
        return explained

    async def _settle_exactly(self, unit: Unit, appends: list[Append]) -> list[tuple[Append, Outcome | None]]:
        """Decide and write appends in an open transaction. Valid once that transaction commits."""
        backend = self._database.backend
        await backend.lock_log(unit.driver, self._database.schema)
        outbox = self.outbox.has
        if outbox is None:
            compiled = OUTBOX_OF_THE_LOG.on(backend.sqlalchemy_dialect)
            rows = await backend.fetch(unit.driver, compiled.text, compiled.arguments({}))
            outbox = self.outbox.found(rows)
        settled: list[tuple[Append, Outcome | None]] = []
        waiting = list(appends)
        while waiting:
            stored = await self._stored(unit, waiting)
            batch = Batch(outbox)
            decided = set()
            for append in waiting:
                earlier = earlier_outcome(append, stored)
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
        compiled = EVENTS_OF_IDS.on(backend.sqlalchemy_dialect)
        ids = [str(event.event_id) for append in appends for event in append.events]
        arguments = compiled.arguments({"event_ids": backend.names(ids)})
        rows = await backend.fetch(unit.driver, compiled.text, arguments)
        return {row[EVENT_ID]: row for row in rows}


def _settle(outcomes: Iterable[tuple[Append, Outcome | None]]) -> list[Append]:
    """Tell the callers that still wait, and return the appends whose outcome is not known yet."""
    unknown = []
    for append, outcome in outcomes:
        future = append.future
        if future is None or future.done():
            continue
        if outcome is None:
            unknown.append(append)
        elif isinstance(outcome, AppendResult):
            future.set_result(outcome)
        else:
            future.set_exception(outcome)
    return unknown


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
