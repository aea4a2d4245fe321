"""eventsourcing under the probes: its recorder's notifications, decoded, are its log."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from eventsourcing.domain import Aggregate

from bench.contenders.eventsourcing import EventSourcing
from bench.probes.subject import FIELDS, Shown, Subject


class Record(Aggregate):
    class Probed(Aggregate.Event):
        mark: str
        text: str
        number: int
        ratio: float
        moment: datetime | None
        amount: Decimal | None


class Probe(Subject, EventSourcing):
    def probed(self, stream: Any, version: int, mark: str, **fields: Any) -> Any:
        return Record.Probed(
            originator_id=stream,
            originator_version=version,
            timestamp=Record.Probed.create_timestamp(),
            mark=mark,
            **{**FIELDS, **fields},
        )

    async def append(self, stream: Any, events: list[Any], expected: int) -> None:
        self.app.events.put(events)  # which state their versions themselves

    async def follow(self, after: Any) -> list[Shown]:
        decode = self.app.mapper.to_domain_event
        return [Shown(found.id, decode(found).mark) for found in self._page(after or 0)]

    async def events(self, stream: Any) -> list[Any]:
        return list(self.app.events.get(stream))
