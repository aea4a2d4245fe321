"""OpenTelemetry spans where the API is installed and tracing is on; nothing at all otherwise.

Span names are ``esource.<operation>``; attributes follow OpenTelemetry's database conventions
(``db.system``) and our own words. No payload and no password is ever an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol


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


def span(tracer: Tracer | None, name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """A span around an operation; free of charge without a tracer."""
    if tracer is None:
        return nullcontext()
    return tracer.start_as_current_span(f"esource.{name}", attributes=_attributes(attributes))


@contextmanager
def reading_span(tracer: Tracer | None, name: str, **attributes: Any) -> Iterator[None]:
    """A span around an iteration. It lasts until that ends or is left, and is never the current span of
    whoever works on an event in between."""
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
