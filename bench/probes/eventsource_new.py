"""eventsource-py since its ports and adapters under the probes."""

from __future__ import annotations

from typing import Any

from eventsource import DomainEvent, StreamId, register_event

from bench.contenders.base import AGGREGATE_TYPE
from bench.contenders.eventsource_new import EventSourceNew
from bench.probes.subject import FIELDS, Shown, Subject, typed_event

Probed = register_event(typed_event(DomainEvent))


class Probe(Subject, EventSourceNew):
    def probed(self, stream: Any, version: int, mark: str, **fields: Any) -> Any:
        place = {"aggregate_id": stream.aggregate_id, "aggregate_version": version}
        return Probed(**place, mark=mark, **{**FIELDS, **fields})

    def stream(self, number: int) -> Any:
        return StreamId(super().stream(number), AGGREGATE_TYPE)

    async def follow(self, after: Any) -> list[Shown]:
        return [Shown(found.position, str(found.event.mark)) async for found in self.store.read_all(after)]

    async def events(self, stream: Any) -> list[Any]:
        return [found.event async for found in self.store.read_stream(stream)]
