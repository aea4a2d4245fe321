"""What an operator sees: OpenTelemetry spans, and how those who follow the log are doing.

Spans are made where the API is installed and tracing is on; there is nothing at all otherwise. Span names are
``esource.<operation>``; attributes follow OpenTelemetry's database conventions (``db.system``) and our own words. No
payload and no password is ever an attribute.

Each follower keeps a `FollowerStats` up to date as it works; that costs additions. While it runs, OpenTelemetry
reads it whenever it collects, if the API is installed; nothing is imported otherwise. The instruments,
each with the attributes ``esource.kind`` and ``esource.name``:

=========================  =======================================================
``esource.position``       global position reached
``esource.lag.events``     positions between there and the end of the log, at most
``esource.lag.seconds``    age of the oldest event seen and not dealt with
``esource.events``         events dealt with, a counter
``esource.failures``       failed attempts, a counter
=========================  ======================================================="""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from typing import Any, Literal, Protocol
from weakref import WeakSet

from esource.errors import DatabaseError, error_text
from esource.moments import from_iso


class Tracer(Protocol):
    """What we use of an OpenTelemetry tracer."""

    def start_as_current_span(
        self, name: str, *, attributes: dict[str, Any]
    ) -> AbstractContextManager[Any]: ...

    def start_span(self, name: str, *, attributes: dict[str, Any]) -> Any: ...


def get_tracer(*, enabled: bool) -> Tracer | None:
    """OpenTelemetry's tracer for esource; None when tracing is off or the extra is not installed."""
    if not enabled:
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("esource")


NO_SPAN: AbstractContextManager[Any] = nullcontext()
"""Where nothing is traced. It has no state, and serves every operation at once."""


def span(tracer: Tracer | None, name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """A span around an operation; free of charge without a tracer."""
    if tracer is None:
        return NO_SPAN
    return tracer.start_as_current_span(f"esource.{name}", attributes=_attributes(attributes))


@contextmanager
def reading_span(tracer: Tracer | None, name: str, **attributes: Any) -> Iterator[None]:
    """A span around an iteration. It lasts until that ends or is left, and is never the current span of
    the code that works on an event in between."""
    if tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    started = tracer.start_span(f"esource.{name}", attributes=_attributes(attributes))
    try:
        yield
    except Exception as error:
        started.record_exception(error)
        started.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}")
        raise
    finally:
        started.end()


def _attributes(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "db.system" if key == "system" else f"esource.{key}": value if isinstance(value, int) else str(value)
        for key, value in given.items()
        if value is not None
    }


FollowerState = Literal["stopped", "running", "restarting", "failed"]
"""What a follower is doing; see `Health.state`."""

HEALTH_SECONDS = 5.0
"""How long `health()` waits for the database, in seconds."""

_NO_ANSWER = f"the database has not answered within {HEALTH_SECONDS:g} s"

RATE_SECONDS = 10.0
"""Throughput is measured over this many seconds."""

RATE_STEP_SECONDS = 0.25
"""The length of the steps in which throughput is counted, in seconds."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a follower of the log is doing, at one moment."""

    kind: str
    """``projection``, ``subscription`` or ``relay``."""
    name: str
    is_running: bool
    position: int
    """The global position up to which everything has been dealt with."""
    lag_events: int
    """Events of its kinds past that position; of a part of the streams, at most so many."""
    lag_seconds: float
    """Age of the oldest of them, in seconds; 0 when there is none."""
    events_processed: int
    """Events that this follower has dealt with since it was made."""
    events_per_second: float
    """Over the last ten seconds."""
    failures: int
    """Failed attempts since it was made."""
    last_error: str | None
    """The last failure, as text; it may have been overcome since."""
    last_error_at: datetime | None
    state: FollowerState = "stopped"
    """``running``; ``restarting``: it has failed, and waits to be begun again; ``failed``: it has failed, and is
    not begun again; ``stopped``: it was not begun, or has come to its end."""
    since: datetime | None = None
    """Since when it is in this state; None if it was never begun."""
    unreachable: str | None = None
    """Why the database could not be asked, if so: position and lag are then what the follower has seen last."""


class FollowerStats:
    """What a follower notes of itself as it works. Not shared between event loops."""

    def __init__(self, kind: str, name: str, unreachable: Callable[[], str | None] = lambda: None) -> None:
        self.kind = kind
        self.name = name
        self._unreachable = unreachable
        """Says why the database is away, if it is known to be."""
        self.state: FollowerState = "stopped"
        self.since: datetime | None = None
        self.position = 0
        self.head = 0
        """The end of the log, when last seen."""
        self.oldest: str | None = None
        """When the first event not yet dealt with was stored, if one is known, as the log has it."""
        self.events = 0
        self.failures = 0
        self.last_error: str | None = None
        self.last_error_at: datetime | None = None
        self._recent: deque[list[Any]] = deque()

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.kind} {self.name}".rstrip()

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    def restarts(self) -> None:
        """It has failed, and waits to be begun again."""
        self._set("restarting")

    def is_ended(self) -> None:
        """It is not begun again."""
        if self.state == "restarting":
            self._set("failed")

    def _set(self, state: FollowerState) -> None:
        self.state = state
        self.since = datetime.now(timezone.utc)

    def advance(self, position: int, events: int) -> None:
        """So many events more are dealt with, up to this position."""
        self.position = position
        self.head = max(self.head, position)
        if position >= self.head:
            self.oldest = None
        if events:
            self.events += events
            now = time.monotonic()
            if self._recent and now - self._recent[-1][0] < RATE_STEP_SECONDS:
                self._recent[-1][1] += events
            else:
                self._recent.append([now, events])
                self._forget(now)

    def failed(self, error: BaseException) -> None:
        """An attempt failed."""
        self.failures += 1
        self.note(error)

    def note(self, error: BaseException) -> None:
        """Something is wrong, which is counted later, or by others."""
        self.last_error = error_text(error)
        self.last_error_at = datetime.now(timezone.utc)

    @property
    def lag_events(self) -> int:
        return max(0, self.head - self.position)

    @property
    def lag_seconds(self) -> float:
        if self.oldest is None or self.position >= self.head:
            return 0.0
        return max(0.0, (datetime.now(timezone.utc) - from_iso(self.oldest)).total_seconds())

    @property
    def events_per_second(self) -> float:
        self._forget(time.monotonic())
        return float(sum(events for _, events in self._recent)) / RATE_SECONDS

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] < now - RATE_SECONDS:
            self._recent.popleft()

    async def ask(self, lag: Coroutine[Any, Any, tuple[int, int, float]]) -> Health:
        """What is noted here, with position and lag as the database says; without, if it cannot be asked.

        Args:
            lag: Asks for the position, the events behind, and the age of the oldest of them in seconds.
        """
        if self._unreachable() is not None:
            lag.close()
            return self.noted()
        try:
            position, events, seconds = await asyncio.wait_for(lag, HEALTH_SECONDS)
        except (DatabaseError, asyncio.TimeoutError) as error:
            why = error_text(error) if isinstance(error, DatabaseError) else _NO_ANSWER
            return replace(self.noted(), unreachable=why)
        return self.health(position=position, lag_events=events, lag_seconds=seconds)

    def noted(self) -> Health:
        """What is noted here, and no more. No I/O."""
        found = self.health(position=self.position, lag_events=self.lag_events, lag_seconds=self.lag_seconds)
        return replace(found, unreachable=self._unreachable())

    def health(self, *, position: int, lag_events: int, lag_seconds: float) -> Health:
        """What is noted here, with what the database says."""
        return Health(
            kind=self.kind,
            name=self.name,
            is_running=self.is_running,
            position=position,
            lag_events=lag_events,
            lag_seconds=lag_seconds,
            events_processed=self.events,
            events_per_second=self.events_per_second,
            failures=self.failures,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
            state=self.state,
            since=self.since,
        )

    @contextmanager
    def running(self, *, metrics: bool) -> Iterator[None]:
        """Running, and read by OpenTelemetry if that is wanted and installed, until the block ends."""
        if metrics:
            _register()
            _observed.add(self)
        self._set("running")
        before = self.failures
        ending: FollowerState = "stopped"
        try:
            yield
        except Exception as error:
            ending = "failed"
            if self.failures == before:  # else the attempt that failed says more
                self.note(error)
            raise
        finally:
            self._set(ending)
            _observed.discard(self)


_observed: WeakSet[FollowerStats] = WeakSet()


@cache
def _register() -> None:
    """Create the instruments, once per process: a provider that is set later takes them over."""
    try:
        from opentelemetry import metrics
    except ImportError:
        return
    meter = metrics.get_meter("esource")
    meter.create_observable_gauge("esource.position", [_reader(lambda stats: stats.position)])
    meter.create_observable_gauge("esource.lag.events", [_reader(lambda stats: stats.lag_events)])
    meter.create_observable_gauge("esource.lag.seconds", [_reader(lambda stats: stats.lag_seconds)], unit="s")
    meter.create_observable_counter("esource.events", [_reader(lambda stats: stats.events)])
    meter.create_observable_counter("esource.failures", [_reader(lambda stats: stats.failures)])


def _reader(value: Callable[[FollowerStats], float]) -> Callable[[Any], Iterable[Any]]:
    def read(options: Any) -> Iterable[Any]:
        from opentelemetry.metrics import Observation

        for stats in list(_observed):
            yield Observation(value(stats), {"esource.kind": stats.kind, "esource.name": stats.name})

    return read
