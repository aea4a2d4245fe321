"""What the probes need of a contender beyond what the benchmark needs, and the event that all of them store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from bench.contenders.base import AGGREGATE_TYPE

FIELDS: dict[str, Any] = {"text": "", "number": 0, "ratio": 0.0, "moment": None, "amount": None}
"""Every field of the event but ``mark``, by which an event is known again whatever a library does to ids."""


def typed_event(base: type) -> type:
    """The event on a library's pydantic model."""

    class Probed(base):  # type: ignore[misc]
        event_type: str = "Probed"
        aggregate_type: str = AGGREGATE_TYPE
        mark: str
        text: str
        number: int
        ratio: float
        moment: datetime | None
        amount: Decimal | None

    return Probed


@dataclass(frozen=True)
class Shown:
    """An event in the order of the log."""

    after: Any
    """From where to go on."""
    mark: str


class Subject:
    """Mixed into a contender."""

    def probed(self, stream: Any, version: int, mark: str, **fields: Any) -> Any:
        """The event, for that place."""
        raise NotImplementedError

    def stream(self, number: int) -> Any:
        """The same stream for the same number, in every process."""
        return UUID(int=number)

    async def follow(self, after: Any) -> list[Shown]:
        """What a follower that has come so far gets next; from the beginning with None."""
        raise NotImplementedError

    async def events(self, stream: Any) -> list[Any]:
        raise NotImplementedError


VALUES: dict[str, tuple[str, Any]] = {
    "a moment without a zone": ("moment", datetime(2024, 7, 1, 12)),  # noqa: DTZ001
    "a moment elsewhere": (
        "moment",
        datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ),
    "microseconds": ("moment", datetime(2024, 7, 1, 12, 0, 0, 1, tzinfo=timezone.utc)),
    "an integer past 64 bits": ("number", 2**64 + 1),
    "an integer of 400 digits": ("number", 10**399),
    "a float that is whole": ("ratio", 1e22),
    "the smallest float": ("ratio", 5e-324),
    "not a number": ("ratio", float("nan")),
    "infinity": ("ratio", float("inf")),
    "a decimal": ("amount", Decimal("1.10")),
    "a text like a UUID": ("text", "6f9619ff-8b86-4011-b42d-00c04fc964ff"),
    "a text like a moment": ("text", "2024-07-01T12:00:00+00:00"),
    "NUL in a text": ("text", "a\x00b"),
    "half a pair": ("text", "a\ud800b"),
    "beyond the first plane": ("text", "😀\U0010ffff"),
}
"""Values of the declared types, by name: each is to come back equal, or to be refused."""


def is_kept(sent: Any, found: Any) -> bool:
    """Equal and of the same type; a moment is the same instant, and naive stays naive."""
    if isinstance(sent, float) and sent != sent:
        return isinstance(found, float) and found != found
    if type(found) is not type(sent) or found != sent:
        return False
    return not isinstance(sent, datetime) or (sent.tzinfo is None) == (found.tzinfo is None)
