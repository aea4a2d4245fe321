"""eventsource-py 0.5.0 under the probes."""

from __future__ import annotations

from typing import Any

from eventsource import DomainEvent, register_event
from eventsource.stores.interface import ReadOptions

from bench.contenders.base import AGGREGATE_TYPE
from bench.contenders.eventsource_050 import EventSource050
from bench.probes.subject import FIELDS, Shown, Subject, typed_event

Probed = register_event(typed_event(DomainEvent))


class Probe(Subject, EventSource050):
    def probed(self, stream: Any, version: int, mark: str, **fields: Any) -> Any:
        return Probed(aggregate_id=stream, aggregate_version=version, mark=mark, **{**FIELDS, **fields})

    async def follow(self, after: Any) -> list[Shown]:
        found = self.store.read_all(ReadOptions(from_position=after or 0))
        return [Shown(stored.global_position, str(stored.event.mark)) async for stored in found]

    async def events(self, stream: Any) -> list[Any]:
        return list((await self.store.get_events(stream, AGGREGATE_TYPE)).events)
